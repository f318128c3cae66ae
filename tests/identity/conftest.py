"""An identity on a fresh database, a frozen clock, and wallets made for the test."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from eth_account import Account as Wallets
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from freehold.clock import FrozenClock
from freehold.db import Connection, Database
from freehold.identity.identity import Identity
from freehold.identity.model import SignedIn
from freehold.identity.settings import IdentitySettings

SETTINGS = IdentitySettings(domain="127.0.0.1:8402", chain_id=402031)


def signed(wallet: LocalAccount, message: str) -> str:
    return "0x" + wallet.sign_message(encode_defunct(text=message)).signature.hex()


class Numbers:
    """Account ids as a ledger would give them out."""

    def __init__(self) -> None:
        self.last = 0

    async def create_account(self, _conn: Connection) -> int:
        self.last += 1
        return self.last


@dataclass
class World:
    database: Database
    clock: FrozenClock
    identity: Identity
    numbers: Numbers

    async def sign_in(self, wallet: LocalAccount) -> SignedIn:
        challenge = await self.identity.nonce(wallet.address)
        return await self.identity.sign_in(
            challenge.message, signed(wallet, challenge.message), create_account=self.numbers.create_account
        )

    async def local(self, name: str = "default") -> int:
        async with self.database.transaction() as conn:
            account_id = await self.numbers.create_account(conn)
            await self.identity.create_local_account(conn, account_id, name)
        return account_id

    async def key(self, account_id: int, **facts: object) -> tuple[int, str]:
        async with self.database.transaction() as conn:
            key, secret = await self.identity.create_key(conn, account_id, name="k", **facts)  # type: ignore[arg-type]
        return key.id, secret


@pytest.fixture
def world(database: Database) -> World:
    clock = FrozenClock()
    return World(database, clock, Identity(database, clock=clock, settings=SETTINGS), Numbers())


@pytest.fixture
def new_wallet() -> Callable[[], LocalAccount]:
    return Wallets.create
