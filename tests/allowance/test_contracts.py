"""The whole way: real contracts on a dev chain that restarts, their events read, granted and booked."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.allowance.conftest import Office, Register
from tests.chain.lab import START_S, USDC, Anvil, Emitters

from freehold.allowance.allowance import Allowance
from freehold.chain import dev, verbs
from freehold.chain.deploy import deploy_dev
from freehold.chain.reader import LogReader
from freehold.chain.store import Store
from freehold.chain.wallet import DevWallet
from freehold.clock import DAY_S, Day
from freehold.db import Database
from freehold.ledger.ledger import Ledger

ONE = 10**18
USD = 10**9


@pytest.fixture
async def office(database: Database, tmp_path: Path) -> AsyncIterator[Office]:
    """As conftest's, with the real contracts, and a chain that keeps its state."""
    anvil = Anvil("--timestamp", str(START_S), "--state", str(tmp_path / "state.json"))
    await anvil.start()
    deployment = await deploy_dev(anvil.rpc, USDC)
    async with Ledger(database) as ledger:
        register = Register(ledger, database)
        made = Allowance(ledger, Store(database), register, deployment)
        yield Office(anvil, Emitters(anvil, deployment, ""), database, ledger, register, made)
    await anvil.stop()


async def holder(office: Office, name: str) -> DevWallet:
    """A dev wallet with 10 DIEM."""
    await dev.fund(office.anvil.rpc, office.emitter.deployment, name)
    wallet = await DevWallet.open(office.anvil.rpc, name)
    await verbs.stake_hold(wallet, office.emitter.deployment, 1_000 * ONE)
    await verbs.mint(wallet, office.emitter.deployment, 10 * ONE)
    return wallet


async def restart(office: Office, *, kill: bool = False) -> None:
    """As `freehold up` starts a chain again: its clock is told to go on from the newest block."""
    await office.anvil.stop(kill=kill)
    await office.anvil.start()
    newest = await office.anvil.rpc.call("eth_getBlockByNumber", "latest", False)
    await office.anvil.rpc.call("anvil_setTime", int(newest["timestamp"], 16) + 1)


async def test_a_stake_redirected_two_seconds_before_midnight_is_granted_once(office: Office) -> None:
    deployment = office.emitter.deployment
    alice = await holder(office, "alice")
    bob = await DevWallet.open(office.anvil.rpc, "bob")
    accounts = [await office.register.open(wallet.address) for wallet in (alice, bob)]
    await verbs.stake_diem(alice, deployment, 4 * ONE)
    tomorrow = Day.of(START_S).next()
    await office.anvil.rpc.call("evm_setNextBlockTimestamp", tomorrow.start_s - 2)
    moved = await verbs.redirect(alice, deployment, 4 * ONE, new_beneficiary=bob.address)
    assert moved.effective_at_s == tomorrow.start_s
    await dev.advance_day(office.anvil.rpc, confirmations=2)
    await office.poll()
    for account in accounts:
        await office.allowance.refresh(account)
    granted = [await office.granted(account) for account in accounts]
    assert [days.get(tomorrow.number) for days in granted] == [None, 4 * USD]
    assert [await office.available(account) for account in accounts] == [0, 4 * USD]
    await office.close_books()


async def test_advance_day_a_restart_and_another_advance_day_never_repeat_a_day(office: Office) -> None:
    deployment = office.emitter.deployment
    alice = await holder(office, "alice")
    account = await office.register.open(alice.address)
    await verbs.stake_diem(alice, deployment, 4 * ONE)
    await office.confirm()
    days = [(await office.ledger.time()).opened_day]
    for kill in (False, True):
        days.append((await dev.advance_day(office.anvil.rpc, confirmations=2)).day)
        await office.poll()
        await office.allowance.refresh(account)
        await restart(office, kill=kill)
        await office.confirm()
        await office.allowance.refresh(account)
    # The kill lost the last day, which had been written nowhere.
    days.append((await dev.advance_day(office.anvil.rpc, confirmations=2)).day)
    await office.poll()
    await office.allowance.refresh(account)
    first = days[0]
    assert days == [first, first + 1, first + 2, first + 2]
    granted = await office.granted(account)
    assert sorted(granted) == [first, first + 1, first + 2]
    assert [granted[first + 1], granted[first + 2]] == [4 * USD, 4 * USD]
    assert await office.available(account) == 4 * USD
    await office.close_books()


async def test_an_unstake_keeps_today_and_ends_tomorrow_and_a_cancel_brings_it_back(office: Office) -> None:
    deployment = office.emitter.deployment
    alice = await holder(office, "alice")
    account = await office.register.open(alice.address)
    staked = await verbs.stake_diem(alice, deployment, 4 * ONE)
    today = staked.day
    asked = await verbs.unstake_diem(alice, deployment, 4 * ONE)
    await office.confirm()
    assert await office.granted(account) == {today: staked.today // 10**9}
    assert await office.allowance.next_days(account, 1) == [(today + 1, 0)]
    await dev.advance_day(office.anvil.rpc)
    await office.anvil.rpc.call("evm_setNextBlockTimestamp", Day(today + 1).start_s + DAY_S // 4)
    await verbs.cancel(alice, deployment, "DIEM", asked.id)
    await office.confirm()
    assert (await office.granted(account))[today + 1] == 3 * USD
    assert await office.allowance.next_days(account, 1) == [(today + 2, 4 * USD)]


async def test_a_deposit_becomes_prepaid_credit(office: Office) -> None:
    deployment = office.emitter.deployment
    alice = await holder(office, "alice")
    account = await office.register.open(alice.address)
    await verbs.deposit(alice, deployment, 2_500_000)
    await office.confirm()
    assert await office.available(account) == 2_500_000_000


async def test_a_reader_on_new_contracts_takes_back_what_the_old_ones_granted(office: Office) -> None:
    deployment = office.emitter.deployment
    alice = await holder(office, "alice")
    account = await office.register.open(alice.address)
    await verbs.deposit(alice, deployment, 2_500_000)
    await verbs.stake_diem(alice, deployment, 4 * ONE)
    await office.confirm()
    again = await deploy_dev(office.anvil.rpc, USDC)
    reader = LogReader(office.anvil.rpc, office.database, again, accept_new_chain=True)
    await office.anvil.mine(2)
    allowance = Allowance(office.ledger, Store(office.database), office.register, again)
    await allowance.follow(await reader.poll())
    assert await office.available(account) == 0
    await office.close_books()
