"""`load`: files of usage of any known format → a trace."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from freehold.planner.loaders import documents, table
from freehold.planner.loaders.layouts import KNOWN, Layout, known
from freehold.planner.loaders.opening import Part, Progress, parts
from freehold.planner.loaders.problems import BadRows, MixedTimes, NoUsage, UnknownFormat, UnreadableFile
from freehold.planner.loaders.rows import Read, read
from freehold.planner.loaders.trace import SUMS, Trace
from freehold.planner.model import BadRow, Provenance, SourceFile

DAY_S = 86_400
SHOWN_BAD_ROWS = 100
"""So many bad rows are kept to be shown; all are counted."""
_HEAD_BYTES = 256 << 10


def load(paths: Iterable[Path], *, progress: Progress | None = None, leave_out_bad_rows: bool = False) -> Trace:
    """Read every file, folder, gzip and tar in `paths`, each in its own format, told by its content.

    With any bad row nothing is taken, unless `leave_out_bad_rows`. Raises BadRows, UnknownFormat, UnreadableFile,
    MixedTimes and NoUsage.
    """
    paths = list(paths)
    files: list[_File] = []
    for part in parts(paths, progress):
        file = _File(part.name)
        for rows in _reads(part, file):
            file.add(rows)
        files.append(file)
    bad = tuple(row for file in files for row in file.bad)[:SHOWN_BAD_ROWS]
    count = sum(file.bad_count for file in files)
    if count and not leave_out_bad_rows:
        raise BadRows(bad, count)
    filled = [file for file in files if file.rows]
    if not filled:
        raise NoUsage(files=", ".join(path.name for path in paths) or "no file")
    dated = next((file.name for file in filled if file.dated), None)
    undated = next((file.name for file in filled if file.undated), None)
    if dated is not None and undated is not None:
        raise MixedTimes(dated=dated, undated=undated)
    return Trace(_added([file.daily() for file in filled], "client"), _provenance(files, bad, count, dated is not None))


@dataclass(slots=True)
class _File:
    """What is known of a file while it is read."""

    name: str
    layout: Layout | None = None
    rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    bad_count: int = 0
    dated: bool = False
    undated: bool = False
    zoneless: int = 0
    first_s: float = np.inf
    last_s: float = -np.inf
    sums: list[pl.DataFrame] = field(default_factory=list)
    counts: dict[str, list[pl.DataFrame]] = field(default_factory=lambda: {"input": [], "output": []})

    @property
    def client(self) -> str:
        if self.layout is None or not self.layout.client_per_file:
            return ""
        name = self.name.split("/")[-1]
        for ending in (".gz", ".csv", "-trace"):
            name = name.removesuffix(ending)
        return name

    def add(self, block: Read) -> None:
        """Add a block up by day and model."""
        self.bad += [BadRow(self.name, *row) for row in block.bad[: SHOWN_BAD_ROWS - len(self.bad)]]
        self.bad_count += len(block.bad)
        frame = block.frame
        if frame.height == 0:
            return
        self.rows += frame.height
        self.dated |= block.dated
        self.undated |= block.undated
        self.zoneless += block.zoneless
        at = frame["at"].to_numpy()
        self.first_s = min(self.first_s, float(at.min()))
        self.last_s = max(self.last_s, float(at.max()))
        free = pl.when(pl.col("cost").is_null())
        rows = frame.with_columns(
            (pl.col("at") / DAY_S).floor().cast(pl.Int64).alias("day"),
            *(
                free.then(pl.col(name)).otherwise(0.0).alias(f"free_{name}")
                for name in ("requests", "input", "cached", "output")
            ),
        )
        self.sums.append(_added([rows], "day", "model"))
        if len(self.sums) > 64:
            self.sums = [_added(self.sums, "day", "model")]
        if self.layout is not None and self.layout.row_is_request and (self.layout.inputs or self.layout.outputs):
            prompt = (frame["input"] + frame["cached"]).alias("value")
            for name, values in (("input", prompt), ("output", frame["output"].alias("value"))):
                counted = values.to_frame().group_by("value").len("count")
                self.counts[name].append(counted)

    def daily(self) -> pl.DataFrame:
        return _added(self.sums, "day", "model").with_columns(pl.lit(self.client).alias("client"))


def _added(frames: list[pl.DataFrame], *by: str) -> pl.DataFrame:
    keys = ("client", "day", "model") if "client" in by else by
    return pl.concat(frames).group_by(*keys).agg(pl.col(name).sum() for name in SUMS).sort(*keys)


def _reads(part: Part, file: _File) -> Iterator[Read]:
    """A part's blocks, read. Sets `file.layout`."""
    stream = part.stream
    head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES].decode("utf-8", "replace")
    start = head.lstrip("\ufeff \t\r\n")[:1]
    if start in ("{", "["):
        yield from _json(part, file, lines=documents.is_lines(head))
        return
    if "\x00" in head:
        raise UnreadableFile(file=part.name, reason="it is not text in UTF-8.")
    made = table.shape(head.lstrip("\ufeff"))
    if isinstance(made, str):
        raise UnknownFormat(file=part.name, reason=made, known=known_formats())
    file.layout = made.layout
    window_s = 0.0
    for line, block in table.blocks(stream):
        columns, wrong = table.texts(line, block, made)
        if made.layout.rate is not None and not window_s:
            window_s = _window(columns[made.layout.time])
        _check_groups(columns, made.layout, part.name)
        block_read = read(columns, made.layout, window_s=window_s)
        block_read.bad[:] = sorted([*wrong, *block_read.bad])
        yield block_read


def _json(part: Part, file: _File, *, lines: bool) -> Iterator[Read]:
    found = documents.from_lines(part.stream) if lines else documents.from_document(part.stream, part.name)
    batch: list[documents.Row] = []
    wrong: list[tuple[int, str, str]] = []

    def taken() -> Iterator[Read]:
        if file.layout is None and batch:
            names = {name for _, row in batch[:100] for name in row}
            file.layout = known(names)
            if file.layout is None:
                raise UnknownFormat(
                    file=part.name,
                    reason=f"its objects name no time and no cost, tokens or requests: {', '.join(sorted(names)[:12])}.",
                    known=known_formats(),
                )
        if file.layout is not None:
            columns = documents.texts(batch, file.layout)
            _check_groups(columns, file.layout, part.name)
            block_read = read(columns, file.layout)
            block_read.bad[:] = sorted([*wrong, *block_read.bad])
            yield block_read
        elif wrong:
            yield Read(_EMPTY, list(wrong), False, False, 0)
        batch.clear()
        wrong.clear()

    for row in found:
        if isinstance(row, documents.NotAnObject):
            wrong.append((row.line, row.value, row.reason))
        else:
            batch.append(row)
        if len(batch) >= documents.BATCH or len(wrong) >= documents.BATCH:
            yield from taken()
    if batch or wrong:
        yield from taken()


_EMPTY = pl.DataFrame(
    schema={
        "at": pl.Float64, "model": pl.String, "requests": pl.Float64, "input": pl.Float64, "cached": pl.Float64,
        "output": pl.Float64, "cost": pl.Float64,
    }
)  # fmt: skip


def _check_groups(columns: pl.DataFrame, layout: Layout, name: str) -> None:
    """Usage of ours that was added up by model or by key says nothing of days."""
    if layout.time == "group" and columns.height and not columns["group"].str.contains(r"^\d{4}-\d{2}-\d{2}").any():
        raise UnreadableFile(
            file=name, reason="its usage is added up by model or by key, without days; export it by day, hour or call."
        )


def _window(times: pl.Series) -> float:
    """Seconds that a row of a rate stands for: the usual step between rows; ten minutes for a single row."""
    steps = np.diff(np.unique(times.cast(pl.Float64, strict=False).drop_nulls().to_numpy()))
    return float(np.median(steps)) if len(steps) else 600.0


def known_formats() -> str:
    """Their names, in words."""
    names = list(dict.fromkeys(layout.name for layout in KNOWN))
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _provenance(files: list[_File], bad: tuple[BadRow, ...], bad_count: int, dated: bool) -> Provenance:
    notes: list[str] = []
    zoneless = sum(file.zoneless for file in files)
    if zoneless:
        notes.append(f"{zoneless:,} times name no zone; they are taken as UTC.")
    if not dated:
        notes.append("The times count from the series' own start; its days have no date and no weekday.")
    for file in files:
        if file.layout is not None and file.layout.guessed:
            used = ", ".join(file.layout.used())
            notes.append(f"{file.name} is in no format known by name; its columns {used} are taken by what they say.")
    filled = [file for file in files if file.rows]
    left_out = "1 bad row is left out." if bad_count == 1 else f"{bad_count:,} bad rows are left out."
    warnings = (*((left_out,) if bad_count else ()), *(_twice(filled) if dated else ()))
    return Provenance(
        files=tuple(
            SourceFile(
                name=file.name,
                format=file.layout.name if file.layout else "nothing",
                rows=file.rows,
                bad_rows=file.bad_count,
                first_at_s=file.first_s if file.rows and file.dated else None,
                last_at_s=file.last_s if file.rows and file.dated else None,
                client=file.client,
            )
            for file in files
        ),
        bad_rows=bad,
        bad_row_count=bad_count,
        first_at_s=min(file.first_s for file in filled),
        last_at_s=max(file.last_s for file in filled),
        dated=dated,
        notes=tuple(notes),
        warnings=warnings,
        rows=sum(file.rows for file in files),
        median_input_tokens=_median([each for file in files for each in file.counts["input"]]),
        median_output_tokens=_median([each for file in files for each in file.counts["output"]]),
    )


def _twice(files: list[_File]) -> list[str]:
    """A warning for each two formats that tell of the same days: perhaps the same calls, counted twice."""
    told: dict[frozenset[str], str] = {}
    for one, other in combinations(files, 2):
        kinds = frozenset(file.layout.name for file in (one, other) if file.layout is not None)
        shared = one.first_s // DAY_S <= other.last_s // DAY_S and other.first_s // DAY_S <= one.last_s // DAY_S
        if len(kinds) == 2 and shared:
            told.setdefault(
                kinds, f"{one.name} and {other.name} tell of the same days; calls that are in both are counted twice."
            )
    return list(told.values())


def _median(counts: list[pl.DataFrame]) -> float | None:
    """The median of values that were counted block by block."""
    if not counts:
        return None
    added = pl.concat(counts).group_by("value").agg(pl.col("count").sum()).sort("value")
    values = added["value"].to_numpy()
    reached = np.cumsum(added["count"].to_numpy())
    total = int(reached[-1])
    low, high = np.searchsorted(reached, [(total + 1) // 2, total // 2 + 1])
    return float(values[low] + values[high]) / 2
