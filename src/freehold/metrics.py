"""Numbers of one worker process, in memory that every worker of the machine can read.

Each worker owns one file of a folder, by a lock that the kernel drops with it: it alone writes there, without a lock per
number. A file whose worker ended is taken over by the next one, so that counters go on and files don't pile up. Values
are integers (nano-USD, microseconds), so sums over workers are exact.
"""

import fcntl
import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SLOTS = 4_096
_TEXT = SLOTS * 8
_SIZE = _TEXT + 1024 * 1024
_MOST = 2**63 - 1
_USED, _SPILLED = 0, 1
_FIRST = 2
SUFFIX = ".metrics"

Labels = tuple[tuple[str, str], ...]


class Numbers:
    """What one worker counts. A name with labels has a slot; `add` and `put` write to it."""

    def __init__(self, memory: "mmap.mmap | bytearray", lock: IO[bytes] | None = None) -> None:
        self._values = memoryview(memory)[:_TEXT].cast("q")
        self._text = memoryview(memory)[_TEXT:]
        self._lock = lock
        self._slots: dict[tuple[str, Labels], int] = {}
        self._end = 0
        for slot, (name, labels, _) in enumerate(_read(bytes(memory)), _FIRST):
            self._slots[name, labels] = slot
            self._end += len(_key(name, labels))
        self._values[_USED] = max(self._values[_USED], _FIRST)

    @classmethod
    def private(cls) -> "Numbers":
        """For a process without a folder: nobody else reads it."""
        return cls(bytearray(_SIZE))

    @classmethod
    def shared(cls, folder: Path) -> "Numbers":
        """The first file of `folder` that no living worker owns. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 0
        while True:
            file = os.fdopen(os.open(folder / f"{number}{SUFFIX}", os.O_RDWR | os.O_CREAT, 0o600), "r+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                number += 1
                continue
            file.truncate(_SIZE)
            return cls(mmap.mmap(file.fileno(), _SIZE), file)

    def slot(self, name: str, **labels: str) -> int:
        """Where this number stands; made when new. When all are taken, one that is shown as spilled."""
        key = (name, tuple(sorted(labels.items())))
        found = self._slots.get(key)
        if found is not None:
            return found
        slot, text = self._values[_USED], _key(*key)
        if slot >= SLOTS or self._end + len(text) > len(self._text):
            return _SPILLED
        self._text[self._end : self._end + len(text)] = text
        self._end += len(text)
        self._values[slot] = 0
        self._values[_USED] = slot + 1  # last: whoever reads it finds the name
        self._slots[key] = slot
        return slot

    def add(self, slot: int, amount: int = 1) -> None:
        value = self._values[slot] + amount
        self._values[slot] = value if value < _MOST else _MOST

    def add_each(self, slots: Sequence[int], amounts: Iterable[int]) -> None:
        """`add` for several numbers at once: a third of the time."""
        values = self._values
        for slot, amount in zip(slots, amounts, strict=False):
            value = values[slot] + amount
            values[slot] = value if value < _MOST else _MOST

    def put(self, slot: int, value: int) -> None:
        self._values[slot] = value

    def histogram(self, name: str, bounds: Sequence[int], **labels: str) -> "Histogram":
        return Histogram(self, name, bounds, labels)

    def forget(self, names: Iterable[str]) -> None:
        """Set every number of these names to 0: what an ended worker's gauges said is over."""
        wanted = set(names)
        for (name, _), slot in self._slots.items():
            if name in wanted:
                self._values[slot] = 0

    def read(self) -> list[tuple[str, Labels, int]]:
        return list(_read(bytes(self._values) + bytes(self._text)))


class Histogram:
    """How many values were at most each of `bounds`, and their sum."""

    def __init__(self, numbers: Numbers, name: str, bounds: Sequence[int], labels: Mapping[str, str]) -> None:
        self._numbers = numbers
        self._bounds = bounds
        self._buckets = [numbers.slot(f"{name}_bucket", le=str(bound), **labels) for bound in (*bounds, "+Inf")]
        self._sum = numbers.slot(f"{name}_sum", **labels)

    def see(self, value: int) -> None:
        add = self._numbers.add
        add(self._buckets[bisect_left(self._bounds, value)])
        add(self._sum, value)


@dataclass(frozen=True, slots=True)
class Worker:
    """What one file tells."""

    alive: bool
    numbers: Sequence[tuple[str, Labels, int]]


def workers(folder: Path) -> list[Worker]:
    """Every worker of this folder, also those that have ended, by file."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                alive = False
            except OSError:
                alive = True
            found.append(Worker(alive, list(_read(file.read()))))
    return found


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as Prometheus shows it. Values are divided by 10^`places`."""

    name: str
    kind: str
    """counter, gauge or histogram."""
    help: str
    places: int = 0


def exposition(families: Sequence[Family], found: Iterable[Worker], more: Mapping[str, Mapping[Labels, int]]) -> str:
    """Prometheus' text format: sums over workers, gauges of living ones only; `more` has what isn't a worker's."""
    sums: dict[str, dict[Labels, int]] = {name: dict(values) for name, values in more.items()}
    gauges = {family.name for family in families if family.kind == "gauge"}
    for worker in found:
        for name, labels, value in worker.numbers:
            if worker.alive or name not in gauges:
                of_name = sums.setdefault(name, {})
                of_name[labels] = of_name.get(labels, 0) + value
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        if family.kind == "histogram":
            lines += _histogram(family, sums)
        else:
            for labels, value in sorted(sums.get(family.name, {}).items()):
                lines.append(_line(family.name, labels, _decimal(value, family.places)))
    return "\n".join([*lines, ""])


def _histogram(family: Family, sums: Mapping[str, Mapping[Labels, int]]) -> Iterator[str]:
    buckets: dict[Labels, list[tuple[int, int]]] = {}
    for labels, value in sums.get(f"{family.name}_bucket", {}).items():
        bound = dict(labels)["le"]
        rest = tuple(label for label in labels if label[0] != "le")
        buckets.setdefault(rest, []).append((_MOST if bound == "+Inf" else int(bound), value))
    for rest, counts in sorted(buckets.items()):
        total = 0
        for most, value in sorted(counts):
            total += value
            shown = "+Inf" if most == _MOST else _decimal(most, family.places)
            yield _line(f"{family.name}_bucket", (*rest, ("le", shown)), str(total))
        summed = sums.get(f"{family.name}_sum", {}).get(rest, 0)
        yield _line(f"{family.name}_sum", rest, _decimal(summed, family.places))
        yield _line(f"{family.name}_count", rest, str(total))


def _line(name: str, labels: Labels, value: str) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _decimal(value: int, places: int) -> str:
    """Exact: 12 with 3 places is 0.012."""
    if places == 0:
        return str(value)
    whole, rest = divmod(abs(value), 10**places)
    fraction = str(rest).zfill(places).rstrip("0")
    return ("-" if value < 0 else "") + (f"{whole}.{fraction}" if fraction else str(whole))


def _key(name: str, labels: Labels) -> bytes:
    return json.dumps([name, labels]).encode() + b"\n"


def _read(memory: bytes) -> Iterator[tuple[str, Labels, int]]:
    if len(memory) < _SIZE:
        return
    values = memoryview(memory)[:_TEXT].cast("q")
    names = memory[_TEXT:].split(b"\n", max(values[_USED] - _FIRST, 0))
    for slot, name in zip(range(_FIRST, values[_USED]), names, strict=False):
        text, labels = json.loads(name)
        yield text, tuple((label, value) for label, value in labels), values[slot]
    if values[_SPILLED]:
        yield "freehold_metrics_spilled_total", (), values[_SPILLED]
