"""Chain events into grants, on a real chain and a real ledger."""

import asyncio
import uuid
from dataclasses import replace

import pytest
from eth_utils.address import to_checksum_address
from tests.allowance.conftest import Office
from tests.chain.lab import START_S

from freehold.chain.reader import LogReader
from freehold.chain.store import Store
from freehold.clock import Day
from freehold.db import statements
from freehold.ledger.model import HoldRequest, KeyLimits, Settlement, Source
from freehold.ledger.problems import DayUnopened, InsufficientCredit
from freehold.problems import NotFound

ALICE = to_checksum_address("0x" + "a1" * 20)
BOB = to_checksum_address("0x" + "b0" * 20)
OTHER_OPERATOR = to_checksum_address("0x" + "0e" * 20)
TODAY = Day.of(START_S).number
DIEM = 10**18
USD = 10**9


async def spend(office: Office, account_id: int, amount: int, *, key_id: int = 1) -> None:
    """One call that costs exactly `amount`."""
    async with office.database.transaction() as connection:
        await office.ledger.put_key(connection, KeyLimits(account_id, key_id, version=1))
    hold = await office.ledger.hold(
        HoldRequest(account_id, key_id, uuid.uuid4(), amount, amount, price_version=0, key_version=1)
    )
    await office.ledger.settle(hold, Settlement(amount, "scripted", {}))


async def test_a_stake_grants_its_day_at_once_and_each_later_day_when_it_opens(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM // 4, onward=DIEM)
    await office.confirm()
    assert await office.granted(account) == {TODAY: USD // 4}
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    await office.allowance.refresh(account)
    assert await office.granted(account) == {TODAY: USD // 4, TODAY + 1: USD}
    assert await office.available(account) == USD
    await office.close_books()


async def test_an_event_without_enough_confirmations_grants_nothing(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.anvil.mine()
    await office.poll()
    assert await office.granted(account) == {}


async def test_several_events_of_a_day_raise_one_grant_to_the_floor_of_the_newest(office: Office) -> None:
    account = await office.register.open(ALICE)
    for amount in (USD - 1, 2 * USD - 2, 3 * USD + 5):  # base units below one nano-USD each
        await office.emitter.allowance(ALICE, day=TODAY, today=amount, onward=0)
        await office.confirm()
    assert await office.granted(account) == {TODAY: 3}


async def test_a_day_opens_only_when_a_block_of_it_has_enough_confirmations(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.anvil.mine()
    await office.poll()
    await office.allowance.refresh(account)
    time = await office.ledger.time()
    assert (time.at_s, time.opened_day) == (Day(TODAY + 1).start_s, TODAY)
    assert await office.granted(account) == {TODAY: USD}
    with pytest.raises(InsufficientCredit):
        await spend(office, account, 1)
    await office.anvil.mine()
    await office.poll()
    with pytest.raises(DayUnopened):
        await spend(office, account, 1)
    await office.allowance.refresh(account)
    await spend(office, account, USD)
    assert await office.available(account) == 0


async def test_an_account_that_appears_between_two_days_is_granted_neither_before_the_new_one_opens(
    office: Office,
) -> None:
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.poll()
    account = await office.register.open(ALICE)
    await office.allowance.refresh(account)
    assert await office.granted(account) == {}
    await office.confirm()
    await office.allowance.refresh(account)
    assert await office.granted(account) == {TODAY + 1: USD}


async def test_a_stake_redirected_two_seconds_before_midnight_is_granted_by_one_operator_only(office: Office) -> None:
    account = await office.register.open(ALICE)
    tomorrow = Day(TODAY + 1)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    # The redirect: this operator loses the next day, another one gets it.
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=0, mine=False)
    await office.emitter.allowance(ALICE, day=TODAY, today=0, onward=DIEM, operator=OTHER_OPERATOR, mine=False)
    await office.anvil.mine(at_s=tomorrow.start_s - 2)
    await office.anvil.mine(at_s=tomorrow.start_s)
    await office.anvil.mine()
    await office.poll()
    await office.allowance.refresh(account)
    await office.confirm()
    await office.allowance.refresh(account)
    assert await office.granted(account) == {TODAY: USD}
    assert (await office.ledger.time()).opened_day == tomorrow.number


async def test_a_stake_at_another_operator_grants_nothing_here(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM, operator=OTHER_OPERATOR)
    await office.confirm()
    assert await office.granted(account) == {}


async def test_a_deposit_is_credited_once_however_often_it_is_read(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.deposit(ALICE, amount=2_500_000)
    await office.confirm()
    await office.poll()
    await asyncio.gather(*(office.another_worker().refresh(account) for _ in range(4)))
    assert await office.available(account) == 2_500_000_000
    await office.close_books()


async def test_two_deposits_of_one_block_are_both_credited(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.deposit(ALICE, amount=1, mine=False)
    await office.emitter.deposit(ALICE, amount=1)
    await office.confirm()
    assert await office.available(account) == 2_000


async def test_what_came_before_the_account_is_credited_when_it_appears(office: Office) -> None:
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.emitter.deposit(ALICE, amount=1_000_000)
    await office.confirm()
    account = await office.register.open(ALICE)
    await office.allowance.refresh(account)
    assert await office.available(account) == 2 * USD


async def test_many_workers_refreshing_at_once_grant_once(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    workers = [office.another_worker() for _ in range(3)]
    await asyncio.gather(*(worker.refresh(account) for worker in workers for _ in range(20)))
    assert await office.granted(account) == {TODAY: USD, TODAY + 1: USD}
    await office.close_books()


async def test_a_reversal_waits_for_a_worker_that_is_granting_what_it_reverses(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await office.anvil.reorg(3)
    await office.anvil.mine(2)
    async with office.database.transaction() as granting:
        await granting.execute(statements("freehold.allowance")["lock_account"], account)
        reversal = asyncio.create_task(office.poll())
        waits = "select count(*) from pg_sleep(0.01), pg_locks where locktype = 'advisory' and not granted"
        while not await granting.fetchval(waits):
            assert not reversal.done()
        assert not reversal.done()
        assert await office.available(account) == USD
    await reversal
    assert await office.available(account) == 0


async def test_an_unknown_account_is_refused(office: Office) -> None:
    with pytest.raises(NotFound):
        await office.allowance.refresh(404)


async def test_events_that_a_dead_worker_read_and_did_not_follow_are_followed_by_the_next(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.deposit(ALICE, amount=1_000)
    await office.anvil.mine(2)
    await LogReader(office.anvil.rpc, office.database, office.emitter.deployment).poll()  # and the worker dies here
    progress = await office.poll()
    assert progress.events == ()
    assert await office.available(account) == 1_000_000


async def test_a_reorg_within_the_confirmations_that_removes_a_stake_removes_its_allowance(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(4)
    await office.poll()
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.anvil.mine()
    await office.poll()
    await office.anvil.reorg(2)
    await office.anvil.mine(5)
    await office.poll()
    assert await office.granted(account) == {}
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM // 2, onward=DIEM)
    await office.confirm()
    assert await office.granted(account) == {TODAY: USD // 2}
    assert await office.available(account) == USD // 2
    await office.close_books()


async def test_a_deeper_reorg_takes_back_what_is_available_and_absorbs_the_rest(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await spend(office, account, 3 * USD // 10)
    await office.anvil.reorg(3)
    await office.confirm()
    assert await office.available(account) == 0
    absorbed = await office.database.fetchval(
        "select sum(amount) from ledger.entries where line = 'absorbed:reorg' and account_id = $1", account
    )
    assert absorbed == -3 * USD // 10
    await office.close_books()


async def test_a_stake_that_comes_again_after_a_reversal_is_granted_again_without_doubling(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await spend(office, account, 3 * USD // 10)
    await office.anvil.reorg(3)
    await office.confirm()
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    assert await office.available(account) == 7 * USD // 10
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s)
    await office.confirm()
    await office.allowance.refresh(account)
    assert await office.available(account) == USD
    await office.close_books()


async def test_a_reversal_leaves_what_other_events_of_the_day_grant(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await office.emitter.allowance(ALICE, day=TODAY, today=3 * DIEM, onward=3 * DIEM)
    await office.confirm()
    assert await office.available(account) == 3 * USD
    await office.anvil.reorg(3)
    await office.confirm()
    assert await office.available(account) == USD


async def test_a_deposit_that_a_deeper_reorg_removes_is_taken_back(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    await office.emitter.deposit(ALICE, amount=1_000_000)
    await office.confirm()
    await spend(office, account, USD // 4)
    await office.anvil.reorg(3)
    await office.confirm()
    assert await office.available(account) == 0
    await office.close_books()


async def test_a_deposit_that_is_mined_again_in_another_block_is_credited_once(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    sent = await office.emitter.deposit(ALICE, amount=1_000_000)
    await office.confirm()
    await spend(office, account, USD // 4)
    raw = await office.anvil.rpc.call("eth_getRawTransactionByHash", sent)
    await office.anvil.rpc.call("anvil_reorg", 3, [[raw, 1]])
    await office.confirm()
    events = await office.database.fetch("select tx_hash, reverted from chain_event order by id")
    assert [(row["tx_hash"] == sent, row["reverted"]) for row in events] == [(True, True), (True, False)]
    assert await office.available(account) == 3 * USD // 4
    await office.close_books()


async def test_a_deposit_that_is_mined_again_long_after_makes_good_what_was_spent_of_it(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.anvil.mine(3)
    sent = await office.emitter.deposit(ALICE, amount=1_000_000)
    await office.confirm()
    await spend(office, account, USD // 4)
    raw = await office.anvil.rpc.call("eth_getRawTransactionByHash", sent)
    await office.anvil.reorg(3)
    await office.confirm()
    assert (await office.available(account), await absorbed(office, account)) == (0, -USD // 4)
    await office.anvil.rpc.call("anvil_reorg", 1, [[raw, 0]])
    await office.confirm()
    assert (await office.available(account), await absorbed(office, account)) == (3 * USD // 4, 0)
    (grant,) = await office.ledger.grants(account, live_only=False)
    assert grant.amount_nano == USD
    await office.close_books()


async def absorbed(office: Office, account: int) -> int:
    """What a reorg took after it was spent, as the entries say."""
    return int(
        await office.database.fetchval(
            "select coalesce(sum(amount), 0) from ledger.entries where line = 'absorbed:reorg' and account_id = $1",
            account,
        )
    )


async def test_a_block_that_a_reorg_removes_and_another_brings_back_grants_as_if_it_had_stayed(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.emitter.deposit(ALICE, amount=1_000_000)
    await office.anvil.mine(2)
    reader = LogReader(office.anvil.rpc, office.database, office.emitter.deployment)
    progress = await reader.poll()
    await office.allowance.follow(progress)
    await spend(office, account, USD // 4)
    store = Store(office.database)
    cursor = await store.cursor()
    assert cursor is not None
    gone = replace(cursor, number=0, block=None)
    for _ in range(2):
        await store.write(before=cursor, after=gone, kept=0)
        await office.allowance.follow(replace(progress, events=(), reverted_from=1))
        assert await office.available(account) == 0
        again = await reader.poll()
        assert [event.place for event in again.events] == [event.place for event in progress.events]
        await office.allowance.follow(again)
        assert await office.available(account) == 7 * USD // 4
    await office.close_books()


async def test_a_dev_chain_that_lost_a_day_never_repeats_it(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    kept = await office.anvil.head()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s + 1)
    await office.confirm()
    await office.allowance.refresh(account)
    await spend(office, account, USD // 2)
    await office.anvil.rpc.call("anvil_rollback", await office.anvil.head() - kept)
    await office.anvil.rpc.call("anvil_setTime", START_S + 60)
    await office.poll()
    assert (await office.ledger.time()).opened_day == TODAY
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s + 1)
    await office.confirm()
    await office.allowance.refresh(account)
    assert await office.granted(account) == {TODAY: USD, TODAY + 1: USD}
    assert await office.available(account) == USD // 2
    await office.close_books()


async def test_a_day_that_opens_again_grants_what_was_staked_meanwhile(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.confirm()
    kept = await office.anvil.head()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s + 1)
    await office.confirm()
    await office.allowance.refresh(account)
    await office.anvil.rpc.call("anvil_rollback", await office.anvil.head() - kept)
    await office.anvil.rpc.call("anvil_setTime", START_S + 60)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.confirm()
    await office.anvil.mine(at_s=Day(TODAY + 1).start_s + 1)
    await office.confirm()
    assert await office.available(account) == USD


async def test_the_next_days_are_told_as_the_chain_stands(office: Office) -> None:
    account = await office.register.open(ALICE)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM // 3, onward=2 * DIEM)
    await office.confirm()
    assert await office.allowance.next_days(account, 3) == [(TODAY + n, 2 * USD) for n in (1, 2, 3)]
    assert await office.allowance.next_days(await office.register.open(BOB), 1) == [(TODAY + 1, 0)]


async def test_ledger_time_is_the_newest_blocks(office: Office) -> None:
    await office.anvil.mine(at_s=START_S + 500)
    await office.poll()
    time = await office.ledger.time()
    assert (time.at_s, time.provisional) == (START_S + 500, False)


async def test_nothing_of_one_account_reaches_another(office: Office) -> None:
    alice, bob = await office.register.open(ALICE), await office.register.open(BOB)
    await office.emitter.allowance(ALICE, day=TODAY, today=DIEM, onward=DIEM)
    await office.emitter.deposit(BOB, amount=1_000_000)
    await office.confirm()
    assert await office.granted(alice) == {TODAY: USD}
    assert await office.granted(bob) == {}
    assert await office.granted(alice, Source.PREPAID) == {}
    assert await office.granted(bob, Source.PREPAID) == {TODAY: USD}
