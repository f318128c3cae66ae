"""The bill as one HTML page that needs nothing else: styles and chart inline, light and dark, fit for print."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from freehold.clock import DAY_S, Month
from freehold.clock import Day as CalendarDay
from freehold.money import format_usd

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-store",
}
PURSES = ("strip", "allowance", "promo", "prepaid")
"""In the order that they are drawn, and stacked."""

_CHART = (720, 180)
_PARTS = ("opening", "granted", "used", "expired", "reversed", "closing")
_SIGN = {"used": "−", "expired": "−", "reversed": "−"}
_CAUSES = {
    "overage": "an upstream's cost above what was held",
    "unsettled": "calls whose server process ended",
    "reorg": "credit used before the chain took it back",
}


def page(bill: Mapping[str, Any]) -> str:
    """The page. `bill` has the fields of the JSON answer; every text in it is escaped."""
    so_far = "" if bill["final"] else " so far"
    style = files("freehold.gateway.account").joinpath("bill.css").read_text("utf-8")
    title = f"Bill of {bill['month']}{so_far}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}: {escape(bill['account_name'])}</title>",
            f"<style>{style}</style></head><body><main>",
            f"<header><p class=brand>Freehold</p><h1>{escape(title)}</h1>",
            f"<p>Account {bill['account_id']} · {escape(bill['account_name'])}<br>"
            f"{escape(bill['starts_at'][:10])} to {escape(bill['ends_at'][:10])} (not included), UTC days of ledger"
            " time</p></header>",
            _head(bill, so_far),
            _balances(bill, so_far),
            _chart(bill),
            _top_ups(bill["top_ups"]),
            _groups("Charges by model", "Model", [(row["group"], row) for row in bill["by_model"]]),
            _groups("Charges by key", "Key", [(f"{row['key_name']} ({row['group']})", row) for row in bill["by_key"]]),
            _groups("Charges by day", "Day", [(row["group"], row) for row in bill["by_day"]]),
            _groups("Charges by purse", "Purse", [(row["group"], row) for row in bill["by_purse"]]),
            _absorbed(bill),
            "<footer><p>Amounts are exact, in USD. Each charge belongs to the day in which its call began; credit that"
            " ended unused is written off soon after its end.</p></footer>",
            "</main></body></html>",
            "",
        ]
    )


def _head(bill: Mapping[str, Any], so_far: str) -> str:
    facts = [("Used" + so_far, bill["used"]), ("Calls", f"{bill['calls']:,}"), ("Balance" + so_far, bill["closing"])]
    return (
        "<dl class=facts>"
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
        + "</dl>"
    )


def _balances(bill: Mapping[str, Any], so_far: str) -> str:
    """One column per purse that ever moved, one row per part."""
    moved = [purse for purse in bill["purses"] if any(purse[f"{part}_nano"] for part in _PARTS)]
    rows = []
    for part in _PARTS:
        cells = [*(purse[f"{part}_nano"] for purse in moved), sum(purse[f"{part}_nano"] for purse in bill["purses"])]
        name = f"{part.capitalize()}{so_far if part == 'closing' else ''}"
        rows.append((name, [(_SIGN.get(part, "") if cell else "") + format_usd(cell) for cell in cells]))
    return _table("Balances", ["", *(str(purse["source"]) for purse in moved), "all"], rows)


def _top_ups(top_ups: Sequence[Mapping[str, Any]]) -> str:
    rows = [(row["at"], [row["transaction"] or row["reference"], row["amount"]]) for row in top_ups]
    return _table("Top-ups", ["Time", "Transaction", "USD"], rows, wide=1) if rows else ""


def _groups(title: str, of: str, groups: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    rows = [(name, [f"{row['calls']:,}", row["cost"]]) for name, row in groups]
    if not rows:
        return f"<section><h2>{title}</h2><p>None.</p></section>" if of == "Model" else ""
    total = sum(row["cost_nano"] for _, row in groups)
    calls = sum(row["calls"] for _, row in groups)
    return _table(title, [of, "Calls", "USD"], rows, foot=("All", [f"{calls:,}", format_usd(total)]))


def _absorbed(bill: Mapping[str, Any]) -> str:
    rows = [(f"{row['cause']}: {_CAUSES.get(row['cause'], '')}", [row["amount"]]) for row in bill["absorbed_by_cause"]]
    return _table("Not billed", ["Borne by the operator", "USD"], rows) if rows else ""


def _table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    foot: tuple[str, Sequence[str]] | None = None,
    wide: int | None = None,
) -> str:
    def line(name: str, cells: Sequence[str]) -> str:
        shown = "".join(
            f"<td{' class=wide' if place == wide else ''}>{escape(str(cell))}</td>"
            for place, cell in enumerate(cells, 1)
        )
        return f"<tr><th scope=row>{escape(name)}</th>{shown}</tr>"

    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in columns)
    body = "".join(line(name, cells) for name, cells in rows)
    below = f"<tfoot>{line(*foot)}</tfoot>" if foot else ""
    return (
        f"<section><h2>{escape(title)}</h2><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody>{below}</table></section>"
    )


def _chart(bill: Mapping[str, Any]) -> str:
    """A bar per day, stacked by purse. Heights are for the eye alone; the tables have the exact amounts."""
    month = Month.parse(bill["month"])
    days = [str(CalendarDay(number)) for number in range(month.first.number, month.end_s // DAY_S)]
    paid: dict[tuple[str, str], int] = {}
    for line in bill["lines"]:
        if line["cost_nano"]:
            place = (line["day"], str(line["source"]))
            paid[place] = paid.get(place, 0) + line["cost_nano"]
    if not paid:
        return ""
    width, height = _CHART
    most = max(sum(paid.get((day, purse), 0) for purse in PURSES) for day in days)
    step = width // len(days)
    bars = []
    for index, day in enumerate(days):
        low = height
        for purse in PURSES:
            nano = paid.get((day, purse), 0)
            tall = nano * height // most if nano * height >= most else int(nano > 0)
            low -= tall
            if tall:
                said = escape(f"{day} {purse} {format_usd(nano)} USD")
                bars.append(
                    f"<rect class={purse} x={index * step + 2} y={low} width={step - 4} height={tall}>"
                    f"<title>{said}</title></rect>"
                )
        if index % 5 == 0 or index == len(days) - 1:
            bars.append(f'<text x="{index * step + step // 2}" y="{height + 16}">{index + 1}</text>')
    key = "".join(f"<span class={purse}>{purse}</span>" for purse in PURSES if any(where[1] == purse for where in paid))
    return (
        f"<section><h2>Charges per day</h2><p class=key>{key}</p>"
        f'<svg viewBox="0 -4 {step * len(days)} {height + 24}" role="img" aria-label="Charges per day, by purse; the'
        f' largest day is {format_usd(most)} USD"><line x1="0" x2="{step * len(days)}" y1="{height}" y2="{height}"/>'
        f"{''.join(bars)}</svg></section>"
    )
