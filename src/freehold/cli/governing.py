"""`freehold governance`: what the timelock owns, what is on its way, and proposing, executing and cancelling changes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.chainside import report, signer, signing, with_keystore
from freehold.cli.output import Output, duration, seconds_of, when
from freehold.cli.planning import LENGTH
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets, shown

if TYPE_CHECKING:
    from freehold.chain.governance import Change, Governance
    from freehold.chain.model import Deployment

SHOWN_DONE = 5
"""So many changes that are over are shown to people; all with --json."""


@click.group(invoke_without_command=True)
@with_keystore
@click.pass_context
def governance(ctx: click.Context, session: Session) -> None:
    """Show the parameters, each operator's coverage, and changes with their times. Or propose, execute, cancel one."""
    if ctx.invoked_subcommand is not None:
        return
    from freehold.chain.governance import look

    wallets = Wallets(session, only_looks=True)
    with session.out.busy("Reading the chain …"):
        found = wallets.look(lambda rpc: look(rpc, wallets.deployment))
    read = document(found)
    session.out.document(read, lambda out: draw(out, read))


def document(found: "Governance") -> dict[str, Any]:
    """For --json: amounts as decimals, times as RFC 3339."""
    from freehold.clock import rfc3339

    return {
        "timelock": found.timelock,
        "delay_s": found.delay_s,
        "chain_time": rfc3339(found.chain_time_s),
        "emission_per_second": shown(found.emission_per_second, "HOLD", unit=False),
        "emission_ceiling": shown(found.emission_ceiling, "HOLD", unit=False),
        "treasury": found.treasury,
        "total_committed": shown(found.total_committed, "USD", unit=False),
        "diem_supply": shown(found.diem_supply, "DIEM", unit=False),
        "curve_points": found.curve_points,
        "publisher": found.publisher,
        "operators": [
            {
                "address": each.address,
                "url": each.url,
                "receipt_signer": each.receipt_signer,
                "committed": shown(each.committed, "USD", unit=False),
                "owed": shown(each.owed, "USD", unit=False),
                "coverage": each.committed / each.owed if each.owed else None,
            }
            for each in found.operators
        ],
        "changes": [_change(each) for each in found.changes],
    }


def _change(each: "Change") -> dict[str, Any]:
    from freehold.clock import rfc3339

    return {
        "id": each.id,
        "state": str(each.state),
        "proposed_at": rfc3339(each.proposed_at_s),
        "ready_at": rfc3339(each.ready_at_s),
        "calls": [
            {
                "target": call.target,
                "function": call.function,
                "arguments": {name: _argument(value) for name, value in call.arguments.items()},
            }
            for call in each.calls
        ],
    }


def _argument(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, list | tuple):
        return [_argument(one) for one in value]
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def draw(out: Output, read: dict[str, Any]) -> None:
    now_s = seconds_of(read["chain_time"])
    out.facts(
        [
            ("timelock", f"{read['timelock']}, delay {duration(read['delay_s'])}"),
            ("emission", f"{read['emission_per_second']} HOLD a second, never above {read['emission_ceiling']}"),
            ("treasury", read["treasury"]),
            ("publisher", read["publisher"]),
            ("committed", f"{read['total_committed']} USD a day, for {read['diem_supply']} DIEM"),
            ("curve", f"{read['curve_points']} points"),
        ]
    )
    out.table(
        ("operator", ">committed", ">owed", ">coverage", "url"),
        [
            (
                row["address"],
                row["committed"],
                row["owed"],
                "none owed" if row["coverage"] is None else f"{row['coverage']:.2f}",
                row["url"],
            )
            for row in read["operators"]
        ],
    )
    open_changes = [row for row in read["changes"] if row["state"] in ("waiting", "ready")]
    over = [row for row in read["changes"] if row["state"] not in ("waiting", "ready")][:SHOWN_DONE]
    if not open_changes:
        out.say("No change is on its way.")
    for row in [*open_changes, *over]:
        at = when(row["ready_at"], now_s=now_s)
        told = (
            f"can be executed from {at} on"
            if row["state"] in ("waiting", "ready")
            else f"was proposed {row['proposed_at']}"
        )
        out.say(f"{row['id'][:12]} {row['state']}: {told}")
        for call in row["calls"]:
            given = ", ".join(f"{name} {_short(value)}" for name, value in call["arguments"].items())
            out.say(f"  {call['target']}.{call['function']}: {given}")


def _short(value: Any) -> str:
    text = f"{len(value)} entries" if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# --- changes ----------------------------------------------------------------------------------------------------------


@governance.group("propose")
def propose() -> None:
    """Propose a change. It takes effect when it is executed, after the timelock's delay."""


def _proposing(session: Session, name: str | None, calls: "Callable[[Deployment], list[Any]]") -> None:
    from freehold.chain import governance as chain

    wallets, who = Wallets(session), signer(session, name)

    def told(done: chain.Proposed) -> str:
        return (
            f"{who} has proposed change {done.id[:12]}, which can be executed from "
            f"{when(done.ready_at_s, now_s=done.at_s)} on: freehold governance execute {done.id[:12]}"
        )

    report(
        session,
        lambda: wallets.do(
            who, lambda wallet: chain.propose(wallet, wallets.deployment, calls(wallets.deployment)), told
        ),
    )


@propose.command("committed")
@click.argument("operator")
@click.argument("usd_per_day")
@signing
def propose_committed(session: Session, operator: str, usd_per_day: str, name: str | None) -> None:
    """What an operator may promise to serve, USD a day; the sum of all bounds the supply of DIEM."""
    from freehold.chain.governance import committed_call
    from freehold.money import parse_units

    units = parse_units(usd_per_day, decimals=18, what="USD amount")
    _proposing(session, name, lambda where: [committed_call(where, operator, units)])


@propose.command("emission")
@click.argument("hold_per_second")
@signing
def propose_emission(session: Session, hold_per_second: str, name: str | None) -> None:
    """HOLD that stakes earn in a second."""
    from freehold.chain.governance import emission_call
    from freehold.money import parse_units

    units = parse_units(hold_per_second, decimals=18, what="HOLD amount")
    _proposing(session, name, lambda where: [emission_call(where, units)])


@propose.command("treasury")
@click.argument("address")
@signing
def propose_treasury(session: Session, address: str, name: str | None) -> None:
    """Where the fifth goes that locked stakes don't earn."""
    from freehold.chain.governance import treasury_call

    _proposing(session, name, lambda where: [treasury_call(where, address)])


@propose.command("operator")
@click.argument("address")
@click.argument("endpoint", metavar="URL")
@click.argument("receipt_signer")
@signing
def propose_operator(session: Session, address: str, endpoint: str, receipt_signer: str, name: str | None) -> None:
    """Register an operator, or change its URL or the address that signs its receipts."""
    from freehold.chain.governance import operator_call

    _proposing(session, name, lambda where: [operator_call(where, address, endpoint, receipt_signer)])


@propose.command("publisher")
@click.argument("address")
@signing
def propose_publisher(session: Session, address: str, name: str | None) -> None:
    """Who publishes the days of the receipts' book."""
    from freehold.chain.governance import publisher_call

    _proposing(session, name, lambda where: [publisher_call(where, address)])


@propose.command("delay")
@click.argument("length", type=LENGTH, metavar="DAYS")
@signing
def propose_delay(session: Session, length: int, name: str | None) -> None:
    """The timelock's own delay, such as 7d; off the development chain at least 2 days."""
    from freehold.chain.governance import delay_call

    _proposing(session, name, lambda where: [delay_call(where, length * 86_400)])


@governance.command("execute")
@click.argument("change", metavar="ID")
@signing
def execute(session: Session, change: str, name: str | None) -> None:
    """Carry out a change whose delay is over. The first digits of its id do."""
    from freehold.chain import governance as chain

    wallets, who = Wallets(session), signer(session, name)
    told = "The change is in effect."
    report(
        session,
        lambda: wallets.do(who, lambda wallet: chain.execute(wallet, wallets.deployment, change), lambda _: told),
    )


@governance.command("cancel")
@click.argument("change", metavar="ID")
@signing
def cancel(session: Session, change: str, name: str | None) -> None:
    """Take back a change that wasn't executed yet."""
    from freehold.chain import governance as chain

    wallets, who = Wallets(session), signer(session, name)
    told = "The change is cancelled."
    report(
        session,
        lambda: wallets.do(who, lambda wallet: chain.cancel(wallet, wallets.deployment, change), lambda _: told),
    )
