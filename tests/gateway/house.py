"""A whole worker for tests: the real ledger, identity, price book and door, a scripted upstream, a real server."""

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import uvicorn
from openai import AsyncOpenAI

from freehold.clock import Day, SystemClock
from freehold.db import Connection, Database
from freehold.gateway.asgi import App, Exchange, Inference, Receive, Scope, Send
from freehold.gateway.connection import Connection as ClientConnection
from freehold.gateway.connection import Handler, speaking
from freehold.gateway.door import Door
from freehold.gateway.settings import DoorSettings
from freehold.identity.identity import Identity
from freehold.identity.model import Scope as KeyScope
from freehold.identity.settings import IdentitySettings
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Charge, KeyLimits, KeyState, Source
from freehold.money import parse_usd
from freehold.pricing.book import Prices
from freehold.pricing.model import Tier
from freehold.pricing.seed import SCRIPTED_PRICES
from freehold.problems import NotFound, error_body
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.model import Terms, Upstream
from freehold.upstream.scripted import Scripted

SETTINGS = DoorSettings(read_on_s=0.2)
_ids = itertools.count(1)


@dataclass(frozen=True)
class Customer:
    """An account with one key."""

    account_id: int
    key_id: int
    token: str


class OpenDays:
    """Issues today's allowance from a table instead of a chain."""

    def __init__(self, ledger: Ledger, today: int) -> None:
        self.amounts: dict[int, int] = {}
        self._ledger = ledger
        self._today = today

    async def refresh(self, account_id: int) -> None:
        amount_nano = self.amounts.get(account_id, 0)
        name = f"day:{self._today}:allowance:open"
        await self._ledger.open_day(account_id, self._today, Source.ALLOWANCE, amount_nano, name)


class InFlight:
    """An application, and inference routes before it, that know what they are answering."""

    def __init__(self, app: App, inference: Inference | None = None) -> None:
        self.left = asyncio.Event()
        """Set when the server has learned, and said, that a client left."""
        self.called = asyncio.Event()
        """Set by the first request."""
        self._app = app
        self.inference = inference
        self._running: set[asyncio.Task[Any]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._flight():
            await self._app(scope, receive, send)

    def route(self, path: str) -> Handler | None:
        handler = None if self.inference is None else self.inference.route(path)
        if handler is None:
            return None

        async def handle(exchange: Exchange) -> None:
            with self._flight():
                await handler(exchange)

        return handle

    @contextmanager
    def _flight(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._landed)
        self.called.set()
        self._quiet.clear()
        yield

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not self._running:
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no request is being answered."""
        await self._quiet.wait()

    def cancel(self) -> None:
        """As a server does that is told to stop."""
        for task in self._running:
            task.cancel()


def telling(left: asyncio.Event, inference: Inference) -> type[ClientConnection]:
    """A worker's connections, which also say when one has ended."""

    class Telling(speaking(inference)):  # type: ignore[misc]
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            left.set()

    return Telling


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers."""

    port = 0

    def connections(self) -> int:
        """How many connections it keeps."""
        return len(self.server_state.connections)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class House:
    """One worker and what stands behind it."""

    database: Database
    ledger: Ledger
    identity: Identity
    prices: Prices
    scripted: Scripted
    allowance: OpenDays
    door: Door
    app: InFlight
    server: QuietServer | None = None
    url: str = ""
    port: int = 0
    _clients: list[AsyncOpenAI] = field(default_factory=list)

    async def customer(
        self,
        *,
        allowance: str = "0",
        prepaid: str = "0",
        promo: str = "0",
        scopes: Sequence[KeyScope] = (KeyScope.INFERENCE,),
        models: Sequence[str] | None = None,
        day_cap_nano: int | None = None,
    ) -> Customer:
        """An account with a key, and with credit in USD."""

        async def make(conn: Connection) -> Customer:
            account_id = await self.ledger.create_account(conn)
            await self.identity.create_local_account(conn, account_id, f"customer {account_id}")
            key, token = await self.identity.create_key(conn, account_id, name="k", scopes=scopes, models=models)
            limits = KeyLimits(account_id, key.id, key.version, KeyState.ACTIVE, key.expires_at_s, day_cap_nano, None)
            await self.ledger.put_key(conn, limits)
            return Customer(account_id, key.id, token)

        customer = await self.database.transact(make)
        self.allowance.amounts[customer.account_id] = parse_usd(allowance)
        for source, usd in ((Source.PREPAID, prepaid), (Source.PROMO, promo)):
            await self.grant(customer, source, parse_usd(usd))
        return customer

    async def grant(self, customer: Customer, source: Source, nano: int) -> None:
        if nano:
            name = f"test:{next(_ids)}"
            await self.ledger.grant(customer.account_id, source, nano, name, starts_at_s=0, expires_at_s=FOREVER_S)

    async def revoke(self, customer: Customer) -> None:
        """As the account API does it: identity's and the ledger's half in one transaction."""

        async def revoke(conn: Connection) -> None:
            key = await self.identity.revoke_key(conn, customer.account_id, customer.key_id)
            limits = await self.ledger.key_limits(customer.account_id, customer.key_id, conn=conn)
            await self.ledger.put_key(conn, replace(limits, version=key.version, state=KeyState.REVOKED))

        await self.database.transact(revoke)

    async def allow(self, customer: Customer, models: Sequence[str] | None) -> None:
        """Change the key's list of models, as the account API does it."""

        async def change(conn: Connection) -> None:
            key = await self.identity.lock_key(conn, customer.account_id, customer.key_id)
            key = await self.identity.update_key(
                conn, replace(key, models=None if models is None else frozenset(models))
            )
            limits = await self.ledger.key_limits(customer.account_id, customer.key_id, conn=conn)
            await self.ledger.put_key(conn, replace(limits, version=key.version))

        await self.database.transact(change)

    async def set_price(
        self, model: str, nano_per_million: Mapping[str, int], *, tiers: Iterable[Tier] = (), at_s: int | None = None
    ) -> int:
        now_s = (await self.ledger.time()).at_s

        async def change(conn: Connection) -> int:
            version = await self.prices.set(conn, model, nano_per_million, "test", tiers=tiers, now_s=now_s, at_s=at_s)
            for number, effective_at_s in await self.prices.since(conn, version):
                await self.ledger.set_price_version(conn, number, effective_at_s)
            return version

        return await self.database.transact(change)

    def sdk(self, customer: Customer) -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=self.url, api_key=customer.token, max_retries=0)
        self._clients.append(client)
        return client

    async def charge(self, customer: Customer, request_id: str) -> Charge:
        return await self.ledger.charge(customer.account_id, UUID(request_id.removeprefix("req_")))

    async def charges(self, customer: Customer) -> list[Charge]:
        page = await self.ledger.charges(customer.account_id, limit=1_000)
        return list(page.charges)

    async def left_nano(self, customer: Customer) -> int:
        return (await self.ledger.balance(customer.account_id)).available_nano()

    async def held_nano(self, customer: Customer) -> int:
        return sum(purse.held_nano for purse in (await self.ledger.balance(customer.account_id)).purses)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


async def _nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
    body = json.dumps(error_body(NotFound(reason="There is nothing here."))).encode()
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def prepare(database: Database) -> None:
    """What the first start does: ledger time and prices."""
    now = int(SystemClock().now())
    prices = Prices(database)
    async with database.transaction() as conn:
        version = await prices.seed(conn, SCRIPTED_PRICES)
        assert version is not None
        await Ledger(database, clock=SystemClock()).set_price_version(conn, version)
    await Ledger(database, clock=SystemClock()).set_time(now, opened_day=Day.of(now).number)


@asynccontextmanager
async def worker(
    database: Database,
    *,
    settings: DoorSettings = SETTINGS,
    scripted: Scripted | None = None,
    upstreams: Sequence[Upstream] = (),
    ledger_type: type[Ledger] = Ledger,
    send_buffer_bytes: int | None = None,
    around: Callable[[Door], Any] | None = None,
) -> AsyncIterator[House]:
    """One worker, serving on a free port: what is given, or else the scripted models alone."""
    clock = SystemClock()
    ledger = ledger_type(database, clock=clock)
    await ledger.start()
    identity = Identity(database, clock=clock, settings=IdentitySettings(domain="127.0.0.1", chain_id=402031))
    prices = Prices(database, in_force=ledger.price_version)
    await prices.refresh()
    served = [*upstreams, *([scripted] if scripted else [])]
    scripted = scripted or Scripted(terms=Terms(failures=1_000_000))
    allowance = OpenDays(ledger, Day.of(clock.now()).number)
    door = Door(
        ledger=ledger,
        identity=identity,
        prices=prices,
        catalogue=Catalogue(served or [scripted]),
        allowance=allowance,
        settings=settings,
    )
    app = InFlight(_nothing_else, around(door) if around else door)
    house = House(database, ledger, identity, prices, scripted, allowance, door, app)
    try:
        async with serve_on(app, send_buffer_bytes=send_buffer_bytes) as server:
            house.server, house.port, house.url = server, server.port, f"http://127.0.0.1:{server.port}/v1"
            yield house
            await house.close()
        await door.finish()
    finally:
        await ledger.stop()


@asynccontextmanager
async def serve_on(app: InFlight, *, send_buffer_bytes: int | None = None) -> AsyncIterator[QuietServer]:
    """`app` on a free port of loopback, as a worker serves it; without inference routes as any server would.

    The kernel keeps `send_buffer_bytes` for a slow client.
    """
    listener = socket.socket()
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1_024)
    protocol = "httptools" if app.inference is None else telling(app.left, app)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", http=protocol)
    config.timeout_graceful_shutdown = 5
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        server.port = int(listener.getsockname()[1])
        yield server
    finally:
        server.should_exit = True
        await task
        listener.close()


async def _main() -> None:
    """A worker process: reads {"url"} on its standard input, prints {"port"}, serves until the input ends."""
    loop = asyncio.get_running_loop()
    url = json.loads(await loop.run_in_executor(None, sys.stdin.readline))["url"]
    database = await Database.connect(url, max_size=5)
    try:
        async with worker(database) as house:
            sys.stdout.write(json.dumps({"port": house.port}) + "\n")
            sys.stdout.flush()
            await loop.run_in_executor(None, sys.stdin.read)
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(_main())
