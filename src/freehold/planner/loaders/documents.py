"""JSON, whole or a line each: objects become the same columns of text that a table has."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import polars as pl

from freehold.planner.loaders.layouts import Layout, normal
from freehold.planner.loaders.problems import UnreadableFile
from freehold.planner.loaders.rows import RAW_LINE

BATCH = 50_000
_MOST_KINDS = 1_000
_CHUNK = 4 << 20
_SEPARATOR = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*")
_LONGEST = 64 << 20
"""No single object is longer than this."""
_LISTS = ("data", "lines", "results", "logs", "spend_logs", "rows")
"""Under which names a document keeps its rows."""

Row = tuple[int, dict[str, Any]]
"""Line, object with plain names."""


class NotAnObject(ValueError):
    """A line, or an entry of a list, that is no object; the text says what."""

    def __init__(self, line: int, value: str, reason: str) -> None:
        self.line, self.value, self.reason = line, value, reason
        super().__init__(reason)


def is_lines(head: str) -> bool:
    """True for an object a line; False for one document."""
    lines = [line for line in head.lstrip("\ufeff").splitlines() if line.strip()]
    if not lines or not lines[0].lstrip().startswith("{"):
        return False
    try:
        first = json.loads(lines[0])
    except ValueError:
        return False
    return len(lines) > 1 or not any(isinstance(first.get(name), list) for name in _LISTS)


def from_lines(stream: IO[bytes]) -> Iterator[Row | NotAnObject]:
    """Each line's object, or what is wrong with the line."""
    decode, flat = msgspec.json.Decoder().decode, Flat()
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isspace() or not line:
            continue
        try:
            value = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            yield NotAnObject(number, line[:80].decode("utf-8", "replace").strip(), f"no JSON: {wrong}")
            continue
        if isinstance(value, dict):
            for row in flat(value):
                yield number, row
        else:
            yield NotAnObject(number, str(value)[:80], "no object")


def from_document(stream: IO[bytes], name: str) -> Iterator[Row | NotAnObject]:
    """The objects of a list, or of the list under a known name of an object, read one after the other.

    Raises UnreadableFile for what is no JSON, or holds no such list.
    """
    scan = _Scan(stream, name)
    opened = scan.next_char()
    if opened == "{":
        if not scan.enter_list():
            raise UnreadableFile(
                file=name, reason=f"the JSON holds no list named {', '.join(_LISTS[:-1])} or {_LISTS[-1]}."
            )
    elif opened != "[":
        raise UnreadableFile(file=name, reason="it is no JSON list or object.")
    flat = Flat()
    for line, value in scan.items():
        if isinstance(value, dict):
            for row in flat(value):
                yield line, row
        else:
            yield NotAnObject(line, str(value)[:80], "no object")


class _Scan:
    """Values of a JSON text that is read as it is needed."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._text, self._at, self._line, self._ended = "", 0, 1, False
        self._decode = json.JSONDecoder().raw_decode
        self._bytes = b""

    def next_char(self) -> str:
        """The next character that is no space, taken; empty at the end."""
        while True:
            while self._at < len(self._text):
                char = self._text[self._at]
                self._step(1)
                if char not in " \t\r\n\ufeff":
                    return char
            if not self._more():
                return ""

    def enter_list(self) -> bool:
        """Pass over an object's members to the first list under a known name."""
        while True:
            char = self.next_char()
            if char in ("}", ""):
                return False
            if char == ",":
                continue
            self._at -= 1
            key = self.value()
            if self.next_char() != ":":
                raise self._broken("a name without a value")
            char = self.next_char()
            if char == "[" and key in _LISTS:
                return True
            self._at -= 1
            self.value()

    def items(self) -> Iterator[tuple[int, Any]]:
        """(line, value) of a list that was entered."""
        if self.next_char() == "]":
            return
        self._at -= 1
        go_on = _SEPARATOR.match
        while True:
            line = self._line
            yield line, self.value()
            found = go_on(self._text, self._at)
            if found is not None and found.end() < len(self._text):  # the quick way: all of it is here
                self._step(found.end() - self._at)
                if found[1] == "]":
                    return
                continue
            char = self.next_char()
            if char == "]":
                return
            if char != ",":
                raise self._broken("the list doesn't go on" if char else "the file ends within the list")
            self.next_char()
            self._at -= 1

    def value(self) -> Any:
        while True:
            try:
                found, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as wrong:
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise self._broken(wrong.msg) from None
                continue
            if end == len(self._text) and self._more():  # a number may go on
                continue
            self._step(end - self._at)
            return found

    def _step(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count
        if self._at > _CHUNK:
            self._drop()

    def _drop(self) -> None:
        keep = max(0, self._at - 1)
        self._text, self._at = self._text[keep:], self._at - keep

    def _more(self) -> bool:
        if self._ended:
            return False
        read = self._stream.read(_CHUNK)
        self._ended = not read
        data = self._bytes + read
        try:
            text, self._bytes = data.decode("utf-8"), b""
        except UnicodeDecodeError as wrong:
            if self._ended or wrong.end < len(data) - 4:
                raise self._broken("no UTF-8") from None
            text, self._bytes = data[: wrong.start].decode("utf-8"), data[wrong.start :]
        self._text += text
        return bool(read)

    def _broken(self, why: str) -> UnreadableFile:
        return UnreadableFile(file=self._name, reason=f"no JSON at line {self._line}: {why}.")


_SPECIAL = frozenset({"usage", "amount", "results"})
_Names = dict[tuple[str, ...], tuple[tuple[str, ...], bool, bool]]


class Flat:
    """Objects with plain names: what `usage` holds beside the rest, an amount's value and currency, a bucket's results.

    What the names of a kind of object mean is kept, since rows are mostly alike.
    """

    def __init__(self) -> None:
        self._seen: _Names = {}

    def __call__(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        keys = tuple(value)
        seen = self._seen.get(keys)
        if seen is None:
            names = tuple(map(normal, keys))
            if len(self._seen) >= _MOST_KINDS:
                self._seen.clear()
            seen = self._seen[keys] = (names, names == keys, not _SPECIAL.isdisjoint(names))
        names, same, special = seen
        plain = value if same else dict(zip(names, value.values(), strict=True))
        return self._parted(dict(plain)) if special else [plain]

    def _parted(self, plain: dict[str, Any]) -> list[dict[str, Any]]:
        usage, amount, results = plain.get("usage"), plain.get("amount"), plain.get("results")
        if isinstance(usage, dict):
            plain.update({normal(name): each for name, each in usage.items()})
        if isinstance(amount, dict):
            plain["amount_value"], plain["amount_currency"] = amount.get("value"), amount.get("currency")
        if not isinstance(results, list) or "start_time" not in plain:
            return [plain]
        start = plain["start_time"]
        if not results:
            return [{"start_time": start, "num_model_requests": 0}]
        return [{"start_time": start, **row} for each in results if isinstance(each, dict) for row in self(each)]


def texts(rows: list[Row], layout: Layout) -> pl.DataFrame:
    """Objects as columns of text, beside `RAW_LINE`; a name that an object lacks is empty."""
    found = [row for _, row in rows]
    columns = {name: _column([row.get(name) for row in found]) for name in layout.used()}
    return pl.DataFrame(columns).with_columns(pl.Series(RAW_LINE, [line for line, _ in rows], dtype=pl.Int64))


def _column(values: list[Any]) -> pl.Series:
    """Values of one name as texts; a whole column at once where all are of one simple kind."""
    kinds = set(map(type, values))
    if kinds <= {str, type(None)}:
        return pl.Series(values, dtype=pl.String)
    if kinds == {int} and max(map(abs, values)) < 2**62:
        return pl.Series(values, dtype=pl.Int64).cast(pl.String)
    return pl.Series([_text(value) for value in values], dtype=pl.String)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value) if isinstance(value, int | float) else json.dumps(value)
