"""Payments in the database: what was claimed, sent and credited."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from freehold.db import Connection, Database, statements
from freehold.gateway.x402.facilitator import Landing
from freehold.gateway.x402.model import Authorization, Terms, payment_name

_SQL = statements("freehold.gateway.x402")

Key = tuple[int, str, str, bytes]
"""Chain id, token, payer, nonce."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A payment that was shown here. `state`: open, credited, lapsed (it never came) or reversed (it came and went)."""

    chain_id: int
    token: str
    signed: Authorization
    purpose: bytes
    account_id: int | None
    state: str
    from_block: int
    given_up: bool
    """It was refused, and is only watched."""
    tx_hash: str | None
    landed_block: int | None
    landed_hash: str | None
    credited_at_s: float | None

    @property
    def key(self) -> Key:
        return (self.chain_id, self.token, self.signed.payer, self.signed.nonce)

    @property
    def name(self) -> str:
        return payment_name(*self.key)


class Store:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, terms: Terms, signed: Authorization, purpose: bytes, account_id: int | None, from_block: int
    ) -> Claim:
        """Write a payment down for one purpose; what stands, when somebody was first."""
        key = (terms.chain_id, terms.token, signed.payer, signed.nonce)
        facts = (signed.pay_to, signed.value, signed.valid_after, signed.valid_before, signed.signature)
        await self._database.execute(_SQL["claim"], *key, *facts, purpose, account_id, from_block)
        found = await self.find(key)
        if found is None:
            raise LookupError("a claim that was just written")
        return found

    async def find(self, key: Key) -> Claim | None:
        row = await self._database.fetchrow(_SQL["payment"], *key)
        return _claim(row) if row else None

    async def lock(self, conn: Connection, key: Key) -> Claim:
        return _claim(await conn.fetchrow(_SQL["lock"], *key))

    async def lease(self, key: Key, again_s: float) -> bool:
        """Whether the caller is to send it; nobody else may for `again_s`."""
        return await self._database.fetchval(_SQL["lease"], *key, again_s) is not None

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """One at a time, over all workers: a wallet's transactions are numbered."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["sending"])
            yield

    async def sent(self, key: Key, tx_hash: str) -> None:
        await self._database.execute(_SQL["sent"], *key, tx_hash)

    async def unsent(self, key: Key, tx_hash: str | None) -> None:
        await self._database.execute(_SQL["unsent"], *key, tx_hash)

    async def give_up(self, key: Key) -> None:
        """Send it no more. It is watched until it lapses, for others may know it, and carry it out."""
        await self._database.execute(_SQL["give_up"], *key)

    async def credit(self, conn: Connection, key: Key, account_id: int, landing: Landing) -> Claim:
        where = (landing.tx_hash, landing.block_number, landing.block_hash)
        return _claim(await conn.fetchrow(_SQL["credit"], *key, account_id, *where))

    async def landed(self, key: Key, landing: Landing | None) -> None:
        """Where a credited payment stands now; None: nowhere."""
        where = (landing.tx_hash, landing.block_number, landing.block_hash) if landing else (None, None, None)
        await self._database.execute(_SQL["landed"], *key, *where)

    async def end(self, key: Key, state: str, conn: Connection | None = None) -> None:
        await (conn or self._database).execute(_SQL["end"], *key, state)

    async def to_follow(self, limit: int) -> list[Claim]:
        """Those that are open, and those that were credited and may not stand any more."""
        rows = [*await self._database.fetch(_SQL["open"], limit), *await self._database.fetch(_SQL["doubtful"])]
        return [_claim(row) for row in rows]


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim(
        chain_id=row["chain_id"],
        token=row["token"],
        signed=Authorization(
            payer=row["payer"],
            pay_to=row["pay_to"],
            value=row["amount"],
            valid_after=row["valid_after"],
            valid_before=row["valid_before"],
            nonce=bytes(row["nonce"]),
            signature=bytes(row["signature"]),
        ),
        purpose=bytes(row["purpose"]),
        account_id=row["account_id"],
        state=row["state"],
        from_block=row["from_block"],
        given_up=row["given_up"],
        tx_hash=row["tx_hash"],
        landed_block=row["landed_block"],
        landed_hash=row["landed_hash"],
        credited_at_s=row["credited_at_s"],
    )
