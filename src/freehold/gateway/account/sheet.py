"""Rows as CSV, written while they are read. A text that a spreadsheet would run as a formula is made harmless."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence

from fastapi.responses import StreamingResponse

Cell = str | int

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_AT_ONCE = 200
"""Rows written as one part of the body."""


class Amount(str):
    """A number that we wrote ourselves: it may begin with a minus."""

    __slots__ = ()


def safe(cell: Cell) -> Cell:
    """A text that begins as a formula does gets an apostrophe before it; numbers stay."""
    named = isinstance(cell, str) and not isinstance(cell, Amount)
    return f"'{cell}" if named and str(cell).startswith(_FORMULA) else cell


async def these(rows: Iterable[Sequence[Cell]]) -> AsyncIterator[Sequence[Cell]]:
    """Rows that are at hand already."""
    for row in rows:
        yield row


def response(
    columns: Sequence[str],
    rows: AsyncIterator[Sequence[Cell]],
    *,
    next_cursor: str | None = None,
    name: str = "usage.csv",
) -> StreamingResponse:
    """A CSV answer with a line of column names; the cursor of the next page goes into `x-next-cursor`."""
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"}
    if next_cursor is not None:
        headers["x-next-cursor"] = next_cursor
    return StreamingResponse(_parts(columns, rows), media_type="text/csv; charset=utf-8", headers=headers)


async def _parts(columns: Sequence[str], rows: AsyncIterator[Sequence[Cell]]) -> AsyncIterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    waiting = 1
    async for row in rows:
        writer.writerow([safe(cell) for cell in row])
        waiting += 1
        if waiting >= _AT_ONCE:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
            waiting = 0
    yield buffer.getvalue()
