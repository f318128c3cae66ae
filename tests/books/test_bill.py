"""The bill against the entries, read by SQL that knows nothing of how a bill is made, over random histories."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.clock import DAY_S, Day, Month, SystemClock
from freehold.db import Connection, Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Bill, Hold, HoldRequest, KeyLimits, Settlement, Source
from freehold.ledger.problems import InsufficientCredit

FIRST = Month.parse("2027-07")
LAST_DAYS = Day(FIRST.next().first.number - 2)
"""The histories begin two days before a month's end, so that they go over it."""

ENTRIES = """
select substr(e.line, 7) as source, e.kind, coalesce(c.day, e.at_s / 86400)::int as day, e.amount
from ledger.entries e
left join ledger.charges c on c.account_id = e.account_id and e.external_id = 'req:' || c.request_id
where e.account_id = $1 and e.line like 'purse:%'
"""
BORNE = """
select coalesce(-sum(e.amount), 0)::bigint from ledger.entries e
left join ledger.charges c on c.account_id = e.account_id and e.external_id = 'req:' || c.request_id
where e.account_id = $1 and e.line like 'absorbed:%' and coalesce(c.day, e.at_s / 86400)::int between $2 and $3
"""

STEPS = st.one_of(
    st.tuples(st.just("call"), st.integers(0, 3), st.integers(1, 400)),
    st.tuples(st.just("begin"), st.integers(0, 3), st.integers(1, 400)),
    st.tuples(st.just("end"), st.integers(0, 3), st.integers(0, 600)),
    st.tuples(st.just("deposit"), st.just(0), st.integers(1, 1_000)),
    st.tuples(st.just("gift"), st.integers(1, 40), st.integers(1, 1_000)),
    st.tuples(st.just("stake"), st.just(0), st.integers(0, 500)),
    st.tuples(st.just("reorg"), st.integers(0, 9), st.integers(0, 500)),
    st.tuples(st.just("wait"), st.integers(1, 60), st.just(0)),
    st.tuples(st.just("expire"), st.just(0), st.just(0)),
)


@dataclass
class History:
    """What happens to one account with two keys."""

    database: Database
    ledger: Ledger
    account: int
    now: int
    grants: list[str]
    open: list[Hold]

    async def do(self, verb: str, which: int, amount: int) -> None:
        match verb:
            case "call":
                if await self.begin(which, amount):
                    await self.end(len(self.open) - 1, amount)
            case "begin":
                await self.begin(which, amount)
            case "end":
                if self.open:
                    await self.end(which % len(self.open), amount)
            case "deposit":
                await self.grant(Source.PREPAID, amount, FOREVER_S)
            case "gift":
                await self.grant(Source.PROMO, amount, self.now + which * 3_600)
            case "stake":
                name = f"day:{self.now // DAY_S}:{len(self.grants)}"
                if await self.ledger.raise_grant(self.account, self.now // DAY_S, Source.ALLOWANCE, amount, name):
                    self.grants.append(name)
            case "reorg":
                if self.grants:
                    standing = await self.ledger.grants(self.account, live_only=False)
                    grant = standing[which % len(standing)]
                    await self.ledger.reverse(self.account, grant.external_id, amount, f"reorg:{uuid4()}")
            case "wait":
                self.now += which * 3_600
                await self.ledger.set_time(self.now, opened_day=0)
            case "expire":
                await self.ledger.expire()

    async def grant(self, source: Source, amount: int, ends: int) -> None:
        self.grants.append(f"evt:{len(self.grants)}")
        await self.ledger.grant(self.account, source, amount, self.grants[-1], starts_at_s=0, expires_at_s=ends)

    async def begin(self, which: int, amount: int) -> bool:
        key_id = 1 + which % 2
        asked = HoldRequest(self.account, key_id, uuid4(), amount, amount, 0, 1, day_unopened_ok=True)
        try:
            self.open.append(await self.ledger.hold(asked))
        except InsufficientCredit:
            return False
        return True

    async def end(self, place: int, cost: int) -> None:
        await self.ledger.settle(self.open.pop(place), Settlement(cost, ("small", "large")[cost % 2], {}))


async def history(database: Database, ledger: Ledger, steps: Sequence[tuple[str, int, int]]) -> History:
    now = LAST_DAYS.start_s + 3_600
    await ledger.set_time(now, opened_day=0, force=True)

    async def furnish(conn: Connection) -> int:
        account = await ledger.create_account(conn)
        for key_id in (1, 2):
            await ledger.put_key(conn, KeyLimits(account, key_id, version=1))
        return account

    made = History(database, ledger, await database.transact(furnish), now, [], [])
    for verb, which, amount in steps:
        await made.do(verb, which, amount)
    while made.open:
        await made.end(0, 5)
    return made


async def agrees(of: History, month: Month, bill: Bill) -> None:
    """Each figure of the bill, from the entries alone."""
    entries = await of.database.fetch(ENTRIES, of.account)
    first, last = month.first.number, month.next().first.number

    def summed(source: Source | None, *kinds: str, of_days: range) -> int:
        return sum(
            int(row["amount"])
            for row in entries
            if row["source"] == (source or row["source"]) and row["day"] in of_days and row["kind"] in (kinds or KINDS)
        )

    for purse in bill.purses:
        assert purse.opening_nano == summed(purse.source, of_days=range(first))
        assert purse.closing_nano == summed(purse.source, of_days=range(last))
        assert purse.granted_nano == summed(purse.source, "grant", "raise", of_days=range(first, last))
        assert purse.used_nano == -summed(purse.source, "settle", of_days=range(first, last))
        assert purse.expired_nano == -summed(purse.source, "expire", of_days=range(first, last))
        assert purse.reversed_nano == -summed(purse.source, "reverse", of_days=range(first, last))
    used = -summed(None, "settle", of_days=range(first, last))
    for groups in (bill.by_day(), bill.by_model(), bill.by_key(), bill.by_purse()):
        assert sum(group.cost_nano for group in groups) == used == bill.used_nano
    assert sum(top_up.amount_nano for top_up in bill.top_ups) == summed(
        Source.PREPAID, "grant", "raise", of_days=range(first, last)
    )
    assert sum(bill.absorbed.values()) == await of.database.fetchval(BORNE, of.account, first, last - 1)
    count = "select count(*) from ledger.charges where account_id = $1 and day between $2 and $3"
    assert bill.calls == await of.database.fetchval(count, of.account, first, last - 1)


KINDS = ("grant", "raise", "expire", "reverse", "settle")


def test_a_bill_is_what_its_months_entries_say(database_url: str) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(Database.connect(database_url, max_size=3))
        ledger = Ledger(database, clock=SystemClock())
        runner.run(ledger.start())

        async def holds(steps: Sequence[tuple[str, int, int]]) -> None:
            of = await history(database, ledger, steps)
            before, after = [await ledger.bill(of.account, month) for month in (FIRST, FIRST.next())]
            await agrees(of, FIRST, before)
            await agrees(of, FIRST.next(), after)
            assert after.opening_nano == before.closing_nano
            standing = await ledger.grants(of.account, live_only=False)
            if of.now < FIRST.next().end_s:
                assert after.closing_nano == sum(grant.available_nano for grant in standing)

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(STEPS, max_size=30))
        def law(steps: list[tuple[str, int, int]]) -> None:
            runner.run(holds(steps))

        try:
            law()
            assert runner.run(ledger.check()) == []
        finally:
            runner.run(ledger.stop())
            runner.run(database.close())
