"""`freehold strips …`: DIEM split into dated capacity, and what can be done with it; `freehold claim`."""

import time
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.chainside import address_of, beneficiary_option, report, signer, signing
from freehold.cli.output import Output, when
from freehold.cli.refusal import ServerRefused
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets, about, amount_of, shown

if TYPE_CHECKING:
    from freehold.clock import Month as CalendarMonth

POLL_S = 5.0
"""How often `claim --each-day` looks at the chain's time."""


class Month(click.ParamType["CalendarMonth"]):
    """`2026-12`."""

    name = "YYYY-MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "CalendarMonth":
        from freehold.clock import Month as CalendarMonth

        try:
            return CalendarMonth.parse(str(value))
        except ValueError as wrong:
            self.fail(f"{wrong}.", param, ctx)


MONTH = Month()


@click.group()
def strips() -> None:
    """Split DIEM into months of capacity; sell, lease, activate or merge them."""


@strips.command("show")
@signing
def strips_show(session: Session, name: str | None) -> None:
    """Show a wallet's strips, principals, and what it has activated."""
    from freehold.chain.series import dated
    from freehold.clock import rfc3339

    wallets, who = Wallets(session), signer(session, name)
    address = wallets.address(who)
    with session.out.busy("Reading the chain …"):
        found = wallets.look(lambda rpc: dated(rpc, wallets.deployment, address))
    read = {
        "name": who,
        "address": found.address,
        "chain_time": rfc3339(found.chain_time_s),
        "series": [
            {
                "month": str(each.month),
                "strips": shown(each.strips, "DIEM", unit=False),
                "principal": shown(each.principal, "DIEM", unit=False),
                "strip_token": each.strip_token,
                "principal_token": each.principal_token,
            }
            for each in found.series
        ],
        "activated": [
            {
                "month": str(each.month),
                "amount": shown(each.amount, "DIEM", unit=False),
                "beneficiary": each.beneficiary,
                "operator": each.operator,
            }
            for each in found.activated
        ],
    }
    session.out.document(read, lambda out: draw_strips(out, read))


def draw_strips(out: Output, read: dict[str, Any]) -> None:
    out.say(f"{read['name']} {read['address']}")
    if not read["series"] and not read["activated"]:
        out.say("No strips. Split DIEM with `freehold strips split AMOUNT --to 2027-02`.")
    if read["series"]:
        rows = [(row["month"], row["strips"], row["principal"]) for row in read["series"]]
        out.table(("month", ">strips (USD a day)", ">principal (DIEM after the month)"), rows)
    if read["activated"]:
        placed = [(row["month"], row["amount"], row["beneficiary"], row["operator"]) for row in read["activated"]]
        out.table(("activated", ">USD a day", "beneficiary", "operator"), placed)


@strips.command("split")
@click.argument("amount", metavar="DIEM")
@click.option("--to", "last", type=MONTH, required=True, help="The last month; this one is the first.")
@signing
def strips_split(session: Session, amount: str, last: "CalendarMonth", name: str | None) -> None:
    """Turn DIEM into one strip for each month up to one, and the principal, which is the DIEM after that month."""
    from freehold.chain.series import Split, split

    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)

    def told(done: Split) -> str:
        return (
            f"{who} has {shown(units, 'DIEM', unit=False)} strips of each month from {done.first} to {done.last}, "
            f"and as much principal of {done.last}."
        )

    report(session, lambda: wallets.do(who, lambda wallet: split(wallet, wallets.deployment, last, units), told))


@strips.command("merge")
@click.argument("amount", metavar="DIEM")
@click.option("--to", "last", type=MONTH, required=True, help="The month that was split to.")
@signing
def strips_merge(session: Session, amount: str, last: "CalendarMonth", name: str | None) -> None:
    """Undo a split: strips of every month left, and the principal, become DIEM again."""
    from freehold.chain.series import merge

    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    told = f"{who} has {shown(units, 'DIEM')} back from its strips and principal of {last}."
    report(
        session, lambda: wallets.do(who, lambda wallet: merge(wallet, wallets.deployment, last, units), lambda _: told)
    )


@strips.command("redeem")
@click.argument("amount", metavar="DIEM")
@click.option("--of", "month", type=MONTH, required=True, help="The principal's month, which must be over.")
@signing
def strips_redeem(session: Session, amount: str, month: "CalendarMonth", name: str | None) -> None:
    """Turn principal of a month that is over into DIEM, one to one."""
    from freehold.chain.series import redeem

    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    told = f"{who} has redeemed {shown(units, 'DIEM')} of the principal of {month}."
    report(
        session,
        lambda: wallets.do(who, lambda wallet: redeem(wallet, wallets.deployment, month, units), lambda _: told),
    )


@strips.command("activate")
@click.argument("amount", metavar="STRIPS")
@click.option("--of", "month", type=MONTH, required=True, help="Their month: this one or a coming one.")
@beneficiary_option("Whose account gets the allowance")
@signing
def strips_activate(
    session: Session, amount: str, month: "CalendarMonth", beneficiary: str | None, name: str | None
) -> None:
    """Use strips: as many USD of inference on each day that is left of their month. They are burned for it."""
    from freehold.chain.series import Activated, activate
    from freehold.clock import Day

    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    goes_to = address_of(session, wallets, beneficiary or who)

    def told(done: Activated) -> str:
        return (
            f"{who} has activated {shown(units, 'DIEM', unit=False)} strips of {month}. By strips the beneficiary has "
            f"{shown(done.today // 10**9 * 10**9, 'USD')} on {Day(done.day)} and {shown(done.onward, 'USD')} on each later day of {month}."
        )

    verb = wallets.do
    report(
        session,
        lambda: verb(who, lambda wallet: activate(wallet, wallets.deployment, month, units, beneficiary=goes_to), told),
    )


@strips.command("redirect")
@click.argument("amount", metavar="STRIPS")
@click.option("--of", "month", type=MONTH, required=True, help="Their month.")
@beneficiary_option("Whose allowance it is now")
@click.option("--to", "new_beneficiary", metavar="WHO", help="Whose it becomes; the same when left out.")
@click.option("--operator", metavar="ADDRESS", help="The operator now; this server's when left out.")
@click.option("--to-operator", "new_operator", metavar="ADDRESS", help="The operator that it goes to.")
@signing
def strips_redirect(
    session: Session,
    amount: str,
    month: "CalendarMonth",
    beneficiary: str | None,
    new_beneficiary: str | None,
    operator: str | None,
    new_operator: str | None,
    name: str | None,
) -> None:
    """Give activated strips' allowance to another account or operator, from the next 00:00 UTC on."""
    from freehold.chain.series import StripsRedirected, redirect_activated

    if new_beneficiary is None and new_operator is None:
        raise click.UsageError("Say where it goes: --to WHO, --to-operator ADDRESS, or both.")
    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    now = address_of(session, wallets, beneficiary or who)
    then = address_of(session, wallets, new_beneficiary) if new_beneficiary else now

    def told(done: StripsRedirected) -> str:
        return (
            f"{shown(units, 'DIEM', unit=False)} activated strips of {month} go to {done.new_beneficiary} at operator "
            f"{done.new_operator} from {when(done.effective_at_s, now_s=done.at_s)} on."
        )

    report(
        session,
        lambda: wallets.do(
            who,
            lambda wallet: redirect_activated(
                wallet,
                wallets.deployment,
                month,
                units,
                beneficiary=now,
                operator=operator,
                new_beneficiary=then,
                new_operator=new_operator,
            ),
            told,
        ),
    )


@strips.command("send")
@click.argument("amount", metavar="AMOUNT")
@click.argument("to", metavar="WHO")
@click.option("--of", "month", type=MONTH, required=True, help="Their month.")
@click.option("--principal", is_flag=True, help="Send principal, not strips.")
@signing
def strips_send(
    session: Session, amount: str, to: str, month: "CalendarMonth", principal: bool, name: str | None
) -> None:
    """Send strips of a month, which leases that capacity, or its principal."""
    from freehold.chain.series import SeriesSent, send

    units = amount_of(amount, "DIEM")
    wallets, who = Wallets(session), signer(session, name)
    goes_to = address_of(session, wallets, to, accounts=False)

    def told(done: SeriesSent) -> str:
        return f"{who} has sent {shown(units, 'DIEM', unit=False)} {done.symbol} to {done.to}."

    report(
        session,
        lambda: wallets.do(
            who, lambda wallet: send(wallet, wallets.deployment, month, units, goes_to, principal=principal), told
        ),
    )


@click.command()
@click.option("--restake", is_flag=True, help="Stake what was earned at once.")
@click.option("--each-day", is_flag=True, help="Go on: again after each 00:00 UTC, until Ctrl-C.")
@signing
def claim(session: Session, restake: bool, each_day: bool, name: str | None) -> None:
    """Take the HOLD that staked HOLD has earned."""
    from freehold.chain.rewards import Claimed
    from freehold.chain.rewards import claim as take

    wallets, who = Wallets(session), signer(session, name)

    def told(done: Claimed) -> str:
        how = f", staked at once: {about(done.staked, 'sHOLD')} in all" if restake else ""
        return f"{who} has claimed {about(done.amount, 'HOLD')}{how}."

    def once() -> None:
        report(session, lambda: wallets.do(who, lambda wallet: take(wallet, wallets.deployment, restake=restake), told))

    once()
    while each_day:
        _await_next_day(wallets)
        try:
            once()
        except ServerRefused as refused:
            session.out.remark(f"{refused.message} Trying again tomorrow.")


def _await_next_day(wallets: Wallets) -> None:
    """Until the chain's time has passed the next 00:00 UTC."""
    from freehold.clock import Day

    today = Day.of(wallets.time())
    while Day.of(wallets.time()) <= today:
        time.sleep(POLL_S)  # a node offers nothing to wait for over HTTP
