"""`freehold lend`, `borrow`, `repay`, `health` and `liquidate`: credit on Morpho Blue, each transaction tried before it is sent."""

from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.chainside import address_of, signer, signing, unlock
from freehold.cli.markets import defi_of
from freehold.cli.output import Output
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets, amount_of, shown

if TYPE_CHECKING:
    from freehold.chain.defi.credit import Health
    from freehold.chain.defi.lending import Account, Lent, Order
    from freehold.chain.defi.model import Defi
    from freehold.chain.wallet import Wallet

ALL = "all"


def market_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--market SYMBOL`."""
    return click.option(
        "--market",
        "symbol",
        default="DIEM",
        show_default=True,
        metavar="TOKEN",
        help="The collateral whose market it is: DIEM, or a principal such as pDIEM-2027-01.",
    )(command)


def yes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes`."""
    return click.option("--yes", is_flag=True, help="Don't ask.")(command)


@click.group()
def lend() -> None:
    """Lend USDC to those who pledge DIEM or a principal for it, and take it back."""


@lend.command("supply")
@click.argument("amount", metavar="USDC")
@market_option
@yes_option
@signing
def lend_supply(session: Session, amount: str, symbol: str, yes: bool, name: str | None) -> None:
    """Lend USDC: it earns what borrowers pay, and can be taken back whenever enough of it isn't lent out."""
    from freehold.chain.defi import lending

    units = amount_of(amount, "USDC")
    transact(session, name, lambda wallet, defi: lending.supply(wallet, defi, symbol, units), yes=yes)


@lend.command("withdraw")
@click.argument("amount", metavar="USDC|all")
@market_option
@yes_option
@signing
def lend_withdraw(session: Session, amount: str, symbol: str, yes: bool, name: str | None) -> None:
    """Take lent USDC back: so much, or all with its interest."""
    from freehold.chain.defi import lending

    units = amount_or_all(amount, "USDC")
    transact(session, name, lambda wallet, defi: lending.withdraw(wallet, defi, symbol, units), yes=yes)


@click.command()
@click.argument("amount", metavar="[USDC]", required=False)
@click.option("--collateral", metavar="AMOUNT", help="Pledge so much of the market's token first.")
@market_option
@yes_option
@signing
def borrow(
    session: Session, amount: str | None, collateral: str | None, symbol: str, yes: bool, name: str | None
) -> None:
    """Borrow USDC against DIEM or a principal, which stays yours while the debt is within its limit."""
    from freehold.chain.defi import lending

    if amount is None and collateral is None:
        raise click.UsageError("Say how much USDC to borrow, what to pledge with --collateral, or both.")
    units = amount_of(amount, "USDC") if amount is not None else 0
    pledged = amount_of(collateral, "DIEM") if collateral is not None else 0
    transact(
        session, name, lambda wallet, defi: lending.borrow(wallet, defi, symbol, units, collateral=pledged), yes=yes
    )


@click.command()
@click.argument("amount", metavar="[USDC|all]", required=False)
@click.option("--collateral", metavar="AMOUNT|all", help="Then take out so much of what was pledged.")
@market_option
@yes_option
@signing
def repay(
    session: Session, amount: str | None, collateral: str | None, symbol: str, yes: bool, name: str | None
) -> None:
    """Repay borrowed USDC, or all of it with its interest; and take collateral out."""
    from freehold.chain.defi import lending

    if amount is None and collateral is None:
        raise click.UsageError("Say how much USDC to repay, what to take out with --collateral, or both.")
    units = amount_or_all(amount, "USDC") if amount is not None else 0
    released = amount_or_all(collateral, "DIEM") if collateral is not None else 0
    transact(
        session, name, lambda wallet, defi: lending.repay(wallet, defi, symbol, units, collateral=released), yes=yes
    )


@click.command()
@click.argument("borrower", metavar="WHO")
@click.argument("amount", metavar="[USDC]", required=False)
@market_option
@yes_option
@signing
def liquidate(session: Session, borrower: str, amount: str | None, symbol: str, yes: bool, name: str | None) -> None:
    """Repay WHO's debt that is over its limit, all or at most so much of it, and get collateral worth more.

    Anybody may; `freehold health --everybody` lists who is near.
    """
    from freehold.chain.defi import lending

    units = amount_of(amount, "USDC") if amount is not None else None
    whose = address_of(session, Wallets(session), borrower, accounts=False)
    transact(session, name, lambda wallet, defi: lending.liquidate(wallet, defi, symbol, whose, units), yes=yes)


@click.command()
@click.option("--everybody", is_flag=True, help="All borrowers of the market, the nearest to liquidation first.")
@click.option("--of", "who", metavar="WHO", help="Another's: a wallet's name or an address.")
@market_option
@signing
def health(session: Session, everybody: bool, who: str | None, symbol: str, name: str | None) -> None:
    """Show what is owed against what: LTV and its limit, the price at which it is liquidated, and how far that is."""
    from freehold.chain.defi import lending
    from freehold.clock import rfc3339

    wallets = Wallets(session)
    defi = defi_of(session, wallets)
    if everybody:
        with session.out.busy("Reading the chain …"):
            found = wallets.look(lambda rpc: lending.borrowers(rpc, wallets.deployment, defi, symbol))
        listed = {"market": lending.market_of(defi, symbol)[0], "borrowers": [document(each) for each in found]}
        session.out.document(listed, lambda out: draw_everybody(out, listed))
        return
    whose = who or signer(session, name)
    address = address_of(session, wallets, whose, accounts=False)
    with session.out.busy("Reading the chain …"):
        accounts = wallets.look(lambda rpc: lending.accounts_of(rpc, defi, address))
    read = {
        "name": whose,
        "address": address,
        "chain_time": rfc3339(accounts[0].at_s) if accounts else None,
        "markets": [document(each) for each in accounts if not each.empty],
    }
    session.out.document(read, lambda out: draw_health(out, read))


# --- an order ---------------------------------------------------------------------------------------------------------


def transact(
    session: Session, name: str | None, prepare: "Callable[[Wallet, Defi], Awaitable[Order]]", *, yes: bool
) -> None:
    """Try an order, show it, ask, send it, and show what came of it."""
    from freehold.chain.defi import lending

    wallets, who = Wallets(session), signer(session, name)
    defi = defi_of(session, wallets)
    unlock(session)
    with session.out.busy("Trying it on the chain …"):
        order = wallets.acting(who, lambda wallet: prepare(wallet, defi))
    if not yes:
        ask(session, before(who, order))
    with session.out.busy("Waiting for the transactions to be mined …"):
        done = wallets.acting(who, lambda wallet: lending.carry_out(wallet, defi, order))
    read = {"from": who, **done_document(done)}

    def draw(out: Output) -> None:
        out.say(f"{who} {_moved(done, done.market)}.")
        out.say(("Left there: " if done.seized else "") + _stands(done.account, plain=bool(done.seized)))
        out.dim(f"transaction {done.tx_hash}, block {done.block_number}")

    session.out.document(read, draw)


def ask(session: Session, sentences: list[str]) -> None:
    """Show what is about to be done, on stderr, and go on only when somebody agrees. Raises Refusal."""
    for sentence in sentences:
        session.out.remark(sentence)
    try:
        agreed = click.confirm("Do it?", err=True)
    except click.Abort:  # nobody to ask
        session.out.remark("")
        agreed = False
    if not agreed:
        raise Refusal("Nothing was sent. --yes does it without asking.")


def before(who: str, order: "Order") -> list[str]:
    """An order in words, before it is sent: what moves, and what will stand then."""
    from freehold.chain.defi.lending import price, usdc

    count = len(order.steps)
    said = [f"{who} {_moved(order, order.account.symbol, now=True)}, in {count} transaction{'s'[: count > 1]}."]
    if order.after is not None:
        said.append(f"Then: {_health(order.after, order.account.symbol)}")
    if order.seized:
        gets = order.seized * order.account.health.price // 10**36
        said.append(
            f"At the oracle's price of {price(order.account.health.price)} what is seized is worth {usdc(gets)}."
        )
    if order.supplied:
        said.append(f"It earns {_percent(order.account.book.supply_yearly)} a year as things stand.")
    return said


def _moved(done: "Order | Lent", symbol: str, *, now: bool = False) -> str:
    """The parts of an order in the order that they happen: what somebody does now, or has done."""
    from freehold.chain.defi.lending import token, usdc

    whose = f" of the debt of {done.account.owner}" if done.seized else ""
    parts = [
        (done.supplied, "lends", "lent", f"{usdc(done.supplied)} in the market against {symbol}"),
        (done.withdrawn, "takes back", "taken back", f"{usdc(done.withdrawn)} from the market against {symbol}"),
        (done.pledged, "pledges", "pledged", token(done.pledged, symbol)),
        (done.borrowed, "borrows", "borrowed", usdc(done.borrowed)),
        (done.repaid, "repays", "repaid", f"{usdc(done.repaid)}{whose}"),
        (done.released, "takes out", "taken out", token(done.released, symbol)),
        (done.seized, "gets", "got", f"{token(done.seized, symbol)} for it"),
    ]
    said = " and ".join(f"{present if now else past} {what}" for amount, present, past, what in parts if amount)
    lost = f"; {usdc(done.unpaid)} of the debt are the lenders' loss" if done.unpaid else ""
    return ("" if now else "has ") + said + lost


def _stands(account: "Account", *, plain: bool = False) -> str:
    """What is lent and owed now; `plain`: without a word before the debt."""
    from freehold.chain.defi.lending import usdc

    said = [f"Lent: {usdc(account.supplied)}."] if account.supplied else []
    if account.health.collateral or account.health.debt:
        word = "" if plain else "Debt: " if account.health.debt else "Pledged: "
        said.append(f"{word}{_health(account.health, account.symbol)}")
    return " ".join(said) or ("nothing." if plain else "Nothing is left in this market.")


def _health(health: "Health", symbol: str) -> str:
    from freehold.chain.defi.lending import percent, price, token, usdc

    pledged = token(health.collateral, symbol)
    if not health.debt:
        return f"nothing owed against {pledged}."
    if health.ltv is None or health.liquidation_price is None or health.distance is None:
        return f"{usdc(health.debt)} owed against nothing."
    where = (
        f"it is liquidated below {price(health.liquidation_price)} a {symbol}, {_percent(health.distance)} under {price(health.price)}"
        if health.healthy
        else f"it can be liquidated now, for {symbol} is at {price(health.price)}"
    )
    return f"{usdc(health.debt)} owed against {pledged}, LTV {_percent(health.ltv)} of at most {percent(health.lltv)}; {where}."


def _percent(part: Fraction) -> str:
    return f"{float(part) * 100:.2f} %"


# --- what it is shown as ----------------------------------------------------------------------------------------------


def document(account: "Account") -> dict[str, Any]:
    """One market of one address, for --json: amounts and prices as decimals, shares of 1 as numbers."""
    health = account.health
    return {
        "market": account.symbol,
        "owner": account.owner,
        "supplied": shown(account.supplied, "USDC", unit=False),
        "supply_yearly": float(account.book.supply_yearly),
        "collateral": shown(health.collateral, "DIEM", unit=False),
        "collateral_worth": shown(health.worth, "USDC", unit=False),
        "debt": shown(health.debt, "USDC", unit=False),
        "borrow_yearly": float(account.book.borrow_yearly),
        "price": _price(health.price),
        "ltv": None if health.ltv is None else float(health.ltv),
        "lltv": health.lltv / 10**18,
        "healthy": health.healthy,
        "can_borrow": shown(min(health.spare, account.book.liquid), "USDC", unit=False),
        "can_take_out": shown(health.free_collateral, "DIEM", unit=False),
        "liquidation_price": None if health.liquidation_price is None else _price(health.liquidation_price),
        "distance": None if health.distance is None else float(health.distance),
    }


def done_document(done: "Lent") -> dict[str, Any]:
    from freehold.clock import rfc3339

    return {
        "tx_hash": done.tx_hash,
        "block_number": done.block_number,
        "at": rfc3339(done.at_s),
        "market": done.market,
        **{
            each: shown(getattr(done, each), "USDC", unit=False)
            for each in ("supplied", "withdrawn", "borrowed", "repaid")
        },
        **{each: shown(getattr(done, each), "DIEM", unit=False) for each in ("pledged", "released", "seized")},
        "unpaid": shown(done.unpaid, "USDC", unit=False),
        "account": document(done.account),
    }


def draw_health(out: Output, read: dict[str, Any]) -> None:
    out.say(f"{read['name']} {read['address']}")
    if not read["markets"]:
        out.say(
            "Nothing is lent or owed. `freehold borrow USDC --collateral DIEM` borrows, `freehold lend supply` lends."
        )
    for row in read["markets"]:
        out.strong(f"market against {row['market']}")
        facts = []
        if row["supplied"] != "0":
            facts.append(("lent", f"{row['supplied']} USDC, earns {row['supply_yearly']:.2%} a year as things stand"))
        if row["collateral"] != "0" or row["debt"] != "0":
            facts += _debt(row)
        out.facts(facts)


def _debt(row: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("pledged", f"{row['collateral']} {row['market']}, worth {row['collateral_worth']} USD at {row['price']}"),
        ("owed", f"{row['debt']} USDC, grows by {row['borrow_yearly']:.2%} a year as things stand"),
        ("LTV", f"{'none' if row['ltv'] is None else format(row['ltv'], '.2%')} of at most {row['lltv']:.0%}"),
        ("can borrow", f"{row['can_borrow']} USDC, or take out {row['can_take_out']} {row['market']}"),
    ]
    if row["liquidation_price"] is None:
        return facts
    if row["healthy"]:
        return [*facts, ("liquidated", f"below {row['liquidation_price']} USD, a fall of {row['distance']:.1%}")]
    return [*facts, ("liquidated", f"by anybody, now: {row['price']} USD is below {row['liquidation_price']}")]


def draw_everybody(out: Output, read: dict[str, Any]) -> None:
    if not read["borrowers"]:
        out.say(f"Nobody owes anything against {read['market']}.")
        return
    out.table(
        (f"borrower against {read['market']}", ">owed", ">LTV", ">of", ">fall"),
        [
            (
                row["owner"],
                row["debt"],
                "none" if row["ltv"] is None else f"{row['ltv']:.1%}",
                f"{row['lltv']:.0%}",
                "now" if not row["healthy"] else f"{row['distance']:.1%}",
            )
            for row in read["borrowers"]
        ],
    )
    out.say("fall: how far the price may fall before anybody may liquidate, with `freehold liquidate WHO`.")


def amount_or_all(text: str, token: str) -> int | None:
    """An amount, or None for `all`."""
    return None if text.lower() == ALL else amount_of(text, token)


def _price(of: int) -> str:
    from freehold.money import format_units

    return format_units(of // 10**18, decimals=6)
