"""`freehold trade buy` and `sell`: DIEM, strips and principals against USDC on Uniswap v3, each quoted, bounded and tried first."""

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.chainside import signer, signing, unlock
from freehold.cli.lending import ask, yes_option
from freehold.cli.markets import defi_of
from freehold.cli.output import Output
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets, about, amount_of, shown

if TYPE_CHECKING:
    from freehold.chain.defi.swaps import Quote, Traded

MUCH = Decimal("0.05")
"""A price impact from which on the command line warns."""
MOST_SLIPPAGE = 50


class Percent(click.ParamType[Decimal]):
    """`0.5%`, as a share. Without the sign it would be a guess."""

    name = "PERCENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        if isinstance(value, Decimal):
            return value
        text = str(value).strip()
        try:
            found = Decimal(text.removesuffix("%"))
        except InvalidOperation:
            found = Decimal(-1)
        if not text.endswith("%") or not found.is_finite() or not 0 <= found <= MOST_SLIPPAGE:
            self.fail(f"{value!r} is not a slippage such as 0.5%, from 0% to {MOST_SLIPPAGE}%.", param, ctx)
        return found / 100


def slippage_option(command: Any) -> Any:
    """`--slippage`."""
    return click.option(
        "--slippage",
        type=Percent(),
        default="0.5%",
        show_default=True,
        help="How much worse it may come out before it is refused.",
    )(command)


def trade_options(command: Any) -> Any:
    """What buying and selling share."""
    for option in reversed(
        (
            click.argument("amount", metavar="AMOUNT"),
            click.argument("symbol", metavar="[TOKEN]", default="DIEM"),
            click.option("--usdc", "in_usdc", is_flag=True, help="AMOUNT is USDC: to pay, or to get."),
            slippage_option,
            click.option("--quote", "only_quote", is_flag=True, help="Only say what it would come to."),
            yes_option,
        )
    ):
        command = option(command)
    return command


@click.group()
def trade() -> None:
    """Buy or sell DIEM, strips and principals against USDC on Uniswap v3."""


@trade.command("buy")
@trade_options
@signing
def trade_buy(session: Session, name: str | None, **order: Any) -> None:
    """Buy AMOUNT of a token: DIEM, a strip such as DIEM-2026-12, or a principal such as pDIEM-2027-01."""
    transact(session, name, buying=True, **order)


@trade.command("sell")
@trade_options
@signing
def trade_sell(session: Session, name: str | None, **order: Any) -> None:
    """Sell AMOUNT of a token: DIEM, a strip such as DIEM-2026-12, or a principal such as pDIEM-2027-01."""
    transact(session, name, buying=False, **order)


def transact(
    session: Session,
    name: str | None,
    *,
    buying: bool,
    amount: str,
    symbol: str,
    in_usdc: bool,
    slippage: Decimal,
    only_quote: bool,
    yes: bool,
) -> None:
    """Quote, show, try, ask, send, and show what came of it."""
    from freehold.chain.defi import swaps

    units = amount_of(amount, "USDC" if in_usdc else "DIEM")
    wallets, out = Wallets(session), session.out
    who = "" if only_quote else signer(session, name)
    defi = defi_of(session, wallets)
    with out.busy("Asking for a quote …"):
        found = wallets.look(
            lambda rpc: swaps.quote(
                rpc, wallets.deployment, defi, symbol, units, buying=buying, in_usdc=in_usdc, slippage=slippage
            )
        )
    quoted = document(found)
    if only_quote:
        out.document(quoted, lambda shown: draw(shown, quoted))
        return
    unlock(session)
    with out.busy("Trying it on the chain …"):
        order = wallets.acting(who, lambda wallet: swaps.prepare(wallet, defi, found))
    if not yes:
        ask(session, facts(quoted))
    elif not out.as_json:
        draw(out, quoted)
    with out.busy("Waiting for the transactions to be mined …"):
        done = wallets.acting(who, lambda wallet: swaps.carry_out(wallet, order))
    read = {"from": who, **done_document(done), "quote": quoted}

    def drawn(shown: Output) -> None:
        shown.say(f"{who} has {_sentence(done)}")
        shown.dim(f"transaction {done.tx_hash}, block {done.block_number}")

    out.document(read, drawn)


def units_of(units: int, symbol: str) -> str:
    """Base units as a decimal."""
    return shown(units, "USDC" if symbol == "USDC" else "DIEM", unit=False)


def roughly(units: int, symbol: str) -> str:
    """For people, with at most six places, and the token's name."""
    known = "USDC" if symbol == "USDC" else "DIEM"
    return f"{about(units, known).removesuffix(known)}{symbol}"


def rounded(number: Decimal, places: int = 6) -> str:
    """A price or a share as a plain decimal."""
    text = f"{number:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def document(quote: "Quote") -> dict[str, Any]:
    """For --json: amounts as decimals, shares of 1."""
    return {
        "side": "buy" if quote.buying else "sell",
        "token": quote.state.symbol,
        "pool": quote.state.pool.address,
        "paid": units_of(quote.paid, quote.paid_symbol),
        "paid_token": quote.paid_symbol,
        "received": units_of(quote.received, quote.received_symbol),
        "received_token": quote.received_symbol,
        "pool_price": rounded(quote.state.price),
        "price": rounded(quote.price),
        "pool_price_after": rounded(quote.price_after),
        "fee": units_of(quote.fee, quote.paid_symbol),
        "price_impact": rounded(quote.impact),
        "slippage": rounded(quote.slippage),
        "most_paid": units_of(quote.most_paid, quote.paid_symbol),
        "least_received": units_of(quote.least_received, quote.received_symbol),
    }


def done_document(done: "Traded") -> dict[str, Any]:
    from freehold.clock import rfc3339

    paid, received = ("USDC", done.symbol) if done.buying else (done.symbol, "USDC")
    return {
        "side": "buy" if done.buying else "sell",
        "token": done.symbol,
        "paid": units_of(done.paid, paid),
        "paid_token": paid,
        "received": units_of(done.received, received),
        "received_token": received,
        "price": rounded(done.price),
        "pool_price_after": rounded(done.price_after),
        "tx_hash": done.tx_hash,
        "block_number": done.block_number,
        "at": rfc3339(done.at_s),
    }


def rows(read: dict[str, Any]) -> list[tuple[str, str]]:
    """A quote for people."""
    paid, received, slippage = read["paid_token"], read["received_token"], _percent(read["slippage"])
    impact = _percent(read["price_impact"])
    warned = "; that is much: trade less at a time, or where more is pooled" if _much(read) else ""
    return [
        (read["side"], f"{read['token']} against USDC on Uniswap v3, pool {read['pool']}"),
        ("pay", f"{read['paid']} {paid}" + ("" if read["paid"] == read["most_paid"] else _bound("most", read, paid))),
        (
            "receive",
            f"{read['received']} {received}"
            + ("" if read["received"] == read["least_received"] else _bound("least", read, received)),
        ),
        ("price", f"{read['price']} USD a {read['token']}, the fee of {read['fee']} {paid} included"),
        ("pool's price", f"{read['pool_price']} USD, after this {read['pool_price_after']}"),
        ("price impact", f"{impact}{warned}"),
        ("slippage", f"refused when it comes out more than {slippage} worse"),
    ]


def _bound(which: str, read: dict[str, Any], token: str) -> str:
    bound = read["most_paid" if which == "most" else "least_received"]
    return f", at {which} {bound} {token}"


def _much(read: dict[str, Any]) -> bool:
    return Decimal(read["price_impact"]) >= MUCH


def _percent(share: str) -> str:
    return f"{rounded(Decimal(share) * 100, 2)} %"


def facts(read: dict[str, Any]) -> list[str]:
    """A quote's lines, to be shown before somebody is asked."""
    lines = rows(read)
    width = max(len(name) for name, _ in lines)
    return [f"{name.ljust(width)}  {value}" for name, value in lines]


def draw(out: Output, read: dict[str, Any]) -> None:
    out.facts(rows(read))


def _sentence(done: "Traded") -> str:
    price = f"{rounded(done.price, 4)} USD each"
    if done.buying:
        return f"bought {roughly(done.received, done.symbol)} for {roughly(done.paid, 'USDC')}, {price}."
    return f"sold {roughly(done.paid, done.symbol)} for {roughly(done.received, 'USDC')}, {price}."
