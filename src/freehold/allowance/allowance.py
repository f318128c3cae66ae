"""Chain events into grants: the day's allowance, deposits, and what a reorg takes back."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Protocol

import asyncpg

from freehold.allowance import books, rules
from freehold.chain.model import DEV_CHAIN_ID, AllowanceChanged, Deployment, Deposited, Event, Progress
from freehold.chain.store import Change, Store
from freehold.clock import Day
from freehold.db import Connection, statements
from freehold.identity.model import Account
from freehold.ledger.books import IssuedAccount, issued
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Difference, Source
from freehold.money import MAX_NANO, usdc_to_nano
from freehold.problems import LedgerUnavailable

_SQL = statements("freehold.allowance")
_CHANGES = 500
_BY_DAY = (Source.STRIP, Source.ALLOWANCE)
"""Strips first: opening the day's allowance marks the whole day as opened."""
_FROM_CHAIN = (*_BY_DAY, Source.PREPAID)
_AT_ONCE = 2
"""Accounts refreshed at once in one worker: each takes a connection of the pool while it waits for the ledger's."""


class Accounts(Protocol):
    """Whose an address is: the part of Identity that is used here."""

    async def account(self, account_id: int) -> Account: ...

    async def account_of_address(self, address: str) -> Account | None: ...

    async def addresses(self) -> dict[str, int]: ...


class Allowance:
    """Issues what the chain grants. Many workers may refresh one account; one at a time follows the reader."""

    def __init__(self, ledger: Ledger, store: Store, accounts: Accounts, deployment: Deployment) -> None:
        self._ledger = ledger
        self._store = store
        self._database = store.database
        self._accounts = accounts
        self._deployment = deployment
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._refreshing: dict[int, asyncio.Task[None]] = {}

    async def refresh(self, account_id: int) -> None:
        """Open the account's day, raise its grant to what the chain says, and post its deposits. Idempotent.

        Callers that come while it runs share the run. Raises NotFound, LedgerUnavailable.
        """
        running = self._refreshing.get(account_id)
        if running is None:
            running = asyncio.create_task(self._refresh(account_id))
            self._refreshing[account_id] = running
            running.add_done_callback(lambda done: self._ended(account_id, done))
        await asyncio.shield(running)

    async def follow(self, progress: Progress) -> None:
        """After each poll of the reader: ledger time, grants of the accounts touched, reversals.

        Goes on from where it stopped, so a poll that nobody followed is made up for. Raises LedgerUnavailable.
        """
        before = await self._ledger.time()
        opened = Day.of(progress.confirmed.time_s).number
        # A dev chain's time is what its node says, also when it was killed and is behind what it was.
        back = self._deployment.chain_id == DEV_CHAIN_ID and progress.head.time_s < before.at_s
        await self._ledger.set_time(progress.head.time_s, opened_day=opened, force=back)
        state = await self._row("progress")
        seq = state["seq"]
        while changes := await self._store.changes(seq, _CHANGES):
            await self._take_in(changes)
            seq = changes[-1].seq
            await self._database.execute(_SQL["put_seq"], seq)
        if before.opened_day < opened <= state["newest_day"]:
            # The day was open before a dev chain lost it, so that accounts count as opened and nobody would ask.
            for address in await self._store.beneficiaries(self._deployment):
                await self._refresh_address(address)
        await self._database.execute(_SQL["put_newest_day"], opened)

    async def next_days(self, account_id: int, n: int) -> list[tuple[int, int]]:
        """(day number, nano-USD) of the `n` days after ledger time's day, as confirmed events stand. Raises NotFound."""
        account = await self._accounts.account(account_id)
        today = Day.of((await self._ledger.time()).at_s).number
        async with self._database.pool.acquire() as connection:
            events = await self._store.events_of(connection, self._deployment, account.address)
        by_source = [self._changes(events, source) for source in _BY_DAY]
        return [
            (day, sum(rules.nano_down(rules.allowance(changes, day)) for changes in by_source))
            for day in range(today + 1, today + 1 + n)
        ]

    async def check(self) -> list[Difference]:
        """Where grants aren't what the chain grants: of open days exactly, of ended ones never more. Changes nothing.

        What differs at a glance is looked at again while nobody grants; an account of which the reader has news that
        nobody has followed yet is left out. Raises LedgerUnavailable.
        """
        address_of = {account_id: address for address, account_id in (await self._accounts.addresses()).items()}
        suspects = [one for one in await self._differing(address_of) if one in address_of]
        found: list[Difference] = []
        for account_id in suspects:
            async with self._alone(account_id) as connection:
                found += await self._differences(connection, account_id, address_of[account_id])
        return found

    async def _differing(self, address_of: Mapping[int, str]) -> list[int]:
        """Accounts whose grants differ from their events, both as they are now."""
        today = await self._today()
        async with self._database.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            events = await self._store.all_events(connection, self._deployment)
            deposits: dict[int, dict[str, str]] = {}
            for row in await connection.fetch(_SQL["deposits"], None):
                deposits.setdefault(row["account_id"], {})[row["event"]] = row["grant_external_id"]
            payments = await _payments(connection)
            accounts = await issued(connection, _FROM_CHAIN)
        differing = []
        for account in accounts:
            of_it = events.get(address_of.get(account.account_id, ""), [])
            paid = payments.get(account.account_id, {})
            told = books.Told(of_it, deposits.get(account.account_id, {}), today, paid)
            if books.differences(account, told, self._deployment.operator):
                differing.append(account.account_id)
        return differing

    async def _differences(self, connection: Connection, account_id: int, address: str) -> list[Difference]:
        """Of one account, alone: neither a worker nor the follower is between reading an event and granting it."""
        followed = (await self._row("progress"))["seq"]
        events = await self._store.events_of(connection, self._deployment, address)
        if await self._store.changed_after(connection, followed, address):
            return []
        rows = await connection.fetch(_SQL["deposits"], account_id)
        payments = await _payments(connection, account_id)
        told = books.Told(
            events=events,
            deposits={row["event"]: row["grant_external_id"] for row in rows},
            today=await self._today(),
            payments=payments.get(account_id, {}),
            reverted=await self._store.last_reversal(connection, self._deployment, address) > 0,
        )
        accounts: Sequence[IssuedAccount] = await issued(connection, _FROM_CHAIN, account_id)
        if await _payments(connection, account_id) != payments:  # one was credited or taken back at this moment
            return []
        return [one for account in accounts for one in books.differences(account, told, self._deployment.operator)]

    async def _today(self) -> int | None:
        time = await self._ledger.time()
        return time.opened_day if time.opened_day == Day.of(time.at_s).number else None

    # ---- one account

    async def _refresh(self, account_id: int) -> None:
        account = await self._accounts.account(account_id)
        async with self._alone(account_id) as connection:
            time = await self._ledger.time()
            events = await self._store.events_of(connection, self._deployment, account.address)
            if time.opened_day >= Day.of(time.at_s).number:  # else that day is over, and the new one isn't open yet
                for source in _BY_DAY:
                    await self._issue(connection, account, time.opened_day, source, self._changes(events, source))
            await self._post_deposits(connection, account, events)

    async def _issue(
        self, connection: Connection, account: Account, day: int, source: Source, events: Sequence[AllowanceChanged]
    ) -> None:
        """Issue what `day` began with, then raise it to what it has become. The allowance opens the day."""
        taken_back = await self._store.last_reversal(connection, self._deployment, account.address)
        begins = rules.nano_down(rules.opening(events, day))
        name = _again(f"day:{day}:{source}:open", taken_back, begins)
        if source is Source.ALLOWANCE:
            await self._ledger.open_day(account.id, day, source, begins, name)
        elif begins > 0:
            await self._ledger.raise_grant(account.id, day, source, begins, name)
        changed = rules.latest(events, day)
        if changed is not None:
            amount = rules.nano_down(changed.today)
            name = _again(changed.place.external_id(), taken_back, amount)
            await self._ledger.raise_grant(account.id, day, source, amount, name)

    async def _post_deposits(self, connection: Connection, account: Account, events: Sequence[Event]) -> None:
        rows = await connection.fetch(_SQL["deposits"], account.id)
        posted = {row["event"] for row in rows}
        new = [event for event in events if isinstance(event, Deposited) and _name(event) not in posted]
        if not new:
            return
        paid = {row["grant_external_id"] for row in rows}
        reversed_ = [
            grant.external_id
            for grant in await self._ledger.grants(account.id, live_only=False)
            if grant.external_id.startswith("evt:") and grant.source is Source.PREPAID and grant.external_id not in paid
        ]
        for event in new:
            name = _name(event)
            amount = min(usdc_to_nano(event.amount), MAX_NANO)
            external_id = _again(name, await self._store.last_reversal_of(connection, event.place), amount)
            before = next((one for one in reversed_ if f":{event.place.tx_hash}:" in one), None)
            # In this transaction, and last in it, for it locks the account's row for every other ledger call.
            if before is not None:  # its transaction was taken back and is there again: so is its grant
                reversed_.remove(before)
                grant = await self._ledger.restore(account.id, before, amount, external_id, conn=connection)
            else:
                grant = await self._ledger.grant(
                    account.id,
                    Source.PREPAID,
                    amount,
                    external_id,
                    starts_at_s=event.place.block_time_s,
                    expires_at_s=FOREVER_S,
                    conn=connection,
                )
            await connection.execute(_SQL["put_deposit"], name, account.id, grant.external_id, event.place.tx_hash)

    # ---- the reader's changes

    async def _take_in(self, changes: Sequence[Change]) -> None:
        """Take back what no longer stands, then bring the accounts concerned up to date."""
        by_address = sorted(changes, key=lambda change: (change.event.beneficiary, change.seq))
        for address, group in groupby(by_address, key=lambda change: change.event.beneficiary):
            account = await self._accounts.account_of_address(address)
            if account is None:  # its first sign-in refreshes it
                continue
            reverted = [change for change in group if change.reverted]
            if reverted:
                await self._take_back(account, reverted)
            await self._refresh(account.id)

    async def _take_back(self, account: Account, reverted: Sequence[Change]) -> None:
        """Reverse what events that a reorg removed have granted, as far as what stands now doesn't grant it too."""
        async with self._alone(account.id) as connection:
            events = await self._store.events_of(connection, self._deployment, account.address)
            standing = {event.place.external_id() for event in events}
            gone = [change for change in reverted if change.event.place.external_id() not in standing]
            for change in gone:
                if isinstance(change.event, Deposited):
                    await self._reverse_deposit(connection, account, change, change.event, events)
            days = [change.event.day for change in gone if isinstance(change.event, AllowanceChanged)]
            for source in _BY_DAY if days else ():
                await self._reverse_days(account, source, min(days), gone[-1].seq, events)

    async def _reverse_deposit(
        self, connection: Connection, account: Account, change: Change, event: Deposited, events: Sequence[Event]
    ) -> None:
        name = event.place.external_id()
        granted = await connection.fetchval(_SQL["deposit"], name)
        if granted is None:
            return
        posted = {row["event"] for row in await connection.fetch(_SQL["posted"], account.id)}
        twin = next((other for other in events if _remined(event, other) and _name(other) not in posted), None)
        if twin is not None:  # the same transaction in another block: it has paid for the grant all the same
            await connection.execute(_SQL["move_deposit"], name, _name(twin))
            return
        await self._ledger.reverse(account.id, granted, 0, f"{granted}:reverse:{change.seq}")
        await connection.execute(_SQL["drop_deposit"], name)

    async def _reverse_days(
        self, account: Account, source: Source, first_day: int, seq: int, events: Sequence[Event]
    ) -> None:
        changes = self._changes(events, source)
        for grant in await self._ledger.grants(account.id, live_only=False):
            day = Day.of(grant.starts_at_s).number
            if grant.source is not source or day < first_day:
                continue
            amount = rules.nano_down(rules.allowance(changes, day))
            if amount < grant.amount_nano:
                name = f"day:{day}:{source}:reverse:{seq}"
                await self._ledger.reverse(account.id, grant.external_id, amount, name)

    # ---- parts

    async def _refresh_address(self, address: str) -> None:
        account = await self._accounts.account_of_address(address)
        if account is not None:
            await self._refresh(account.id)

    def _changes(self, events: Sequence[Event], source: Source) -> list[AllowanceChanged]:
        return rules.changes(events, self._deployment.operator, strips=source is Source.STRIP)

    @asynccontextmanager
    async def _alone(self, account_id: int) -> AsyncIterator[Connection]:
        """A transaction in which nobody else, on any worker, turns this account's events into grants.

        Else one who has read an event could grant it after another has reversed it.
        """
        try:
            async with self._places, self._database.transaction() as connection:
                await connection.execute(_SQL["lock_account"], account_id)
                yield connection
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as lost:
            raise LedgerUnavailable(reason=f"the chain's events can't be taken in ({type(lost).__name__})") from lost

    def _ended(self, account_id: int, done: asyncio.Task[None]) -> None:
        del self._refreshing[account_id]
        if not done.cancelled():
            done.exception()  # seen here too, for a caller that has gone won't look

    async def _row(self, name: str) -> dict[str, int]:
        row = await self._database.fetchrow(_SQL[name])
        if row is None:
            raise LookupError(f"{name}: the migration writes this row")
        return dict(row)


async def _payments(connection: Connection, account_id: int | None = None) -> dict[int, dict[str, int]]:
    """What was paid by authorization: account → name of the grant → base units of USDC."""
    found: dict[int, dict[str, int]] = {}
    for row in await connection.fetch(_SQL["payments"], account_id):
        found.setdefault(row["account_id"], {})[row["name"]] = row["amount"]
    return found


def _again(name: str, reversal: int, amount: int) -> str:
    """The id of something that a reorg may have taken back before: posted once more, it is another posting."""
    return f"{name}:after:{reversal}:{amount}" if reversal else name


def _name(event: Event) -> str:
    return event.place.external_id()


def _remined(event: Deposited, other: Event) -> bool:
    return (
        isinstance(other, Deposited)
        and other.place.tx_hash == event.place.tx_hash
        and (other.payer, other.amount) == (event.payer, event.amount)
    )
