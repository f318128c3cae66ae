"""`freehold pool`: the pools, a wallet's positions in them with what they have earned, and adding, removing, collecting."""

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.chainside import signer, signing, unlock
from freehold.cli.lending import ask, yes_option
from freehold.cli.markets import defi_of
from freehold.cli.output import Output
from freehold.cli.planning import SHARE
from freehold.cli.session import Session
from freehold.cli.trading import roughly, rounded, slippage_option, units_of
from freehold.cli.wallets import Wallets, amount_of

if TYPE_CHECKING:
    from freehold.chain.defi.liquidity import Added, Offer, Position, Removed, Removing
    from freehold.chain.defi.pools import State


class Between(click.ParamType[tuple[Decimal, Decimal]]):
    """`150:220`, two prices in USD."""

    name = "LOW:HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Decimal, Decimal]:
        if isinstance(value, tuple):
            return value
        try:
            low, high = (Decimal(part) for part in str(value).split(":"))
            if not (low.is_finite() and high.is_finite() and 0 < low < high < Decimal("1e12")):
                raise ValueError
        except (ValueError, InvalidOperation):
            self.fail(f"{value!r} is no range of prices such as 150:220, in USD a token.", param, ctx)
        return low, high


@click.group(invoke_without_command=True)
@signing
@click.pass_context
def pool(ctx: click.Context, session: Session, name: str | None) -> None:
    """Show the pools, and a wallet's positions in them. Or add to one, take out, collect what was earned."""
    if ctx.invoked_subcommand is not None:
        return
    from freehold.chain.defi import liquidity, pools

    wallets = Wallets(session)
    defi = defi_of(session, wallets)
    chosen = name or session.keystore or session.credentials.current(session.url)
    who = signer(session, name) if chosen else None
    address = wallets.address(who) if who else None
    with session.out.busy("Reading the chain …"):
        states = wallets.look(lambda rpc: pools.states(rpc, wallets.deployment, defi))
        found: list[Position] = []
        if address is not None:
            found = wallets.look(lambda rpc: liquidity.positions_of(rpc, wallets.deployment, defi, address))
    read = {
        "pools": [pool_document(state) for state in states],
        "name": who,
        "address": address,
        "positions": [position_document(each) for each in found],
    }
    session.out.document(read, lambda out: draw(out, read))


@pool.command("add")
@click.argument("amount", metavar="AMOUNT")
@click.argument("symbol", metavar="[TOKEN]", default="DIEM")
@click.option("--usdc", "in_usdc", is_flag=True, help="AMOUNT is USDC, and as much of the token goes with it.")
@click.option("--range", "between", type=Between(), help="Only between two prices, such as 150:220; all when left out.")
@slippage_option
@yes_option
@signing
def pool_add(
    session: Session,
    amount: str,
    symbol: str,
    in_usdc: bool,
    between: tuple[Decimal, Decimal] | None,
    slippage: Decimal,
    yes: bool,
    name: str | None,
) -> None:
    """Put AMOUNT of a token and USDC of the same worth into its pool: they earn 0.3 % of what is traded through them."""
    from freehold.chain.defi import liquidity

    units = amount_of(amount, "USDC" if in_usdc else "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    defi = defi_of(session, wallets)
    unlock(session)
    with session.out.busy("Trying it on the chain …"):
        offer = wallets.look(
            lambda rpc: liquidity.offer(
                rpc, wallets.deployment, defi, symbol, units, in_usdc=in_usdc, between=between, slippage=slippage
            )
        )
        order = wallets.acting(who, lambda wallet: liquidity.prepare_adding(wallet, defi, offer))
    if not yes:
        ask(session, [_offered(who, offer)])
    with session.out.busy("Waiting for the transactions to be mined …"):
        done = wallets.acting(who, lambda wallet: liquidity.add(wallet, order))
    read = {"from": who, **added_document(done), **_range_document(offer)}

    def drawn(out: Output) -> None:
        out.say(
            f"{who} has added {_both(done.base, done.usdc, done.symbol)} as position {done.id}, {_range_words(read)}."
        )
        out.dim(f"transaction {done.tx_hash}, block {done.block_number}")

    session.out.document(read, drawn)


@pool.command("remove")
@click.argument("position", type=click.IntRange(min=0), metavar="ID")
@click.option("--share", type=SHARE, default="100%", show_default=True, help="How much of it.")
@slippage_option
@yes_option
@signing
def pool_remove(session: Session, position: int, share: float, slippage: Decimal, yes: bool, name: str | None) -> None:
    """Take a position out of its pool, or a share of it, and what it has earned."""
    if not 0 < share <= 1:
        raise click.UsageError("--share is above 0% and at most 100%.")
    transact(session, name, position, Decimal(str(share)), slippage, yes=yes)


@pool.command("collect")
@click.argument("position", type=click.IntRange(min=0), metavar="ID")
@yes_option
@signing
def pool_collect(session: Session, position: int, yes: bool, name: str | None) -> None:
    """Take what a position has earned, and leave the position."""
    transact(session, name, position, Decimal(0), Decimal(0), yes=yes)


def transact(
    session: Session, name: str | None, position: int, share: Decimal, slippage: Decimal, *, yes: bool
) -> None:
    """Try a removal, show it, ask, send it, and show what came of it."""
    from freehold.chain.defi import liquidity

    wallets, who = Wallets(session), signer(session, name)
    defi = defi_of(session, wallets)
    unlock(session)
    with session.out.busy("Trying it on the chain …"):
        order = wallets.acting(
            who,
            lambda wallet: liquidity.prepare_removing(
                wallet, wallets.deployment, defi, position, share=share, slippage=slippage
            ),
        )
    if not yes:
        ask(session, [_removing(who, order)])
    with session.out.busy("Waiting for the transaction to be mined …"):
        done = wallets.acting(who, lambda wallet: liquidity.remove(wallet, order))
    read = {"from": who, **removed_document(done)}

    def drawn(out: Output) -> None:
        fees = _both(done.base_fees, done.usdc_fees, done.symbol)
        whole = _both(done.base, done.usdc, done.symbol)
        told = (
            f"{who} has taken {whole} from position {done.id}{'' if fees == 'nothing' else f', of that {fees} earned'}"
            if share
            else f"{who} has collected {whole} that position {done.id} had earned"
        )
        out.say(f"{told}{'; the position is closed' if done.closed else ''}.")
        out.dim(f"transaction {done.tx_hash}, block {done.block_number}")

    session.out.document(read, drawn)


# --- words and documents ----------------------------------------------------------------------------------------------


def _both(base: int, usdc: int, symbol: str) -> str:
    parts = [roughly(units, token) for units, token in ((base, symbol), (usdc, "USDC")) if units]
    return " and ".join(parts) or "nothing"


def _offered(who: str, offer: "Offer") -> str:
    return (
        f"{who} is about to add at most {_both(offer.base, offer.usdc, offer.state.symbol)} to the pool at "
        f"{rounded(offer.state.price)} USD, {_range_words(_range_document(offer))}."
    )


def _removing(who: str, order: "Removing") -> str:
    position = order.position
    owed = _both(position.base_owed, position.usdc_owed, position.state.symbol)
    if not (order.base or order.usdc):
        return f"{who} is about to collect {owed} that position {position.id} has earned."
    taken = _both(order.base, order.usdc, position.state.symbol)
    earned = "" if owed == "nothing" else f", and {owed} that it has earned"
    return f"{who} is about to take {taken} out of position {position.id}{earned}."


def _range_document(of: "Offer | Position") -> dict[str, Any]:
    low, high = of.range_usd
    return {
        "token": of.state.symbol,
        "whole_range": of.whole_range,
        "from_price": None if of.whole_range else rounded(low),
        "to_price": None if of.whole_range else rounded(high),
    }


def _short(price: str) -> str:
    return rounded(Decimal(price), 2)


def _range_words(read: dict[str, Any]) -> str:
    return "at every price" if read["whole_range"] else f"between {read['from_price']} and {read['to_price']} USD"


def pool_document(state: "State") -> dict[str, Any]:
    """For --json: amounts and prices as decimals."""
    return {
        "token": state.symbol,
        "address": state.pool.address,
        "fee": state.pool.fee / 1_000_000,
        "price": rounded(state.price),
        "token_held": units_of(state.base_held, state.symbol),
        "usdc_held": units_of(state.usdc_held, "USDC"),
    }


def position_document(position: "Position") -> dict[str, Any]:
    worth = Decimal(units_of(position.base, position.state.symbol)) * position.state.price
    return {
        "id": position.id,
        **_range_document(position),
        "active": position.active,
        "amount": units_of(position.base, position.state.symbol),
        "usdc": units_of(position.usdc, "USDC"),
        "worth": rounded(worth + Decimal(units_of(position.usdc, "USDC"))),
        "amount_owed": units_of(position.base_owed, position.state.symbol),
        "usdc_owed": units_of(position.usdc_owed, "USDC"),
    }


def added_document(done: "Added") -> dict[str, Any]:
    from freehold.clock import rfc3339

    return {
        "position": done.id,
        "amount": units_of(done.base, done.symbol),
        "usdc": units_of(done.usdc, "USDC"),
        "tx_hash": done.tx_hash,
        "block_number": done.block_number,
        "at": rfc3339(done.at_s),
    }


def removed_document(done: "Removed") -> dict[str, Any]:
    from freehold.clock import rfc3339

    return {
        "position": done.id,
        "token": done.symbol,
        "amount": units_of(done.base, done.symbol),
        "usdc": units_of(done.usdc, "USDC"),
        "amount_fees": units_of(done.base_fees, done.symbol),
        "usdc_fees": units_of(done.usdc_fees, "USDC"),
        "closed": done.closed,
        "tx_hash": done.tx_hash,
        "block_number": done.block_number,
        "at": rfc3339(done.at_s),
    }


def draw(out: Output, read: dict[str, Any]) -> None:
    out.table(
        ("pool of", ">price, USD", ">holds", ">USDC", ">fee"),
        [
            (
                row["token"],
                rounded(Decimal(row["price"]), 4),
                rounded(Decimal(row["token_held"]), 4),
                rounded(Decimal(row["usdc_held"]), 2),
                f"{row['fee']:.1%}",
            )
            for row in read["pools"]
        ],
    )
    if read["name"] is None:
        out.say("A wallet's positions: --from NAME.")
        return
    out.say(f"{read['name']} {read['address']}")
    if not read["positions"]:
        out.say("No positions. `freehold pool add AMOUNT DIEM` makes one.")
        return
    out.table(
        (
            ">position",
            "pool of",
            "between, USD",
            "earns",
            ">token",
            ">USDC",
            ">worth, USD",
            ">token earned",
            ">USDC earned",
        ),
        [
            (
                str(row["id"]),
                row["token"],
                "every price" if row["whole_range"] else f"{_short(row['from_price'])} and {_short(row['to_price'])}",
                "yes" if row["active"] else "not at this price",
                *(rounded(Decimal(row[each])) for each in ("amount", "usdc", "worth", "amount_owed", "usdc_owed")),
            )
            for row in read["positions"]
        ],
    )
