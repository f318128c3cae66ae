"""CSV in blocks: each block is cut at the end of a row, and its rows become columns of text with their line numbers."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import polars as pl

from freehold.planner.loaders.layouts import SERVEGEN, Layout, known, normal
from freehold.planner.loaders.rows import RAW_LINE

BLOCK_BYTES = 8 << 20
_LINE_END = ord("\n")
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file's rows are made."""

    layout: Layout
    names: tuple[str, ...]
    delimiter: str
    header_lines: int


def shape(head: str) -> Shape | str:
    """What the first lines say of a table, or why they say nothing."""
    lines = [(number, line) for number, line in enumerate(head.splitlines(), 1) if line.strip()]
    if not lines:
        return "it is empty."
    number, first = lines[0]
    delimiter = max(_DELIMITERS, key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter))
    names = tuple(map(normal, cells))
    if len(cells) == len(SERVEGEN.columns) and _is_number(cells[0]) and _is_number(cells[1]):
        return Shape(SERVEGEN, SERVEGEN.columns, delimiter, number - 1)
    layout = known(names)
    if layout is None:
        return f"its first line names no column for a time and for a cost, tokens or requests: {first.strip()[:120]!r}."
    if len(set(names)) < len(names):
        names = tuple(name if names.index(name) == place else f"{name} {place}" for place, name in enumerate(names))
    return Shape(layout, names, delimiter, number)


def blocks(stream: IO[bytes], size: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, bytes) of whole rows: a line end within quotes ends no row."""
    line, rest = 1, b""
    while True:
        more = stream.read(size)
        block = rest + more
        if not more:
            if block:
                yield line, block
            return
        cut = _end_of_row(block)
        if cut:
            yield line, block[:cut]
            line += block.count(b"\n", 0, cut)
        rest = block[cut:]


def _end_of_row(block: bytes) -> int:
    """Where the last whole row ends: the last line end with an even number of quotes before it; 0 if there is none."""
    cut = block.rfind(b"\n") + 1
    quotes = block.count(b'"', 0, cut)
    while cut and quotes % 2:
        earlier = block.rfind(b"\n", 0, cut - 1) + 1
        quotes -= block.count(b'"', earlier, cut)
        cut = earlier
    return cut


def texts(line: int, block: bytes, made: Shape) -> tuple[pl.DataFrame, list[tuple[int, str, str]]]:
    """A block's rows as columns of text, beside `RAW_LINE`; and the rows that have too few or too many fields."""
    if line > made.header_lines:
        quick = _plain(line, block, made)
        if quick is not None:
            return quick, []
    text = block.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")
    if line <= made.header_lines:
        for _ in range(made.header_lines - line + 1):
            text = text.partition("\n")[2]
        line = made.header_lines + 1
    if '"' in text:
        return _quoted(line, text, made)
    rows = text.split("\n")
    frame = pl.DataFrame(
        {"row": rows, RAW_LINE: range(line, line + len(rows))}, schema={"row": pl.String, RAW_LINE: pl.Int64}
    )
    frame = frame.filter(pl.col("row").str.strip_chars() != "")
    fields = frame["row"].str.count_matches(made.delimiter, literal=True) + 1
    wrong = fields != len(made.names)
    bad: list[tuple[int, str, str]] = []
    if wrong.any():
        for row, at, count in zip(*frame.filter(wrong).get_columns(), fields.filter(wrong), strict=True):
            bad.append((at, row[:80], _count(count, made)))
        frame = frame.filter(~wrong)
    split = frame["row"].str.split_exact(made.delimiter, len(made.names) - 1).struct.unnest()
    split.columns = list(made.names)
    used = [name for name in made.layout.used() if name in made.names]
    return split.select(used).with_columns(frame[RAW_LINE]), bad


def _plain(line: int, block: bytes, made: Shape) -> pl.DataFrame | None:
    """The rows of a block without quotes or blank lines in which each row has its fields; None for any other."""
    if b'"' in block or b"\n\n" in block or b"\r\n\r\n" in block:
        return None
    codes = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(codes == _LINE_END)
    if not len(ends) or ends[-1] != len(codes) - 1:
        ends = np.append(ends, len(codes))
    passed = np.searchsorted(np.flatnonzero(codes == ord(made.delimiter)), ends)
    if bool((np.diff(passed, prepend=0) != len(made.names) - 1).any()):
        return None
    used = [name for name in made.layout.used() if name in made.names]
    places = [made.names.index(name) for name in used]
    ordered = sorted(places)
    try:
        frame = pl.read_csv(
            block, columns=ordered, has_header=False, separator=made.delimiter, quote_char=None, infer_schema=False,
            encoding="utf8-lossy",
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        return None
    if frame.height != len(ends):
        return None
    frame = frame.select(pl.nth(ordered.index(place)).alias(name) for place, name in zip(places, used, strict=True))
    return frame.with_columns(pl.Series(RAW_LINE, np.arange(line, line + len(ends))))


def _quoted(line: int, text: str, made: Shape) -> tuple[pl.DataFrame, list[tuple[int, str, str]]]:
    used = [name for name in made.layout.used() if name in made.names]
    places = [made.names.index(name) for name in used]
    columns: list[list[str]] = [[] for _ in used]
    lines: list[int] = []
    bad: list[tuple[int, str, str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=made.delimiter)
    started, width = line, len(made.names)
    try:
        for row in reader:
            if len(row) == width:
                for column, place in zip(columns, places, strict=True):
                    column.append(row[place])
                lines.append(started)
            elif any(cell.strip() for cell in row):
                bad.append((started, made.delimiter.join(row)[:80], _count(len(row), made)))
            started = line + reader.line_num
    except csv.Error as wrong:
        bad.append((started, "", f"no row of CSV: {wrong}"))
    schema: Sequence[tuple[str, type[pl.DataType]]] = [(name, pl.String) for name in used]
    frame = pl.DataFrame(dict(zip(used, columns, strict=True)), schema=schema)
    return frame.with_columns(pl.Series(RAW_LINE, lines, dtype=pl.Int64)), bad


def _count(found: int, made: Shape) -> str:
    return f"has {found} fields where the file has {len(made.names)}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
