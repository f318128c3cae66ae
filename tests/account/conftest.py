"""The account API over real domains on a fresh database, called in process over ASGI."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

import pytest
from eth_account import Account as Wallets
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from fastapi import FastAPI

from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.clock import Day, FrozenClock
from freehold.db import Connection, Database
from freehold.gateway.account.application import build_account_app
from freehold.gateway.account.services import AccountServices, AccountSettings, ServerStatus
from freehold.identity.identity import Identity
from freehold.identity.model import CallerKind
from freehold.identity.settings import IdentitySettings
from freehold.identity.tokens import new_token
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Charge, Difference, HoldRequest, Settlement, Source
from freehold.pricing.book import Prices
from freehold.receipts.model import Domain
from freehold.receipts.receipts import Receipts
from freehold.receipts.signing import ReceiptKey
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.scripted import Scripted

NOW = 1_800_000_000
TODAY = Day.of(NOW)
DEPLOYMENT = Deployment(
    chain_id=DEV_CHAIN_ID,
    contracts={"diem": "0x" + "11" * 20, "vault": "0x" + "22" * 20, "book": "0x" + "44" * 20},
    operator="0x" + "33" * 20,
    from_block=1,
    confirmations=2,
)


class Promised:
    """An allowance of so many nano-USD a day per account, issued through the ledger as the real one does."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.daily_nano: dict[int, int] = {}
        self.refreshed: list[int] = []
        self.fault: Exception | None = None
        self.differing: list[Difference] = []

    async def refresh(self, account_id: int) -> None:
        self.refreshed.append(account_id)
        if self.fault is not None:
            raise self.fault
        day = (await self.ledger.time()).opened_day
        nano = self.daily_nano.get(account_id, 0)
        await self.ledger.open_day(account_id, day, Source.ALLOWANCE, nano, f"day:{day}:allowance:open")

    async def next_days(self, account_id: int, n: int) -> Sequence[tuple[int, int]]:
        return [(TODAY.number + 1 + i, self.daily_nano.get(account_id, 0)) for i in range(n)]

    async def check(self) -> Sequence[Difference]:
        return self.differing


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a refusal, which always has OpenAI's shape."""
        error: dict[str, Any] = self.json()["error"]
        assert set(error) == {"message", "type", "code", "param"}
        assert error["message"] and error["message"].endswith((".", "…"))
        return error


@dataclass
class Office:
    app: FastAPI
    services: AccountServices
    allowance: Promised
    clock: FrozenClock
    admin: str = field(repr=False)
    status: ServerStatus

    async def raw(
        self, method: str, path: str, token: str | None = None, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> Reply:
        """One request as bytes; `path` may carry a query."""
        asked = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        if token is not None:
            asked["authorization"] = f"Bearer {token}"
        plain, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": plain,
            "raw_path": plain.encode("utf-8", "replace"),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in asked.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8402),
        }
        sent = False
        status, found, parts = 0, {}, []

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # the client stays
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found.update({name.decode(): value.decode("latin-1") for name, value in message["headers"]})
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        return Reply(status, found, b"".join(parts))

    async def ask(self, method: str, path: str, token: str | None = None, body: Any = None, **query: Any) -> Reply:
        """One request with JSON."""
        asked = {name.rstrip("_"): value for name, value in query.items() if value is not None}
        target = path + (f"?{urlencode(asked)}" if asked else "")
        return await self.raw(method, target, token, b"" if body is None else json.dumps(body).encode())

    async def ok(self, method: str, path: str, token: str | None = None, body: Any = None, **query: Any) -> Any:
        """One request that must succeed; its JSON."""
        reply = await self.ask(method, path, token, body, **query)
        assert reply.status in (200, 201), (reply.status, reply.body)
        return reply.json()

    async def sign_in(self, wallet: LocalAccount | None = None) -> Any:
        """A session of this wallet, or of a new one."""
        wallet = wallet or Wallets.create()
        challenge = await self.ok("POST", "/v1/auth/nonce", body={"address": wallet.address})
        signature = wallet.sign_message(encode_defunct(text=challenge["message"])).signature.hex()
        return await self.ok(
            "POST", "/v1/auth/wallet", body={"message": challenge["message"], "signature": "0x" + signature}
        )

    async def local(self, name: str = "team") -> tuple[int, str]:
        """A local account, and its first key."""
        made = await self.ok("POST", "/v1/admin/accounts", self.admin, {"name": name})
        return made["account"]["id"], made["secret"]

    async def give(self, account_id: int, usd: str, name: str = "gift") -> Any:
        body = {"account_id": account_id, "amount_usd": usd, "id": name}
        return await self.ok("POST", "/v1/admin/grants", self.admin, body)

    async def charge(
        self,
        secret: str,
        cost_nano: int,
        *,
        model: str = "scripted-echo",
        request: UUID | None = None,
        came_to_nano: int | None = None,
    ) -> Charge:
        """A call of this key that held so much, and cost that or what it came to."""
        key = await self.services.identity.key(secret)
        hold = await self.services.ledger.hold(
            HoldRequest(
                account_id=key.account_id,
                key_id=key.id,
                request_id=request or uuid4(),
                amount_nano=cost_nano,
                least_nano=cost_nano,
                price_version=self.services.prices.current().version,
                key_version=key.version,
                day_unopened_ok=True,
            )
        )
        return await self.services.ledger.settle(
            hold,
            Settlement(
                cost_nano=came_to_nano or cost_nano, model=model, usage={"input": 3, "output": cost_nano // 100}
            ),
        )


@pytest.fixture
async def office(database: Database) -> AsyncIterator[Office]:
    clock = FrozenClock(NOW)
    status = [ServerStatus("0.1.0", NOW, 1, reader_alive=True, head=12, confirmed=10)]
    admin = new_token(CallerKind.OPERATOR)
    identity = Identity(database, clock=clock, settings=IdentitySettings("127.0.0.1:8402", DEV_CHAIN_ID))
    await identity.ensure_admin_token(admin)
    async with Ledger(database) as ledger:
        prices = Prices(database, in_force=ledger.price_version)
        await ledger.set_time(NOW, opened_day=TODAY.number)

        async def price(conn: Connection) -> None:
            version = await prices.set(conn, "scripted-echo", {"input": 100_000_000, "output": 400_000_000}, "demo")
            await ledger.set_price_version(conn, version)

        await database.transact(price)
        await prices.refresh()
        allowance = Promised(ledger)

        async def how() -> ServerStatus:
            return made.status

        services = AccountServices(
            database,
            ledger,
            identity,
            prices,
            Catalogue([Scripted()]),
            allowance,
            DEPLOYMENT,
            how,
            AccountSettings(rpc_url="http://127.0.0.1:8545"),
            receipts=_receipts(database, identity),
        )
        made = Office(build_account_app(services), services, allowance, clock, admin, status[0])
        yield made


def _receipts(database: Database, identity: Identity) -> Receipts:
    async def address_of(account_id: int) -> str:
        return (await identity.account(account_id)).address

    domain = Domain(DEPLOYMENT.chain_id, DEPLOYMENT.contracts["book"], DEPLOYMENT.operator)
    return Receipts(database, domain, address_of=address_of, key=ReceiptKey(bytes(31) + b"\x07"))


def segment(text: object) -> str:
    return quote(str(text), safe="")
