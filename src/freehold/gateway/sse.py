"""Server-sent events, read incrementally from chunks cut anywhere."""

ALIVE = b""
"""What a comment of the upstream's is read as: no data, but a sign of life."""

DONE = b"[DONE]"
"""The data of OpenAI's end marker."""

LONGEST_FRAME = 8 * 1024 * 1024
"""Bytes of one event; nothing longer is collected."""


class FrameTooLong(Exception):
    """One event of the upstream's is longer than what is collected of it."""


class Frames:
    """Collects events from raw chunks; a chunk may end in the middle of a line, of CR LF or of a character.

    Lines end with LF, CR LF or CR. Several `data` lines of one event are joined by LF. Other fields are ignored.
    """

    def __init__(self, longest: int = LONGEST_FRAME) -> None:
        self._longest = longest
        self._size = 0
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that `chunk` completes, and ALIVE for each comment. Raises FrameTooLong."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._size += len(chunk)
        if b"\n" not in chunk:
            if self._size > self._longest:
                raise FrameTooLong
            if chunk:
                self._line.append(chunk)
            return []
        if self._line:
            chunk = b"".join([*self._line, chunk])
        lines = chunk.split(b"\n")
        rest = lines.pop()
        self._line = [rest] if rest else []
        found: list[bytes] = []
        for line in lines:
            self._take(line, found)
        self._size = len(rest) + sum(map(len, self._data))
        if self._size > self._longest:
            raise FrameTooLong
        return found

    def end(self) -> list[bytes]:
        """What stands unfinished at the end of the stream: some servers omit the last empty line."""
        found: list[bytes] = []
        self._take(b"".join(self._line), found)
        self._take(b"", found)
        self._line = []
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._data = []
                if data:
                    found.append(data)
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            self._data.append(b"")
        elif line.startswith(b":"):
            found.append(ALIVE)


def frame(data: bytes) -> bytes:
    """One event with this data, which holds no line end."""
    return b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients ignore."""
    return b": " + text.encode() + b"\n\n"
