"""An office: a real chain with stand-in contracts, the reader, a real ledger, and accounts with addresses."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.chain.lab import START_S, Anvil, Emitters, emitters

from freehold.allowance.allowance import Allowance
from freehold.chain.model import Progress
from freehold.chain.reader import LogReader
from freehold.chain.store import Store
from freehold.clock import Day
from freehold.db import Database
from freehold.identity.model import Account
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Source
from freehold.problems import NotFound


class Register:
    """Accounts and their addresses, in memory."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger = ledger
        self._database = database
        self._accounts: dict[int, Account] = {}

    async def open(self, address: str) -> int:
        async with self._database.transaction() as connection:
            account_id = await self._ledger.create_account(connection)
        self._accounts[account_id] = Account(account_id, address[:6], "wallet", address, 0)
        return account_id

    async def account(self, account_id: int) -> Account:
        if account_id not in self._accounts:
            raise NotFound(reason=f"There is no account {account_id}.")
        return self._accounts[account_id]

    async def addresses(self) -> dict[str, int]:
        return {account.address: account.id for account in self._accounts.values()}

    async def account_of_address(self, address: str) -> Account | None:
        return next((account for account in self._accounts.values() if account.address == address), None)


@dataclass
class Office:
    anvil: Anvil
    emitter: Emitters
    database: Database
    ledger: Ledger
    register: Register
    allowance: Allowance

    async def poll(self) -> Progress:
        """One round of the leader's work."""
        progress = await LogReader(self.anvil.rpc, self.database, self.emitter.deployment).poll()
        await self.allowance.follow(progress)
        return progress

    async def confirm(self) -> Progress:
        """Mine what events need to count, and read them."""
        await self.anvil.mine(self.emitter.deployment.confirmations)
        return await self.poll()

    async def granted(self, account_id: int, source: Source = Source.ALLOWANCE) -> dict[int, int]:
        """nano-USD granted by the day that it begins on."""
        grants = await self.ledger.grants(account_id, live_only=False)
        return {Day.of(grant.starts_at_s).number: grant.amount_nano for grant in grants if grant.source is source}

    async def available(self, account_id: int) -> int:
        return (await self.ledger.balance(account_id)).available_nano()

    def another_worker(self) -> Allowance:
        return Allowance(self.ledger, Store(self.database), self.register, self.emitter.deployment)

    async def close_books(self) -> None:
        assert [*await self.ledger.check(), *await self.allowance.check()] == []


@pytest.fixture
async def office(database: Database) -> AsyncIterator[Office]:
    anvil = Anvil("--no-mining", "--timestamp", str(START_S))
    await anvil.start()
    emitter = await emitters(anvil)
    async with Ledger(database) as ledger:
        register = Register(ledger, database)
        made = Allowance(ledger, Store(database), register, emitter.deployment)
        yield Office(anvil, emitter, database, ledger, register, made)
    await anvil.stop()
