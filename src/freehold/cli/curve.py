"""`freehold curve`: what a dollar of inference costs in each month to come, as the pools price it."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.markets import defi_of
from freehold.cli.output import Output
from freehold.cli.session import Session, common
from freehold.cli.trading import rounded
from freehold.cli.wallets import Wallets

if TYPE_CHECKING:
    from freehold.chain.defi.forward import Curve, Principal, Strip

BAR = 40
"""Columns of the plot."""


@click.command()
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the curve as a page.")
@common
def curve(session: Session, html: Path | None) -> None:
    """Show the forward curve: the price of each month's strip per USD a day, against the price of DIEM."""
    from freehold.chain.defi import forward, pools

    wallets = Wallets(session)
    defi = defi_of(session, wallets)
    with session.out.busy("Reading the pools …"):
        found = forward.curve(wallets.look(lambda rpc: pools.states(rpc, wallets.deployment, defi)))
    read = document(found)
    if html is not None:
        html.write_text(page(found, read), "utf-8")
        session.out.remark(f"Wrote {html}.")
    session.out.document(read, lambda out: draw(out, read))


def document(curve: "Curve") -> dict[str, Any]:
    """For --json: prices in USD, as decimals."""
    from freehold.clock import rfc3339

    return {
        "chain_time": rfc3339(curve.at_s),
        "diem_price": rounded(curve.diem),
        "diem_yield_per_day": rounded(curve.yield_per_day, 8),
        "strips": [_strip(each) for each in curve.strips],
        "principals": [_principal(each) for each in curve.principals],
        "parts": [
            {"principal": each.principal, "price": rounded(each.usd), "over_diem": rounded(each.usd / curve.diem - 1)}
            for each in curve.parts
        ],
    }


def _strip(strip: "Strip") -> dict[str, Any]:
    return {
        "token": strip.symbol,
        "month": str(strip.month),
        "price": rounded(strip.usd),
        "days": rounded(strip.days),
        "price_per_credit": rounded(strip.per_credit),
        "price_at_diem_yield": rounded(strip.fair),
        "over_diem_yield": rounded(strip.usd / strip.fair - 1),
    }


def _principal(principal: "Principal") -> dict[str, Any]:
    return {
        "token": principal.symbol,
        "month": str(principal.month),
        "price": rounded(principal.usd),
        "days": rounded(principal.matures),
        "price_at_diem_yield": rounded(principal.fair),
        "over_diem_yield": rounded(principal.usd / principal.fair - 1),
    }


def draw(out: Output, read: dict[str, Any]) -> None:
    daily = rounded(Decimal(read["diem_yield_per_day"]) * 100, 3)
    out.say(
        f"DIEM costs {_usd(read['diem_price'])} and is 1 USD of inference a day for ever: {daily} % of its price a day. "
        f"(At {read['chain_time']}.)"
    )
    if not read["strips"]:
        out.say("No month to come has a pool of its strips.")
    else:
        out.table(
            ("strip", ">USD for 1 USD a day", ">days left", ">USD for 1 USD", ">at DIEM's yield", ">over it"),
            [
                (
                    row["token"],
                    _usd(row["price"], unit=False),
                    rounded(Decimal(row["days"]), 1),
                    rounded(Decimal(row["price_per_credit"]), 4),
                    _usd(row["price_at_diem_yield"], unit=False),
                    _over(row),
                )
                for row in read["strips"]
            ],
        )
        _plot(out, read["strips"])
    if read["principals"]:
        out.table(
            ("principal", ">USD", ">days to DIEM", ">at DIEM's yield", ">over it"),
            [
                (
                    row["token"],
                    _usd(row["price"], unit=False),
                    rounded(Decimal(row["days"]), 1),
                    _usd(row["price_at_diem_yield"], unit=False),
                    _over(row),
                )
                for row in read["principals"]
            ],
        )
    for row in read["parts"]:
        gap = Decimal(row["price"]) - Decimal(read["diem_price"])
        how = "more than" if gap > 0 else "less than"
        out.say(
            f"{row['principal']} and the strips up to it cost {_usd(row['price'])} together, {_usd(str(abs(gap)))} {how} a DIEM."
        )


def _plot(out: Output, rows: list[dict[str, Any]]) -> None:
    """A dollar of credit in each month, as a bar, and where DIEM's own yield would put it."""
    most = max(Decimal(1), *(Decimal(row["price_per_credit"]) for row in rows))
    out.strong("What a dollar of inference costs, by month")
    for row in rows:
        here = Decimal(row["price_per_credit"])
        fair = here / (1 + Decimal(row["over_diem_yield"]))
        bar = list("█" * round(BAR * here / most))
        bar += " " * (BAR + 1 - len(bar))
        bar[min(BAR, round(BAR * fair / most))] = "│"
        out.say(f"{row['month']}  {''.join(bar)} {rounded(here, 4)}")
    out.dim("│ what it would cost at DIEM's yield")


def _usd(price: str, *, unit: bool = True) -> str:
    shown = rounded(Decimal(price), 2 if Decimal(price) >= 10 else 4)
    return f"{shown} USD" if unit else shown


def _over(row: dict[str, Any]) -> str:
    return f"{Decimal(row['over_diem_yield']) * 100:+.2f} %"


def page(curve: "Curve", read: dict[str, Any]) -> str:
    """The curve as one HTML page that needs nothing else."""
    from html import escape
    from importlib.resources import files

    from freehold.planner.report.charts import Line, Plot, key
    from freehold.planner.report.charts import draw as drawn

    style = files("freehold.planner.report").joinpath("plan.css").read_text("utf-8")
    steps = [(float(day), float(each.per_credit)) for each in curve.strips for day in (each.begins, each.ends)]
    last = max((each.ends for each in curve.strips), default=Decimal(0))
    smooth = [(float(last * n / 60), float(curve.dollar(last * n / 60))) for n in range(61)]
    plot = Plot(
        summary="What a dollar of inference costs by the day that it is used on, as strips are priced and at DIEM's yield.",
        x_name="days ahead",
        y_name="USD for 1 USD of inference",
        layers=[Line("strips", steps, "hold"), Line("at DIEM's yield", smooth, "rent", dashed=True)],
        from_zero=False,
        wide=True,
    )
    head = ("strip", "USD for 1 USD a day", "days left", "USD for 1 USD", "at DIEM's yield", "over it")
    rows = [
        (row["token"], row["price"], row["days"], row["price_per_credit"], row["price_at_diem_yield"], _over(row))
        for row in read["strips"]
    ]
    table = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    title = f"DIEM {_usd(read['diem_price'])}: the forward curve of compute"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style></head><body><main>",
            f"<header><p class=brand>Freehold</p><h1>{escape(title)}</h1></header>",
            f"<section><p class=key>{key(plot)}</p>{drawn(plot)}</section>",
            f"<section class=sheet><table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>",
            f"<tbody>{table}</tbody></table></section>",
            f"<footer><p>Prices of the pools at {escape(read['chain_time'])}, without their fee. No promise of a price.</p>"
            "</footer></main></body></html>",
            "",
        ]
    )
