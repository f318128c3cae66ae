"""What was read of the chain, in the database: one cursor, recent blocks, events, and the feed of their changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from freehold.chain.model import AllowanceChanged, Block, Deployment, Deposited, Event, Place
from freehold.db import Connection, Database, statements

KEEP_BLOCKS = 300
"""Blocks without events that are kept, to find where a reorg began."""

_SQL = statements("freehold.chain")


class Overtaken(Exception):
    """Somebody else moved the cursor meanwhile: nothing was written."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the chain was read. `block` None: nothing yet, and `number` is the one before the first."""

    chain_id: int
    genesis_hash: str
    vault: str
    prepaid: str
    number: int
    block: Block | None


@dataclass(frozen=True, slots=True)
class Change:
    """An event came (`reverted` False) or was taken back by a reorg."""

    seq: int
    event: Event
    reverted: bool


class Store:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def cursor(self) -> Cursor | None:
        return _cursor(await self.database.fetchrow(_SQL["cursor"]))

    async def blocks_down(self, number: int, limit: int) -> list[Block]:
        """Stored blocks from `number` down."""
        rows = await self.database.fetch(_SQL["blocks_down"], number, limit)
        return [Block(row["number"], row["hash"], row["parent_hash"], row["time_s"]) for row in rows]

    async def write(
        self,
        *,
        before: Cursor | None,
        after: Cursor,
        kept: int,
        blocks: Sequence[Block] = (),
        events: Sequence[Event] = (),
        strips: str = "",
    ) -> None:
        """One poll, in one transaction: forget what is above block `kept`, add blocks and events, move the cursor.

        `strips`: the contract whose events speak of strips.

        Raises Overtaken when the cursor isn't at `before` any more.
        """
        async with self.database.transaction() as connection:
            await connection.execute(_SQL["lock_cursor"])
            if _cursor(await connection.fetchrow(_SQL["cursor"])) != before:
                raise Overtaken
            await connection.execute(_SQL["revert_above"], kept)
            await connection.execute(_SQL["drop_blocks_above"], kept)
            with_events = {event.place.block_number for event in events}
            await connection.execute(
                _SQL["put_blocks"],
                [block.number for block in blocks],
                [block.hash for block in blocks],
                [block.parent_hash for block in blocks],
                [block.time_s for block in blocks],
                [block.number in with_events for block in blocks],
            )
            await _add_events(connection, after, events, strips)
            await connection.execute(_SQL["prune_blocks"], after.number - KEEP_BLOCKS)
            await _put_cursor(connection, after)

    async def events_of(self, connection: Connection, deployment: Deployment, beneficiary: str) -> list[Event]:
        """Every event of `beneficiary` at these contracts that stands, in the chain's order."""
        rows = await connection.fetch(_SQL["events_of"], beneficiary, _contracts(deployment), deployment.chain_id)
        return [_event(row) for row in rows]

    async def all_events(self, connection: Connection, deployment: Deployment) -> dict[str, list[Event]]:
        """Every event at these contracts that stands, in the chain's order, by beneficiary."""
        found: dict[str, list[Event]] = {}
        for row in await connection.fetch(_SQL["all_events"], _contracts(deployment), deployment.chain_id):
            found.setdefault(row["beneficiary"], []).append(_event(row))
        return found

    async def beneficiaries(self, deployment: Deployment) -> list[str]:
        """Every address that an event of these contracts stands for."""
        rows = await self.database.fetch(_SQL["beneficiaries"], _contracts(deployment), deployment.chain_id)
        return [row["beneficiary"] for row in rows]

    async def last_reversal(self, connection: Connection, deployment: Deployment, beneficiary: str) -> int:
        """`seq` of the newest change that took back an event of `beneficiary`; 0 when none ever was."""
        return int(await connection.fetchval(_SQL["last_reversal"], beneficiary, deployment.chain_id))

    async def last_reversal_of(self, connection: Connection, place: Place) -> int:
        """`seq` of the newest change that took back the event at `place`; 0 when it always stood."""
        where = (place.chain_id, place.block_hash, place.tx_hash, place.log_index)
        return int(await connection.fetchval(_SQL["last_reversal_of"], *where))

    async def changed_after(self, connection: Connection, seq: int, beneficiary: str) -> bool:
        """Whether an event of `beneficiary` came or went after the change `seq`."""
        return bool(await connection.fetchval(_SQL["changed_after"], seq, beneficiary))

    async def changes(self, after_seq: int, limit: int) -> list[Change]:
        """The feed after `after_seq`, oldest first."""
        rows = await self.database.fetch(_SQL["changes"], after_seq, limit)
        return [Change(row["seq"], _event(row), row["taken_back"]) for row in rows]


def _contracts(deployment: Deployment) -> list[str]:
    return [deployment.contracts[name] for name in ("vault", "strips", "prepaid")]


def _cursor(row: Any) -> Cursor | None:
    if row is None:
        return None
    block = None
    if row["hash"] is not None:
        block = Block(row["number"], row["hash"], row["parent_hash"], row["time_s"])
    return Cursor(row["chain_id"], row["genesis_hash"], row["vault"], row["prepaid"], row["number"], block)


async def _put_cursor(connection: Connection, cursor: Cursor) -> None:
    block = cursor.block
    await connection.execute(
        _SQL["put_cursor"],
        cursor.chain_id,
        cursor.genesis_hash,
        cursor.vault,
        cursor.prepaid,
        cursor.number,
        block.hash if block else None,
        block.parent_hash if block else None,
        block.time_s if block else None,
    )


async def _add_events(connection: Connection, cursor: Cursor, events: Sequence[Event], strips: str) -> None:
    if not events:
        return
    rows = [_row(event, cursor, strips) for event in events]
    await connection.execute(_SQL["add_events"], *(list(column) for column in zip(*rows, strict=True)))


def _row(event: Event, cursor: Cursor, strips: str) -> tuple[Any, ...]:
    place = event.place
    where = (
        place.chain_id,
        place.block_number,
        place.block_hash,
        place.block_time_s,
        place.tx_hash,
        place.log_index,
    )
    if isinstance(event, AllowanceChanged):
        amounts = (Decimal(event.today), Decimal(event.onward), None)
        contract, kind = (strips, "StripsChanged") if event.strips else (cursor.vault, "AllowanceChanged")
        return (*where, contract, kind, event.beneficiary, event.operator, None, event.day, *amounts)
    none: tuple[None, None, None] = (None, None, None)
    return (*where, cursor.prepaid, "Deposited", event.beneficiary, None, event.payer, *none, Decimal(event.amount))


def _event(row: Mapping[str, Any]) -> Event:
    place = Place(
        chain_id=row["chain_id"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
        block_time_s=row["block_time_s"],
        tx_hash=row["tx_hash"],
        log_index=row["log_index"],
    )
    if row["kind"] in ("AllowanceChanged", "StripsChanged"):
        return AllowanceChanged(
            place=place,
            operator=row["operator"],
            beneficiary=row["beneficiary"],
            day=row["day"],
            today=int(row["today"]),
            onward=int(row["onward"]),
            strips=row["kind"] == "StripsChanged",
        )
    return Deposited(place=place, beneficiary=row["beneficiary"], payer=row["payer"], amount=int(row["amount"]))
