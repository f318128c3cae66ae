"""Commands that only the development chain has: give a wallet tokens, and move to the next day."""

import time
from typing import Any

import click

from freehold.cli.output import Output, seconds_of, when
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, common
from freehold.cli.wallets import Wallets

DAY_S = 86_400
PATIENCE_S = 60.0
POLL_S = 0.3


@click.group()
def dev() -> None:
    """Move the development chain's time, and fund its wallets."""


@dev.command("fund")
@click.argument("name")
@common
def dev_fund(session: Session, name: str) -> None:
    """Give a wallet of the development chain 10,000 HOLD and 1,000 USDC."""
    wallets = Wallets(session)
    with session.out.busy("Waiting for the transactions to be mined …"):
        done = wallets.fund(name)
    session.out.document(done.document(), lambda out: out.say(done.sentence()))


@dev.command("advance-day")
@common
def dev_advance_day(session: Session) -> None:
    """Move the chain to the next 00:00 UTC, and wait until the ledger has opened that day."""
    wallets = Wallets(session)
    with session.out.busy("Waiting for the new day …"):
        read = next_day(session, wallets)

    def draw(out: Output) -> None:
        out.say(f"It is {when(read['ledger_time'])}.")

    session.out.document(read, draw)


def next_day(session: Session, wallets: Wallets) -> dict[str, Any]:
    """Advance, and return `/v1/status` as soon as the new day is open. Refused after a minute."""
    day = wallets.advance_day()
    until = time.monotonic() + PATIENCE_S
    while True:
        read = dict(session.client.get("/v1/status"))
        if read["day_opened"] and seconds_of(read["ledger_time"]) >= day * DAY_S:
            return read
        if time.monotonic() > until:
            raise Refusal(
                f"The chain has moved, but the server hasn't opened the day within {PATIENCE_S:.0f} s; see `freehold status`."
            )
        time.sleep(POLL_S)
