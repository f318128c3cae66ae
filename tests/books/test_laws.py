"""The ledger against a model of a few lines, over whatever sequence of verbs Hypothesis finds."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from freehold.clock import Day, Month, SystemClock
from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, PRIORITY, Charge, Hold, HoldRequest, KeyLimits, Settlement, Source
from freehold.ledger.problems import InsufficientCredit, KeyLimitReached
from freehold.problems import Conflict, NotFound

T = TypeVar("T")
FIRST_DAY = Day(21_000)
AMOUNTS = st.integers(1, 1_000)


@dataclass
class ModelGrant:
    id: int
    source: Source
    external_id: str
    amount: int
    available: int
    starts: int
    ends: int
    held: int = 0
    absorbed: int = 0

    def __post_init__(self) -> None:
        self.first = self.amount


class Books(RuleBasedStateMachine):
    """One account with one key, at one worker."""

    runner: ClassVar[asyncio.Runner]
    database: ClassVar[Database]
    ledger: ClassVar[Ledger]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(
        day_cap=st.none() | st.integers(0, 3_000),
        month_cap=st.none() | st.integers(0, 4_500),
        total_cap=st.none() | st.integers(0, 6_000),
    )
    def begin(self, day_cap: int | None, month_cap: int | None, total_cap: int | None) -> None:
        self.now = FIRST_DAY.start_s + 43_200
        self.day_cap, self.month_cap, self.total_cap = day_cap, month_cap, total_cap
        self.grants: list[ModelGrant] = []
        self.open: list[Hold] = []
        self.settled: list[tuple[Hold, Settlement, Charge]] = []
        self.posted: list[tuple[int, str]] = []
        self.used: dict[int, int] = {}
        self.revenue = self.overage = self.breakage = self.reorg = 0
        self.names = 0

        async def furnish() -> int:
            await self.ledger.set_time(self.now, opened_day=0, force=True)
            async with self.database.transaction() as conn:
                account_id = await self.ledger.create_account(conn)
                await self.ledger.put_key(
                    conn,
                    KeyLimits(
                        account_id, 1, 1, day_cap_nano=day_cap, month_cap_nano=month_cap, total_cap_nano=total_cap
                    ),
                )
            return account_id

        self.account = self.run(furnish())

    @property
    def day(self) -> Day:
        return Day.of(self.now)

    def name(self) -> str:
        self.names += 1
        return f"evt:{self.names}"

    def live(self) -> list[ModelGrant]:
        ordered = sorted(self.grants, key=lambda g: (PRIORITY[g.source], g.ends, g.starts, g.id))
        return [g for g in ordered if g.starts <= self.now < g.ends]

    def room(self, day: int | None = None) -> int:
        """What the key's caps leave to a call of `day`, or of today."""
        of_day = self.day.number if day is None else day
        month = Month.of(Day(of_day).start_s)
        rooms = [10**18]
        for cap, days in (
            (self.day_cap, range(of_day, of_day + 1)),
            (self.month_cap, range(month.first.number, month.next().first.number)),
            (self.total_cap, range(10**6)),
        ):
            if cap is not None:
                used = sum(cost for day, cost in self.used.items() if day in days)
                rooms.append(cap - used - sum(h.amount_nano for h in self.open if h.day in days))
        return max(0, min(rooms))

    # ---- credit

    @rule(amount=AMOUNTS, source=st.sampled_from([Source.PREPAID, Source.PROMO]), hours=st.integers(1, 60))
    def grant(self, amount: int, source: Source, hours: int) -> None:
        ends = FOREVER_S if source is Source.PREPAID else self.now + hours * 3_600
        made = self.run(
            self.ledger.grant(self.account, source, amount, name := self.name(), starts_at_s=0, expires_at_s=ends)
        )
        self.grants.append(ModelGrant(made.id, source, name, amount, amount, 0, ends))

    @rule(to=st.integers(0, 1_000), opens=st.booleans())
    def raise_today(self, to: int, opens: bool) -> None:
        verb = self.ledger.open_day if opens else self.ledger.raise_grant
        made = self.run(verb(self.account, self.day.number, Source.ALLOWANCE, to, name := self.name()))
        standing = next((g for g in self.grants if g.source is Source.ALLOWANCE and g.starts == self.day.start_s), None)
        if standing is None:
            assert (made is None) == (to == 0)
            if made is not None:
                self.grants.append(
                    ModelGrant(made.id, Source.ALLOWANCE, name, to, to, self.day.start_s, self.day.end_s)
                )
            return
        more = max(0, to - (standing.amount - standing.absorbed))
        good = min(more, standing.absorbed)
        standing.amount += more - good
        standing.available += more - good
        standing.absorbed -= good
        self.reorg -= good

    @rule(pick=st.integers(0, 100), to=st.integers(0, 1_000))
    def reverse(self, pick: int, to: int) -> None:
        if not self.grants:
            return
        grant = self.grants[pick % len(self.grants)]
        taken = self.run(self.ledger.reverse(self.account, grant.external_id, to, name := self.name()))
        less = max(0, grant.amount - grant.absorbed - to)
        assert taken == min(less, grant.available)
        grant.amount -= taken
        grant.available -= taken
        grant.absorbed += less - taken
        self.reorg += less - taken
        if less:
            assert self.run(self.ledger.reverse(self.account, grant.external_id, to, name)) == taken

    @rule(pick=st.integers(0, 100), more=st.integers(0, 1))
    def grant_again(self, pick: int, more: int) -> None:
        bought = [g for g in self.grants if g.source is Source.PREPAID]
        if not bought:
            return
        grant = bought[pick % len(bought)]
        amount = grant.first + more
        again = self.ledger.grant(
            self.account, Source.PREPAID, amount, grant.external_id, starts_at_s=0, expires_at_s=FOREVER_S
        )
        if amount == grant.first:
            assert self.run(again).id == grant.id
        else:
            with pytest.raises(Conflict):
                self.run(again)

    # ---- calls

    @rule(least=st.integers(0, 1_500), more=st.integers(0, 1_500))
    def hold(self, least: int, more: int) -> None:
        amount = least + more
        live = self.live()
        left = min(self.room(), sum(g.available for g in live))
        request = HoldRequest(
            self.account, 1, uuid4(), amount, least, price_version=0, key_version=1, day_unopened_ok=True
        )
        try:
            hold = self.run(self.ledger.hold(request))
        except KeyLimitReached:
            assert least > self.room()
            return
        except InsufficientCredit:
            assert least <= self.room() and least > sum(g.available for g in live)
            return
        assert hold.amount_nano == max(least, min(amount, left // 8))
        assert hold == self.run(self.ledger.hold(request))
        need, legs = hold.amount_nano, []
        for grant in live:
            part = min(need, grant.available)
            if part:
                legs.append((grant.id, part))
                grant.available -= part
                grant.held += part
                need -= part
        assert [(leg.grant_id, leg.amount_nano) for leg in hold.legs] == legs
        self.open.append(hold)

    @rule(pick=st.integers(0, 100), more=AMOUNTS)
    def extend(self, pick: int, more: int) -> None:
        if not self.open:
            return
        at = pick % len(self.open)
        hold, live = self.open[at], self.live()
        try:
            grown = self.run(self.ledger.extend(hold, more, day_unopened_ok=True))
        except KeyLimitReached:
            assert more > self.room(hold.day)
            return
        except InsufficientCredit:
            assert more <= self.room(hold.day) and more > sum(g.available for g in live)
            return
        assert more <= self.room(hold.day)
        assert grown == self.run(self.ledger.extend(hold, more, day_unopened_ok=True))
        legs = {leg.grant_id: leg.amount_nano for leg in hold.legs}
        need = more
        for grant in live:
            part = min(need, grant.available)
            if part:
                legs[grant.id] = legs.get(grant.id, 0) + part
                grant.available -= part
                grant.held += part
                need -= part
        assert [(leg.grant_id, leg.amount_nano) for leg in grown.legs] == list(legs.items())
        assert (grown.amount_nano, grown.day, grown.step) == (hold.amount_nano + more, hold.day, hold.step + 1)
        self.open[at] = grown

    @rule(pick=st.integers(0, 100), percent=st.integers(0, 150))
    def settle(self, pick: int, percent: int) -> None:
        if not self.open:
            return
        hold = self.open.pop(pick % len(self.open))
        settlement = Settlement(hold.amount_nano * percent // 100, "small", {"input": percent})
        charge = self.run(self.ledger.settle(hold, settlement))
        paid = self.give_back(hold, min(settlement.cost_nano, hold.amount_nano))
        assert (charge.cost_nano, charge.absorbed_nano) == (paid, settlement.cost_nano - paid)
        assert sum(leg.amount_nano for leg in charge.legs) == paid
        self.used[hold.day] = self.used.get(hold.day, 0) + paid
        self.revenue += settlement.cost_nano
        self.overage += charge.absorbed_nano
        self.settled.append((hold, settlement, charge))

    @rule(pick=st.integers(0, 100))
    def release(self, pick: int) -> None:
        if not self.open:
            return
        hold = self.open.pop(pick % len(self.open))
        self.run(self.ledger.release(hold))
        self.give_back(hold, 0)
        with pytest.raises(NotFound):
            self.run(self.ledger.settle(hold, Settlement(1, "small", {})))

    @rule(pick=st.integers(0, 100), other=st.booleans())
    def settle_again(self, pick: int, other: bool) -> None:
        if not self.settled:
            return
        hold, settlement, charge = self.settled[pick % len(self.settled)]
        if other:
            with pytest.raises(Conflict):
                self.run(self.ledger.settle(hold, Settlement(settlement.cost_nano + 1, "small", settlement.usage)))
        else:
            again = self.run(self.ledger.settle(hold, settlement))
            assert (again.cost_nano, again.legs) == (charge.cost_nano, charge.legs)

    def of(self, grant_id: int) -> ModelGrant:
        return next(g for g in self.grants if g.id == grant_id)

    def give_back(self, hold: Hold, cost: int) -> int:
        """Take `cost` from the hold's legs and return the rest; what was taken."""
        rest = cost
        for leg in hold.legs:
            grant = self.of(leg.grant_id)
            part = min(rest, leg.amount_nano)
            rest -= part
            grant.held -= leg.amount_nano
            if self.now < grant.ends:
                grant.available += leg.amount_nano - part
            else:
                self.breakage += leg.amount_nano - part
        return cost - rest

    # ---- time

    @rule(minutes=st.sampled_from([1, 60, 600, 1_440, 4_000, 30_000]))
    def pass_time(self, minutes: int) -> None:
        self.now += minutes * 60
        self.run(self.ledger.set_time(self.now, opened_day=0))

    @rule()
    def expire(self) -> None:
        self.run(self.ledger.expire())
        for grant in self.grants:
            if grant.ends <= self.now:
                self.breakage += grant.available
                grant.available = 0

    # ---- laws

    @invariant()
    def balances_are_the_models(self) -> None:
        if not hasattr(self, "account"):
            return
        standing = self.run(self.ledger.grants(self.account, live_only=False))
        assert {(g.id, g.amount_nano, g.available_nano, g.held_nano) for g in standing} == {
            (g.id, g.amount, g.available, g.held) for g in self.grants
        }

    @invariant()
    def lines_are_the_models(self) -> None:
        if not hasattr(self, "account"):
            return
        rows = self.run(
            self.database.fetch(
                "select line, sum(amount)::bigint as amount from ledger.entries where account_id = $1 group by 1",
                self.account,
            )
        )
        lines = {row["line"]: row["amount"] for row in rows}
        assert sum(lines.values()) == 0
        assert [
            lines.get(line, 0) for line in ("revenue:usage", "absorbed:overage", "breakage:expired", "absorbed:reorg")
        ] == [self.revenue, -self.overage, self.breakage, -self.reorg]

    def teardown(self) -> None:
        if hasattr(self, "account"):
            month, opening = Month.of(FIRST_DAY.start_s), 0
            while month <= Month.of(self.now):
                bill = self.run(self.ledger.bill(self.account, month))
                days = range(month.first.number, month.next().first.number)
                assert bill.used_nano == sum(cost for day, cost in self.used.items() if day in days)
                assert bill.opening_nano == opening
                opening, month = bill.closing_nano, month.next()
            assert opening == sum(grant.available + grant.held for grant in self.grants)
            assert self.run(self.ledger.check()) == []


def test_the_ledger_is_its_model(database_url: str) -> None:
    with asyncio.Runner() as runner:
        Books.runner = runner
        Books.database = runner.run(Database.connect(database_url, max_size=3))
        Books.ledger = Ledger(Books.database, clock=SystemClock())
        runner.run(Books.ledger.start())
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                Books,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    database=None,
                ),
            )
        finally:
            runner.run(Books.ledger.stop())
            runner.run(Books.database.close())
