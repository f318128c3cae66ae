"""`freehold position`, all that a wallet has on one screen; `freehold allocate`, where its staked DIEM goes."""

from typing import TYPE_CHECKING, Any

import click

from freehold.cli.chainside import address_of, signer, signing, unlock
from freehold.cli.lending import ask, yes_option
from freehold.cli.markets import defi_of
from freehold.cli.output import Output, seconds_of, when
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets, amount_of, shown

if TYPE_CHECKING:
    from freehold.chain.allocation import Allocation, Move, Seat
    from freehold.chain.defi.model import Defi
    from freehold.chain.position import Facts, Part

PLACES = ((1_000, 4), (1_000_000, 2))
"""Places of amounts below so much, in the table; none above. --json has all."""
NO_MARKET = "no market"


@click.command()
@click.option("--of", "who", metavar="WHO", help="Another's: a wallet's name or an address.")
@signing
def position(session: Session, who: str | None, name: str | None) -> None:
    """Show all that a wallet has: each part's face value, market value, daily credit and yield, and the sums."""
    from freehold.chain import position_reader

    wallets = Wallets(session)
    whose = who or signer(session, name)
    address = address_of(session, wallets, whose, accounts=False)
    defi = _defi(session, wallets)
    with session.out.busy("Reading the chain …"):
        facts = wallets.look(lambda rpc: position_reader.look(rpc, wallets.deployment, address, defi))
    read = document(whose, facts)
    session.out.document(read, lambda out: draw_position(out, wallets, read))


def _defi(session: Session, wallets: Wallets) -> "Defi | None":
    """The chain's pools and markets; None where there are none, or where nobody here knows of any."""
    from freehold.chain.problems import NoMarkets

    if session.local is None:
        session.out.remark(
            "Pools and markets are kept in the server's data folder: without --data only USDC has a market value here."
        )
        return None
    try:
        return defi_of(session, wallets)
    except NoMarkets:
        return None


def document(name: str, facts: "Facts") -> dict[str, Any]:
    """For --json: amounts and values as decimals, times as RFC 3339, yields of a year as shares of 1."""
    from freehold.chain.position import parts, totals
    from freehold.clock import rfc3339
    from freehold.money import format_units

    owner, listed = facts.positions.address, parts(facts)
    summed = totals(listed, owner)
    return {
        "name": name,
        "address": owner,
        "chain_time": rfc3339(facts.now_s),
        "prices": {token: str(round(float(price), 6)) for token, price in facts.prices.items()},
        "parts": [_part(part) for part in listed],
        "totals": {
            "face": {unit: _amount(amount, unit) for unit, amount in summed.face.items()},
            "market_usd": format_units(summed.market_cents, decimals=2, least_places=2),
            "without_market": list(summed.without_market),
            "daily_usd": shown(summed.daily, "USD", unit=False),
            "daily_usd_of_others": shown(summed.daily_of_others, "USD", unit=False),
        },
    }


def _part(part: "Part") -> dict[str, Any]:
    """A debt's amounts are negative, so that a column's sum is its total."""
    from freehold.clock import rfc3339
    from freehold.money import format_units

    sign = -1 if part.owed else 1
    return {
        "kind": str(part.kind),
        "token": part.token,
        "id": part.id,
        "amount": _amount(sign * part.amount, part.token),
        "face": _amount(sign * part.face, part.face_unit),
        "face_unit": part.face_unit,
        "market_usd": None
        if part.market_cents is None
        else format_units(sign * part.market_cents, decimals=2, least_places=2),
        "daily_usd": shown(part.daily, "USD", unit=False),
        "beneficiary": part.beneficiary,
        "yearly": part.yearly,
        "source": None if part.source is None else str(part.source),
        "ready_at": None if part.ready_at_s is None else rfc3339(part.ready_at_s),
    }


def _amount(units: int, token: str) -> str:
    from freehold.money import format_units

    return format_units(units, decimals=6 if token == "USDC" else 18)  # noqa: S105 - a token's symbol


def draw_position(out: Output, wallets: Wallets, read: dict[str, Any]) -> None:
    """At most 80 columns."""
    from freehold.chain.position import MEANINGS, Source

    out.say(f"{read['name']} {read['address']}")
    if not read["parts"]:
        out.say("Nothing yet. `freehold dev fund NAME` gives HOLD and USDC on the development chain.")
        return
    rows = [
        (
            _called(wallets, row, read["address"]),
            f"{_rounded(row['face'])} {_unit(row['face_unit'])}",
            NO_MARKET if row["market_usd"] is None else _cents(row["market_usd"]),
            _rounded(row["daily_usd"]) if row["daily_usd"] != "0" else "",
            _yearly(row["yearly"]),
            row["source"] or "",
        )
        for row in read["parts"]
    ]
    totals = read["totals"]
    rows.append(("sum", "", _cents(totals["market_usd"]), _rounded(totals["daily_usd"]), "", ""))
    out.table(("what", ">face value", ">market USD", ">USD/day", ">a year", "from"), rows, tight=True)
    out.say()
    units = [unit for unit in ("DIEM", "HOLD", "USDC", "USD") if totals["face"].get(unit, "0") != "0"]
    faces = [f"{_rounded(totals['face'][unit])} {_unit(unit)}" for unit in units]
    out.say(f"sum of face values: {', '.join(faces)}")
    notes = ["market USD: at the pools' present prices; a sale moves them"] if len(read["prices"]) > 1 else []
    if totals["without_market"]:
        notes.append(f"not in the sum, for they have no market: {', '.join(totals['without_market'])}")
    notes += [
        f"{_rounded(row['daily_usd'])} USD/day go to {wallets.name_of(row['beneficiary'])}"
        for row in read["parts"]
        if row["beneficiary"] not in (None, read["address"]) and row["daily_usd"] != "0"
    ]
    now_s = seconds_of(read["chain_time"])
    notes += [
        f"{row['token']} #{row['id']} can be withdrawn {when(row['ready_at'], now_s=now_s)}"
        for row in read["parts"]
        if row["kind"] == "unbonding"
    ]
    notes += [
        f"{source}: {MEANINGS[Source(source)]}"
        for source in dict.fromkeys(row["source"] for row in read["parts"])
        if source
    ]
    for note in notes:
        out.dim(note)


def _called(wallets: Wallets, row: dict[str, Any], owner: str) -> str:
    kind = "pool" if row["kind"] == "pooled" else row["kind"]
    token = row["token"]
    if kind in ("strips", "activated", "principal"):
        token = token.partition("DIEM-")[2]
    number = "" if row["id"] is None else f"#{row['id']} "
    whose = row["beneficiary"]
    goes_to = "" if whose in (None, owner) else f" for {wallets.name_of(whose).rpartition('…')[2]}"
    return f"{kind} {number}{token}{goes_to}"


def _unit(unit: str) -> str:
    return "credit" if unit == "USD" else unit


def _yearly(yearly: float | None) -> str:
    if yearly is None:
        return ""
    return f"{yearly * 100:.0f} %" if abs(yearly) >= 1 else f"{yearly * 100:.2f} %"


def _rounded(amount: str) -> str:
    """A decimal to as many places as its size needs, to the nearest, without trailing zeros."""
    from decimal import Decimal

    value = Decimal(amount)
    places = next((places for below, places in PLACES if abs(value) < below), 0)
    near = format(round(value, places), "f")
    return (near.rstrip("0").rstrip(".") if "." in near else near) or "0"


def _cents(amount: str) -> str:
    from decimal import Decimal

    return format(Decimal(amount), ".2f")


# --- allocate ---------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("targets", metavar="[WHO[@OPERATOR]=AMOUNT|rest]...", nargs=-1)
@yes_option
@signing
def allocate(session: Session, targets: tuple[str, ...], yes: bool, name: str | None) -> None:
    """Show to whose allowance a wallet's staked DIEM goes, or say who shall get how much; it moves at the next 00:00 UTC.

    Each WHO named gets exactly AMOUNT; the others give what that needs, the largest first. WHO is a wallet's or account's
    name, an account's id or an address; OPERATOR an address, this server's operator when left out. `rest` is all that
    is left, and leaves nothing with anybody who isn't named.
    """
    from freehold.chain import allocation

    wallets, who = Wallets(session), signer(session, name)
    if not targets:
        address = wallets.address(who)
        with session.out.busy("Reading the chain …"):
            found = wallets.look(lambda rpc: allocation.look(rpc, wallets.deployment, address))
        read = {"name": who, **_allocation(found)}
        session.out.document(read, lambda out: draw_allocation(out, wallets, read))
        return
    wanted: dict[Seat, int] = {}
    for target in targets:
        seat, amount = _target(session, wallets, target)
        if seat in wanted:
            raise click.UsageError(f"{target.rpartition('=')[0]} is named twice.")
        wanted[seat] = amount
    unlock(session)
    with session.out.busy("Trying it on the chain …"):
        order = wallets.acting(who, lambda wallet: allocation.plan(wallet, wallets.deployment, wanted))
    if not yes:
        effective = when(order.before.effective_at_s, now_s=order.before.now_s)
        ask(
            session,
            [
                *(_said(wallets, move) for move in order.moves),
                f"It takes effect at {effective}; until then nothing changes.",
            ],
        )
    with session.out.busy("Waiting for the transaction to be mined …"):
        done = wallets.acting(who, lambda wallet: allocation.carry_out(wallet, wallets.deployment, order))
    from freehold.clock import rfc3339

    made = {
        "from": who,
        "tx_hash": done.tx_hash,
        "block_number": done.block_number,
        "effective_at": rfc3339(done.effective_at_s),
        "moves": [_move(move) for move in done.moves],
        **_allocation(done.after),
    }

    def draw(out: Output) -> None:
        for move in done.moves:
            out.say(_said(wallets, move))
        draw_allocation(out, wallets, {"name": who, **made})
        out.dim(f"transaction {done.tx_hash}, block {done.block_number}")

    session.out.document(made, draw)


def _target(session: Session, wallets: Wallets, text: str) -> "tuple[Seat, int]":
    from freehold.chain.allocation import REST, Seat

    whom, equals, amount = text.rpartition("=")
    if not equals or not whom or not amount:
        raise click.UsageError(f"{text!r} is not WHO=AMOUNT, such as bob=2 or bob=rest.")
    beneficiary, at, operator = whom.rpartition("@0x")
    seat = Seat(
        wallets.checked(f"0x{operator}") if at else wallets.checked(wallets.operator),
        address_of(session, wallets, beneficiary if at else whom),
    )
    nothing = amount.strip().strip("0.") == "" and any(digit == "0" for digit in amount)
    return seat, REST if amount.lower() == "rest" else 0 if nothing else amount_of(amount, "DIEM")


def _allocation(found: "Allocation") -> dict[str, Any]:
    from freehold.clock import rfc3339

    return {
        "address": found.address,
        "chain_time": rfc3339(found.now_s),
        "next_day": rfc3339(found.effective_at_s),
        "seats": [
            {
                "beneficiary": each.seat.beneficiary,
                "operator": each.seat.operator,
                "amount": shown(each.amount, "DIEM", unit=False),
                "allowance_today": shown(each.today, "USD", unit=False),
                "allowance_onward": shown(each.onward, "USD", unit=False),
            }
            for each in found.seats
        ],
    }


def _move(move: "Move") -> dict[str, Any]:
    return {
        "amount": shown(move.amount, "DIEM", unit=False),
        "beneficiary": move.source.beneficiary,
        "operator": move.source.operator,
        "new_beneficiary": move.to.beneficiary,
        "new_operator": move.to.operator,
    }


def _said(wallets: Wallets, move: "Move") -> str:
    def seat(where: "Seat") -> str:
        at = "" if where.operator == wallets.operator else f" at {where.operator}"
        return f"{wallets.name_of(where.beneficiary)}{at}"

    return f"{shown(move.amount, 'DIEM')} of the stake: from {seat(move.source)} to {seat(move.to)}."


def draw_allocation(out: Output, wallets: Wallets, read: dict[str, Any]) -> None:
    if not read["seats"]:
        out.say(f"{read['name']} has no staked DIEM. `freehold stake diem AMOUNT` stakes some.")
        return
    here = wallets.checked(wallets.operator)
    out.table(
        ("allowance of", "operator", ">stake from 00:00", ">USD today", ">USD from 00:00"),
        [
            (
                wallets.name_of(row["beneficiary"]),
                "this server's" if row["operator"] == here else wallets.name_of(row["operator"]),
                row["amount"],
                _rounded(row["allowance_today"]),
                _rounded(row["allowance_onward"]),
            )
            for row in read["seats"]
        ],
    )
    out.dim(
        f"00:00: {when(read['next_day'], now_s=seconds_of(read['chain_time']))}. USD: of all stakes for that account there."
    )
