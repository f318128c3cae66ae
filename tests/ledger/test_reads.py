import asyncio

import pytest

from freehold.ledger.model import FOREVER_S, GroupBy, Source
from freehold.problems import InvalidRequest, NotFound

from .conftest import DAY, NOON, Bench


async def test_a_balance_shows_each_purse_and_what_is_held_and_used(bench: Bench) -> None:
    await bench.allowance(500)
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(100), 60)
    await bench.hold(40)
    balance = await bench.ledger.balance(bench.account_id)
    purses = {
        purse.source: (purse.granted_nano, purse.available_nano, purse.held_nano, purse.used_nano)
        for purse in balance.purses
    }
    assert purses == {
        Source.ALLOWANCE: (500, 400, 40, 60),
        Source.STRIP: (0, 0, 0, 0),
        Source.PROMO: (0, 0, 0, 0),
        Source.PREPAID: (1_000, 1_000, 0, 0),
    }
    assert (balance.day, balance.reset_at_s, balance.at_s, balance.provisional) == (
        DAY.number, DAY.end_s, NOON, False,
    )  # fmt: skip
    assert balance.available_nano() == 1_400


async def test_a_balance_shows_nothing_that_has_ended_and_posts_nothing(bench: Bench) -> None:
    await bench.allowance(500)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    assert (await bench.ledger.balance(bench.account_id)).available_nano() == 0
    assert await bench.line("breakage:expired") == 0


async def test_accounts_that_are_not_there_are_not_found(bench: Bench) -> None:
    for read in (bench.ledger.balance, bench.ledger.needs_day):
        with pytest.raises(NotFound):
            await read(999)


async def test_charges_come_newest_first_in_pages_that_new_charges_do_not_shift(bench: Bench) -> None:
    await bench.prepaid(1_000)
    for cost in range(1, 8):
        await bench.settle(await bench.hold(10), cost)
    first = await bench.ledger.charges(bench.account_id, limit=3)
    await bench.settle(await bench.hold(10), 9)
    second = await bench.ledger.charges(bench.account_id, limit=3, after=first.next)
    third = await bench.ledger.charges(bench.account_id, limit=3, after=second.next)
    assert [[charge.cost_nano for charge in page.charges] for page in (first, second, third)] == [
        [7, 6, 5], [4, 3, 2], [1],
    ]  # fmt: skip
    assert third.next is None


async def test_charges_are_chosen_by_time_key_and_model(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.put_key(key_id=2, version=1)
    await bench.settle(await bench.hold(10), 1, model="small")
    await bench.ledger.set_time(NOON + 100, opened_day=0)
    await bench.settle(await bench.hold(10, key_id=2), 2, model="small")
    await bench.settle(await bench.hold(10), 3, model="large")

    async def costs(**chosen: object) -> list[int]:
        page = await bench.ledger.charges(bench.account_id, **chosen)  # type: ignore[arg-type]
        return [charge.cost_nano for charge in page.charges]

    assert await costs(from_s=NOON + 100) == [3, 2]
    assert await costs(to_s=NOON + 100) == [1]
    assert await costs(key_id=2) == [2]
    assert await costs(model="small") == [2, 1]
    assert await costs() == [3, 2, 1]


async def test_a_cursor_that_no_page_gave_out_is_refused(bench: Bench) -> None:
    for cursor in ("", "x", "!!", "MTIz", "é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5LjE="):
        with pytest.raises(InvalidRequest):
            await bench.ledger.charges(bench.account_id, after=cursor)


async def test_a_charge_is_read_back_as_it_was_made(bench: Bench) -> None:
    from msgspec.structs import replace

    await bench.allowance(5)
    await bench.prepaid(1_000)
    hold = await bench.hold(10)
    made = await bench.settle(hold, 8, outcome="disconnected", estimated=True)
    assert await bench.ledger.charge(bench.account_id, hold.request_id) == replace(made, remaining={})
    with pytest.raises(NotFound):
        await bench.ledger.charge(bench.account_id + 1, hold.request_id)


async def test_usage_adds_up_by_day_hour_model_and_key(bench: Bench) -> None:
    await bench.allowance(5)
    await bench.prepaid(1_000)
    await bench.put_key(key_id=2, version=1)
    await bench.settle(await bench.hold(10), 8, model="small", usage={"input": 1, "output": 2})
    await bench.settle(await bench.hold(10, key_id=2), 4, model="large", usage={"input": 10})
    await bench.ledger.set_time(DAY.end_s + 3_600, opened_day=0)
    await bench.settle(await bench.hold(10), 2, model="small", usage={})

    async def rows(group_by: GroupBy | str, **between: int) -> list[tuple[object, ...]]:
        found = await bench.ledger.usage(bench.account_id, group_by, **between)
        return [(row.group, row.calls, dict(row.usage), row.cost_nano, dict(row.by_source)) for row in found]

    allowance, prepaid = Source.ALLOWANCE, Source.PREPAID
    assert await rows(GroupBy.DAY) == [
        ("2027-07-01T00:00:00Z", 2, {"input": 11, "output": 2}, 12, {allowance: 5, prepaid: 7}),
        ("2027-07-02T00:00:00Z", 1, {}, 2, {prepaid: 2}),
    ]
    assert await rows("hour") == [
        ("2027-07-01T12:00:00Z", 2, {"input": 11, "output": 2}, 12, {allowance: 5, prepaid: 7}),
        ("2027-07-02T01:00:00Z", 1, {}, 2, {prepaid: 2}),
    ]
    assert await rows("model") == [
        ("large", 1, {"input": 10}, 4, {prepaid: 4}),
        ("small", 2, {"input": 1, "output": 2}, 10, {allowance: 5, prepaid: 5}),
    ]
    assert [row[:2] for row in await rows("key")] == [("1", 2), ("2", 1)]
    assert [row[:2] for row in await rows("key", from_s=NOON + 1)] == [("1", 1)]
    assert await rows("day", to_s=NOON) == []


async def test_what_keys_hold_is_read_at_ledger_time(bench: Bench) -> None:
    await bench.prepaid(1_000)
    await bench.settle(await bench.hold(10), 8)
    await bench.hold(5)
    (today,) = await bench.ledger.key_spend(bench.account_id)
    assert (today.day_used_nano, today.day_held_nano, today.total_used_nano, today.total_held_nano) == (8, 5, 8, 5)
    await bench.ledger.set_time(DAY.end_s, opened_day=0)
    (tomorrow,) = await bench.ledger.key_spend(bench.account_id)
    assert (tomorrow.day_used_nano, tomorrow.day_held_nano, tomorrow.total_used_nano) == (0, 0, 8)


async def test_reads_go_on_beside_writes(bench: Bench) -> None:
    await bench.prepaid(100_000)

    async def call() -> None:
        for _ in range(5):
            await bench.settle(await bench.hold(10), 7)

    async def read() -> None:
        for _ in range(10):
            purse = (await bench.ledger.balance(bench.account_id)).purses[-1]
            assert purse.granted_nano == purse.available_nano + purse.held_nano + purse.used_nano == 100_000

    await asyncio.gather(*(call() for _ in range(16)), read())


async def test_a_grant_that_never_ends_is_shown(bench: Bench) -> None:
    assert (await bench.prepaid(1)).expires_at_s == FOREVER_S
