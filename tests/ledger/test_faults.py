"""Callers that leave, connections that break, answers that get lost, workers that lapse."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

import freehold
from freehold.clock import SystemClock
from freehold.db import Connection, Database
from freehold.ledger import ledger as ledger_module
from freehold.ledger.jobs import once
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold, HoldRequest, Source
from freehold.ledger.problems import WorkerFenced
from freehold.problems import LedgerUnavailable

from .conftest import DAY, NOON, Bench, settlement

BATCHES = "select pid from pg_stat_activity where datname = current_database() and query like '%_batch(%' and pid <> pg_backend_pid()"

EXPIRING = """
select pid from pg_stat_activity
where datname = current_database() and query like '%expire(%' and wait_event_type = 'Lock' and pid <> pg_backend_pid()
"""


@asynccontextmanager
async def locked(bench: Bench) -> AsyncIterator[None]:
    """Somebody else has the account's row: batches that touch it wait."""
    async with bench.database.transaction() as conn:
        await conn.execute("select 1 from ledger.accounts where id = $1 for update", bench.account_id)
        yield


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Until it holds in the database, which signals nothing and so is asked."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def until_waiting(bench: Bench) -> None:
    """Until a batch waits for a lock."""
    await until(lambda: bench.database.fetch(BATCHES + " and wait_event_type = 'Lock'"))


async def open_holds(bench: Bench) -> int:
    return int(await bench.database.fetchval("select count(*) from ledger.holds where state = 'open'"))


class LosesAnswers(Ledger):
    """A ledger whose connection breaks right after PostgreSQL committed, as often as `losses` says."""

    losses = 0
    commits = 0

    async def _hold_batch(
        self, connection: Connection, epoch: int, requests: Sequence[HoldRequest]
    ) -> list[Hold | Exception]:
        results = await super()._hold_batch(connection, epoch, requests)
        self._lose()
        return results

    async def _send_endings(self, connection: Connection, endings: Sequence[object]) -> list[asyncpg.Record]:
        rows = await super()._send_endings(connection, endings)  # type: ignore[arg-type]
        self._lose()
        return rows

    def _lose(self) -> None:
        self.commits += 1
        if self.losses:
            self.losses -= 1
            raise ConnectionResetError("lost after the commit")


async def test_a_caller_that_is_cancelled_while_its_hold_is_decided_leaves_none_behind(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with locked(bench):
        call = asyncio.create_task(bench.hold(100))
        await until_waiting(bench)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
    await bench.ledger.stop()
    assert await bench.database.fetchval("select state from ledger.holds") == "released"
    assert (await bench.available(), await bench.held()) == (1_000, 0)


async def test_a_caller_that_is_cancelled_in_the_queue_never_holds(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with locked(bench):
        first = asyncio.create_task(bench.hold(100))
        await until_waiting(bench)
        queued = asyncio.create_task(bench.hold(200))
        await asyncio.sleep(0)
        queued.cancel()
        with suppress(asyncio.CancelledError):
            await queued
    assert (await first).amount_nano == 100
    await bench.ledger.stop()
    assert await bench.database.fetchval("select count(*) from ledger.holds") == 1


class AnswersTooLate(Ledger):
    """A ledger whose caller is cancelled between its hold's answer and its own waking."""

    caller: "asyncio.Task[Hold] | None" = None

    async def _hold_batch(
        self, connection: Connection, epoch: int, requests: Sequence[HoldRequest]
    ) -> list[Hold | Exception]:
        results = await super()._hold_batch(connection, epoch, requests)
        if self.caller is not None:
            asyncio.get_running_loop().call_soon(self.caller.cancel)
        return results


async def test_a_caller_that_is_cancelled_with_its_hold_in_hand_has_it_released(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with AnswersTooLate(bench.database) as ledger:
        ledger.caller = asyncio.create_task(ledger.hold(bench.request(100)))
        with pytest.raises(asyncio.CancelledError):
            await ledger.caller
    assert await bench.database.fetchval("select state from ledger.holds") == "released"


async def test_a_settlement_is_made_although_its_caller_was_cancelled(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(100)
    async with locked(bench):
        call = asyncio.create_task(bench.settle(hold, 70))
        await until_waiting(bench)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
    await bench.ledger.stop()
    assert (await bench.ledger.charge(bench.account_id, hold.request_id)).cost_nano == 70


async def test_a_settlement_is_made_although_its_caller_was_cancelled_in_the_queue(bench: Bench) -> None:
    await bench.prepaid(1_000)
    first, second = await bench.hold(100), await bench.hold(100)
    async with locked(bench):
        ahead = asyncio.create_task(bench.settle(first, 70))
        await until_waiting(bench)
        queued = asyncio.create_task(bench.settle(second, 80))
        await asyncio.sleep(0)
        queued.cancel()
        with suppress(asyncio.CancelledError):
            await queued
    await ahead
    await bench.ledger.stop()
    assert (await bench.ledger.charge(bench.account_id, second.request_id)).cost_nano == 80


async def test_a_lost_answer_is_asked_for_again_and_nothing_happens_twice(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with LosesAnswers(bench.database) as ledger:
        ledger.losses = 2
        hold = await ledger.hold(bench.request(100))
        ledger.losses = 2
        charge = await ledger.settle(hold, settlement(60))
        assert ledger.commits == 6
    assert (hold.amount_nano, charge.cost_nano) == (100, 60)
    assert (await bench.available(), await bench.held()) == (940, 0)


async def test_a_hold_whose_outcome_stays_unknown_is_given_back(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with LosesAnswers(bench.database, patience_s=0.0) as ledger:
        ledger.losses = 1
        with pytest.raises(LedgerUnavailable):
            await ledger.hold(bench.request(100))
    assert (await bench.available(), await bench.held()) == (1_000, 0)


async def test_batches_whose_backends_are_killed_are_sent_again(bench: Bench) -> None:
    await bench.prepaid(10_000)

    async def caller() -> int:
        cost = 0
        for _ in range(12):
            cost += (await bench.settle(await bench.hold(10), 7)).cost_nano
        return cost

    callers = [asyncio.create_task(caller()) for _ in range(16)]
    killed = 0
    for _ in range(6):
        killed += len(await bench.database.fetch(f"select pg_terminate_backend(pid) from ({BATCHES}) b"))
        await asyncio.sleep(0.01)
    assert sum(await asyncio.gather(*callers)) == 16 * 12 * 7
    assert killed > 0
    assert (await bench.available(), await bench.held()) == (10_000 - 16 * 12 * 7, 0)


async def test_a_backend_killed_while_its_batch_waits_is_replaced(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with locked(bench):
        call = asyncio.create_task(bench.hold(100))
        await until_waiting(bench)
        await bench.database.execute(f"select pg_terminate_backend(pid) from ({BATCHES}) b")
    assert (await call).amount_nano == 100
    assert await open_holds(bench) == 1


async def test_while_postgresql_refuses_connections_holds_are_unavailable_and_then_work_again(
    bench: Bench, postgres_url: str
) -> None:
    await bench.prepaid(1_000)
    name = await bench.database.fetchval("select current_database()")
    outside = await asyncpg.connect(postgres_url)
    async with Ledger(bench.database, clock=SystemClock(), patience_s=0.2) as ledger:
        try:
            await outside.execute(f"alter database {name} allow_connections false")
            await outside.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
            with pytest.raises(LedgerUnavailable):
                await ledger.hold(bench.request(100))
        finally:
            await outside.execute(f"alter database {name} allow_connections true")
            await outside.close()
        assert (await ledger.hold(bench.request(100))).amount_nano == 100


async def test_an_account_that_somebody_has_locked_does_not_stop_the_others(bench: Bench) -> None:
    from .conftest import new_account

    await bench.prepaid(1_000)
    other = Bench(bench.ledger, bench.database, await new_account(bench.ledger, bench.database))
    await other.prepaid(1_000)
    async with locked(bench):
        stuck = asyncio.create_task(bench.hold(100))
        free = asyncio.create_task(other.hold(100))
        assert (await free).amount_nano == 100
        with pytest.raises(LedgerUnavailable):
            await stuck
    await bench.ledger.stop()
    assert await bench.held() == 0


async def test_one_bad_item_of_a_batch_fails_alone(bench: Bench) -> None:
    await bench.prepaid(1_000)
    results = await asyncio.gather(
        *(bench.hold(10) for _ in range(5)), bench.hold(10, price_version=2**40), bench.hold(10), return_exceptions=True
    )
    assert [isinstance(result, Hold) for result in results] == [True] * 5 + [False, True]
    assert isinstance(results[5], LedgerUnavailable)
    assert await bench.held() == 60


async def test_a_stopped_ledger_takes_no_calls(bench: Bench) -> None:
    await bench.ledger.stop()
    with pytest.raises(LedgerUnavailable):
        await bench.hold(1)


async def lapse(database: Database, epoch: int) -> None:
    """As if that worker had been silent for long."""
    await database.execute("update ledger.epochs set lapsed_at = clock_timestamp() where id = $1", epoch)


async def test_a_dead_workers_hold_is_given_back_and_its_estimate_absorbed(bench: Bench) -> None:
    await bench.prepaid(1_000)
    dead = Ledger(bench.database)
    await dead.start()
    hold = await dead.hold(bench.request(300))
    alive = await bench.hold(50)
    await lapse(bench.database, dead.epoch)
    assert await bench.ledger.sweep() == 1
    assert (await bench.available(), await bench.held()) == (950, 50)
    charge = await bench.ledger.charge(bench.account_id, hold.request_id)
    assert (charge.cost_nano, charge.absorbed_nano, charge.outcome, charge.estimated) == (0, 300, "unsettled", True)
    assert await bench.line("absorbed:unsettled") == -300
    assert await bench.line("revenue:usage") == 300
    await bench.settle(alive, 50)
    await dead.stop()


async def test_a_worker_killed_under_load_loses_and_doubles_nothing(bench: Bench, database_url: str) -> None:
    await bench.prepaid(10_000_000)
    doomed = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("drain.py")),
        database_url,
        str(bench.account_id),
        "forever",
        env={**os.environ, "PYTHONPATH": str(Path(freehold.__file__).parents[1])},
    )
    await until(lambda: bench.database.fetchval("select count(*) > 200 from ledger.charges"))
    doomed.kill()
    await doomed.wait()
    await until(lambda: bench.database.fetchval(f"select count(*) = 0 from ({BATCHES} and state = 'active') b"))
    await bench.database.execute(
        "update ledger.epochs set lapsed_at = clock_timestamp() where id <> $1", bench.ledger.epoch
    )
    await once(bench.ledger)
    charged = await bench.database.fetchval("select sum(cost)::bigint from ledger.charges")
    assert (await bench.available() + charged, await bench.held()) == (10_000_000, 0)


async def swept(bench: Bench, up: str) -> int:
    """How many holds are swept on a server that has been up for so long."""
    async with bench.database.transaction() as conn:
        await conn.execute(
            "create schema aged; create function aged.pg_postmaster_start_time() returns timestamptz language sql stable"
            f" as $$ select clock_timestamp() - interval '{up}' $$; set local search_path = aged, pg_catalog, public"
        )
        found = await conn.fetchval("select ledger.sweep(3600, 500)")
        await conn.execute("drop schema aged cascade")
    return int(found)


async def test_a_hold_that_its_worker_forgot_is_given_back_two_minutes_after_its_deadline(bench: Bench) -> None:
    await bench.prepaid(1_000)
    late = await bench.hold(300)
    other = await bench.hold(200)
    await bench.database.execute(
        "update ledger.holds set deadline_at = case when request_id = $1 then clock_timestamp() - interval '121 s'"
        " else clock_timestamp() end",
        late.request_id,
    )
    assert await swept(bench, up="1 hour") == 1
    assert await bench.available() == 800
    charge = await bench.ledger.charge(bench.account_id, late.request_id)
    assert (charge.cost_nano, charge.absorbed_nano, charge.outcome) == (0, 300, "unsettled")
    assert (await bench.settle(other, 50)).cost_nano == 50
    assert await bench.ledger.check() == []


async def test_after_postgresql_was_down_its_worker_has_two_minutes_to_settle(bench: Bench) -> None:
    await bench.prepaid(1_000)
    hold = await bench.hold(300)
    await bench.database.execute("update ledger.holds set deadline_at = clock_timestamp() - interval '1 hour'")
    assert await swept(bench, up="5 s") == 0
    assert (await bench.settle(hold, 120)).cost_nano == 120


class GivesUp(Ledger):
    """A ledger that loses its connection with its first holds, and waits for no second try."""

    lost = False

    async def _send_holds(self, connection: Connection, requests: Sequence[object]) -> list[Hold | Exception]:
        if not self.lost:
            self.lost = True
            raise ConnectionResetError
        return await super()._send_holds(connection, requests)  # type: ignore[arg-type]


async def test_a_hold_that_begins_when_its_caller_has_given_it_up_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "LATE_S", range(1, 60))
    await bench.prepaid(1_000)
    request = bench.request(300)
    async with GivesUp(bench.database, patience_s=0) as hasty:
        with pytest.raises(LedgerUnavailable):
            await hasty.hold(request)
        async with bench.database.transaction() as conn:
            (late,) = await hasty._hold_batch(conn, hasty.epoch, [request])
        assert isinstance(late, Hold)
        async with asyncio.timeout(60):
            await until(lambda: bench.database.fetchval("select state = 'released' from ledger.holds"))
    assert await bench.available() == 1_000


async def test_a_lapsed_worker_that_comes_back_settles_nothing(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with Ledger(bench.database) as sleeper:
        hold = await sleeper.hold(bench.request(300))
        await lapse(bench.database, sleeper.epoch)
        await bench.ledger.sweep()
        charge = await sleeper.settle(hold, settlement(120))
    assert (charge.cost_nano, charge.absorbed_nano, charge.outcome) == (0, 300, "unsettled")
    assert await bench.available() == 1_000


async def test_a_lapsed_worker_settles_what_was_not_swept_yet(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with Ledger(bench.database) as sleeper:
        hold = await sleeper.hold(bench.request(300))
        await lapse(bench.database, sleeper.epoch)
        assert (await sleeper.settle(hold, settlement(120))).cost_nano == 120
    assert await bench.ledger.sweep() == 0


async def test_a_lapsed_epoch_opens_no_hold(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await lapse(bench.database, bench.ledger.epoch)
    async with bench.database.transaction() as conn:
        (result,) = await bench.ledger._hold_batch(conn, bench.ledger.epoch, [bench.request(10)])
    assert isinstance(result, WorkerFenced)
    assert await open_holds(bench) == 0


async def test_a_lapsed_worker_holds_again_in_a_new_epoch(bench: Bench) -> None:
    await bench.prepaid(1_000)
    old = bench.ledger.epoch
    await lapse(bench.database, old)
    hold = await bench.hold(100)
    assert bench.ledger.epoch > old
    assert await bench.database.fetchval("select epoch from ledger.holds") == bench.ledger.epoch
    assert await bench.ledger.sweep() == 0
    await bench.settle(hold, 1)


async def test_a_heartbeat_that_finds_its_epoch_lapsed_begins_a_new_one(bench: Bench) -> None:
    old = bench.ledger.epoch
    await bench.ledger.beat()
    assert bench.ledger.epoch == old
    await lapse(bench.database, old)
    await bench.ledger.beat()
    assert bench.ledger.epoch > old


async def test_only_a_silent_workers_epoch_lapses(bench: Bench) -> None:
    await bench.prepaid(1_000)
    silent = Ledger(bench.database, beat_s=3600)
    await silent.start()
    await silent.hold(bench.request(300))
    await bench.database.execute(
        "update ledger.epochs set beat_at = clock_timestamp() + interval '1 hour' where id = $1", bench.ledger.epoch
    )
    assert await bench.ledger.sweep(lapse_s=3600) == 0
    assert await bench.ledger.sweep(lapse_s=0) == 1
    lapsed = await bench.database.fetch("select id from ledger.epochs where lapsed_at is not null")
    assert [row["id"] for row in lapsed] == [silent.epoch]
    await silent.stop()


async def test_nobody_lapses_for_the_time_that_postgresql_was_down(bench: Bench) -> None:
    await bench.database.execute("update ledger.epochs set beat_at = clock_timestamp() - interval '1 hour'")
    up_s = await bench.database.fetchval(
        "select extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8"
    )
    await bench.ledger.sweep(lapse_s=up_s + 600)
    assert await bench.database.fetchval("select lapsed_at from ledger.epochs") is None


async def test_a_heartbeat_is_kept_while_the_ledger_runs(bench: Bench) -> None:
    async with Ledger(bench.database, beat_s=0.005) as beating:
        await until(
            lambda: bench.database.fetchval(
                "select beat_at > started_at + interval '20 ms' from ledger.epochs where id = $1", beating.epoch
            )
        )


async def test_a_worker_that_stops_leaves_its_open_holds_to_the_sweeper(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with Ledger(bench.database) as stopped:
        await stopped.hold(bench.request(300))
    assert await bench.ledger.sweep() == 1
    assert await bench.available() == 1_000


async def test_a_swept_hold_of_an_ended_grant_becomes_breakage(bench: Bench) -> None:
    await bench.allowance(500)
    async with Ledger(bench.database) as dead:
        await dead.hold(bench.request(300))
    await bench.ledger.set_time(21_001 * 86_400, opened_day=0)
    assert await once(bench.ledger) == (1, 1)
    assert await bench.line("breakage:expired") == 500
    assert (await bench.available(), await bench.held()) == (0, 0)


async def test_a_sweep_and_a_settlement_that_meet_post_once(bench: Bench) -> None:
    await bench.prepaid(10_000)
    async with Ledger(bench.database) as sleeper:
        holds = [await sleeper.hold(bench.request(100)) for _ in range(30)]
        await lapse(bench.database, sleeper.epoch)
        results = await asyncio.gather(
            *(sleeper.settle(hold, settlement(100)) for hold in holds), bench.ledger.sweep(limit=10)
        )
    swept = results[-1]
    assert isinstance(swept, int)
    assert await bench.available() == 10_000 - 100 * (30 - swept)


async def test_sweeping_goes_in_steps(bench: Bench) -> None:
    await bench.prepaid(1_000)
    async with Ledger(bench.database) as dead:
        for _ in range(5):
            await dead.hold(bench.request(10))
    assert [await bench.ledger.sweep(limit=2) for _ in range(4)] == [2, 2, 1, 0]


class RefusesTheSecond(Database):
    """A database whose server takes one more connection, and no other."""

    left = 1

    async def dedicated(self) -> asyncpg.Connection:
        if not self.left:
            raise asyncpg.TooManyConnectionsError("sorry, too many clients already")
        self.left -= 1
        return await super().dedicated()


async def test_a_start_that_fails_leaves_nothing_running(bench: Bench) -> None:
    before = asyncio.all_tasks()
    ledger = Ledger(RefusesTheSecond(bench.database.pool, bench.database.url))
    with pytest.raises(LedgerUnavailable):
        await ledger.start()
    assert asyncio.all_tasks() == before
    with pytest.raises(LedgerUnavailable):
        await ledger.hold(bench.request(1))


async def test_what_waits_for_an_account_is_dated_when_it_has_it(bench: Bench) -> None:
    await bench.ledger.grant(bench.account_id, Source.PROMO, 500, "promo", starts_at_s=0, expires_at_s=NOON)
    async with locked(bench):
        expiring = asyncio.create_task(bench.ledger.expire())
        async with asyncio.timeout(60):
            await until(lambda: bench.database.fetch(EXPIRING))
        await bench.ledger.set_time(NOON + 7, opened_day=DAY.number - 1)
    assert await expiring == 1
    assert await bench.database.fetchval("select at_s from ledger.postings where kind = 'expire'") == NOON + 7
