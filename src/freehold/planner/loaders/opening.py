"""Files as they come: plain, gzip, tar, folders. Whatever the name says, the first bytes decide."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from freehold.planner.loaders.problems import UnreadableFile

GZIP = b"\x1f\x8b"
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
}

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes there are, over all files."""


@dataclass(frozen=True, slots=True)
class Part:
    """One series of rows: a file, or a file in an archive."""

    name: str
    stream: io.BufferedReader
    inside: bool
    """True: one of an archive's."""


class _Counted(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, inner: IO[bytes], told: Callable[[int], None]) -> None:
        self._inner, self._told = inner, told

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        read = self._inner.read(len(view))
        view[: len(read)] = read
        self._told(len(read))
        return len(read)


def _nobody(count: int) -> None:
    """Nobody is told."""


def parts(paths: Iterable[Path], progress: Progress | None = None) -> Iterator[Part]:
    """Every series in `paths`; of a folder, its files by name. A part must be read before the next is asked for.

    Raises UnreadableFile.
    """
    files = [file for path in paths for file in _files(path)]
    total = sum(file.stat().st_size for file in files)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    for file in files:
        try:
            with file.open("rb") as raw:
                yield from _opened(file.name, io.BufferedReader(_Counted(raw, told), 1 << 20))
        except (OSError, EOFError, zlib.error, tarfile.TarError) as broken:
            raise UnreadableFile(
                file=file.name, reason=f"it ends or breaks off where it shouldn't: {broken}."
            ) from None


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))
        if not inside:
            raise UnreadableFile(file=str(path), reason="the folder holds no file.")
        return inside
    if not path.is_file():
        raise UnreadableFile(file=str(path), reason="there is no such file.")
    return [path]


def _opened(name: str, raw: io.BufferedReader) -> Iterator[Part]:
    head = raw.peek(512)
    if head.startswith(GZIP):
        yield from _opened(name, io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20))
        return
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise UnreadableFile(file=name, reason=f"it is {what}; unpack it, or send CSV, JSON, gzip or tar.")
    if head[257:262] == b"ustar":
        with tarfile.open(fileobj=raw, mode="r|") as archive:
            for member in archive:
                inner = archive.extractfile(member) if member.isfile() else None
                base = member.name.rsplit("/", 1)[-1]
                if inner is not None and not base.startswith("."):
                    for part in _opened(base, io.BufferedReader(_Counted(inner, _nobody))):
                        yield Part(part.name, part.stream, inside=True)
        return
    yield Part(name, raw, inside=False)
