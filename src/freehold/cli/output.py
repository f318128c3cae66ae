"""Where a command's result goes: tables for people, one JSON document (or JSON Lines) for programs.

Results go to stdout, progress and remarks to stderr. rich honours NO_COLOR and plain pipes by itself.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.refusal import Refusal

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120


class Output:
    """One command's stdout and stderr."""

    def __init__(self, *, as_json: bool, plain_width: int = PLAIN_WIDTH) -> None:
        """`plain_width`: columns of a table that goes into a pipe. Raises Refusal when stdout was closed (`>&-`)."""
        if getattr(sys.stdout, "name", None) == os.devnull:  # closed by who started us: see freehold.cli.main
            raise Refusal("Standard output is closed, so the result has nowhere to go; send it to a file or /dev/null.")
        self.as_json = as_json
        self._plain_width = plain_width

    def document(self, value: Any, render: Callable[["Output"], None]) -> None:
        """The command's result: as JSON, or drawn by `render`."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        else:
            render(self)

    def line(self, value: Any, text: str | None = None) -> None:
        """One item of a stream: a JSON line, or `text`."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False))
            sys.stdout.flush()
        elif text is not None:
            self.say(text)

    def say(self, text: str = "") -> None:
        """A line of the result, for people. `text` is plain: no markup is read in it."""
        self._console().print(text, markup=False, highlight=False, soft_wrap=True)

    def strong(self, text: str) -> None:
        self._console().print(text, style="bold", markup=False, highlight=False, soft_wrap=True)

    def dim(self, text: str) -> None:
        self._console().print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def raw(self, text: str) -> None:
        """Text as it is, without a line end, at once."""
        click.echo(text, nl=False)
        sys.stdout.flush()

    def remark(self, text: str) -> None:
        """A line beside the result, on stderr, also with --json."""
        click.echo(text, err=True)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, tight: bool = False
    ) -> None:
        """A table. A column whose name begins with '>' is aligned to the right. `tight`: as narrow as it can be read."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
        if tight:
            drawn.show_edge, drawn.padding = False, (0, 1, 0, 0)
        for name in columns:
            right = name.startswith(">")
            drawn.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        self._console().print(drawn)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values, one a line."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.say(f"{name.ljust(width)}  {value}")

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something takes its time, on stderr; nothing when stderr is no terminal."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(text):
            yield

    def _console(self) -> "Console":
        from rich.console import Console

        # made anew each time, because stdout may have been replaced since (a test, a pager)
        width = None if sys.stdout.isatty() else self._plain_width
        console = Console(width=width, highlight=False)
        # rich leaves bold with NO_COLOR; who asks for no colour gets no escape codes at all
        return Console(width=width, highlight=False, color_system=None) if console.no_color else console


def usd(amount: Any) -> str:
    """Decimal USD as the API writes it, with the unit."""
    return f"{amount} USD"


def nano_usd(amount: Any) -> str:
    """A `_nano` field as USD with the unit."""
    from freehold.money import format_usd

    return f"{format_usd(int(amount))} USD"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: '2 h 5 min'."""
    left = round(abs(seconds))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def seconds_of(moment: Any) -> float:
    """Unix seconds of an RFC 3339 time, or of a number."""
    if isinstance(moment, int | float):
        return float(moment)
    try:
        read = datetime.fromisoformat(str(moment))
    except ValueError:
        raise Refusal(f"The server sent {str(moment)!r} where a time belongs; is it the same version?") from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def when(moment: Any, *, now_s: float | None = None) -> str:
    """A time in UTC, with local time and the distance beside it. `now_s` is ledger time where that is what counts."""
    if moment is None or moment == "":
        return "never"
    at_s = seconds_of(moment)
    if at_s >= 253_402_300_799 - 86_400:
        return "no end"
    now = time.time() if now_s is None else now_s
    shown = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    local = datetime.fromtimestamp(at_s).astimezone()
    beside = [] if not local.utcoffset() else [f"{local.strftime('%H:%M')} {local.tzname()}"]
    gap = at_s - now
    beside.append(f"in {duration(gap)}" if gap > 0 else f"{duration(gap)} ago")
    return f"{shown} ({', '.join(beside)})"


def plain_decimal(value: Any) -> str:
    """A number without an exponent or trailing zeros."""
    return format(Decimal(str(value)).normalize(), "f")
