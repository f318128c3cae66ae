"""One worker process: every domain put together, serving on a socket that its supervisor opened.

`python -m freehold.app worker` reads its Plan as JSON from stdin. It stops at SIGTERM: it takes no more calls, finishes
those under way, and settles. Whichever worker leads also runs the background jobs.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from freehold.allowance.allowance import Allowance
from freehold.app import logs
from freehold.app.advice import Advice
from freehold.app.closing import operators_wallet, publisher_of, receipts_of
from freehold.app.jobs import run_jobs
from freehold.app.plan import Plan, first_chat_model, takes_payments
from freehold.app.reload import Reload, read_upstreams_of
from freehold.chain.defi import kept
from freehold.chain.defi.pools import diem_price
from freehold.chain.erc1271 import ContractSignatures
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.reader import LogReader
from freehold.chain.rpc import Rpc
from freehold.chain.store import Store
from freehold.chain.wallet import Wallet
from freehold.clock import SystemClock
from freehold.console.page import with_pages
from freehold.db import Database
from freehold.gateway.account.application import build_account_app
from freehold.gateway.account.services import AccountServices, AccountSettings, ServerStatus
from freehold.gateway.asgi import App, Inference
from freehold.gateway.connection import speaking
from freehold.gateway.door import Door
from freehold.gateway.metrics import Counted, CountedLedger, Metrics
from freehold.gateway.replay import Answers
from freehold.gateway.settings import DoorSettings
from freehold.gateway.traces import Traced, Traces, provider_to
from freehold.gateway.x402.facilitator import Facilitator
from freehold.gateway.x402.payments import Payments
from freehold.gateway.x402.settings import PaymentSettings
from freehold.identity.identity import Identity
from freehold.identity.settings import IdentitySettings
from freehold.ledger.ledger import Ledger
from freehold.metrics import Numbers
from freehold.pricing.book import Prices
from freehold.problems import Problem
from freehold.receipts.jobs import Days
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.config import read_upstreams
from freehold.upstream.health import State

log = logging.getLogger("freehold.app")

GRACE_S = 20
"""How long calls under way may take once the worker is told to stop."""
HEAD_AGE_S = 1.0


class _Status:
    """How the server is, as any of its workers can tell."""

    def __init__(self, plan: Plan, rpc: Rpc, store: Store, ledger: Ledger) -> None:
        self._plan = plan
        self._rpc = rpc
        self._store = store
        self._ledger = ledger
        self._head: int | None = None
        self._asked_at_s = float("-inf")

    async def __call__(self) -> ServerStatus:
        cursor = await self._store.cursor()
        ledger_time = await self._ledger.time()
        return ServerStatus(
            version=version("freehold"),
            started_at_s=self._plan.started_at_s,
            workers=self._plan.workers,
            reader_alive=cursor is not None and not ledger_time.provisional,
            head=await self._newest(),
            confirmed=cursor.number if cursor else None,
        )

    async def _newest(self) -> int | None:
        if time.monotonic() - self._asked_at_s > HEAD_AGE_S:
            self._asked_at_s = time.monotonic()
            try:
                self._head = int(await self._rpc.call("eth_blockNumber"), 16)
            except Problem:
                self._head = None
        return self._head


RECURSION_LIMIT = 1_000
"""Python's own default: what makes a body that is nested too deeply a refusal, and not a crash."""


@asynccontextmanager
async def composed(plan: Plan) -> AsyncIterator[tuple[Inference, App, Door]]:
    """The inference routes and the rest of the application, with everything below started; stops it at the end."""
    clock = SystemClock()
    deployment = plan.load_deployment()
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.connect(plan.database_url, max_size=10)
        stack.push_async_callback(database.close)
        rpc = await stack.enter_async_context(Rpc(plan.rpc_url))
        folder = Path(plan.metrics) if plan.metrics else None
        metrics = Metrics(Numbers.shared(folder) if folder else Numbers.private())
        ledger = CountedLedger(database, clock=clock, metrics=metrics)
        await stack.enter_async_context(ledger)
        prices = Prices(database, in_force=ledger.price_version)
        await prices.refresh()
        parts = urlsplit(plan.public_url)
        identity = Identity(
            database,
            clock=clock,
            settings=IdentitySettings(domain=parts.netloc, chain_id=deployment.chain_id, scheme=parts.scheme),
            contracts=ContractSignatures(rpc),
        )
        traces = _traces(plan, stack)
        if traces is not None:
            ledger.watch = traces.settled
        catalogue = Catalogue(read_upstreams(plan.upstreams), around=traces.around if traces else None)
        stack.push_async_callback(catalogue.close)
        store = Store(database)
        allowance = Allowance(ledger, store, identity, deployment)
        dev = deployment.chain_id == DEV_CHAIN_ID
        payments = _payments(plan, database, rpc, deployment, ledger, identity)
        reader = LogReader(rpc, database, deployment, accept_new_chain=dev)
        receipts = receipts_of(database, deployment, identity, key=plan.receipt_key)
        days = Days(receipts, publisher_of(plan, rpc, deployment, receipts))
        jobs = asyncio.create_task(run_jobs(database, reader, allowance, ledger, payments, days), name="jobs")
        stack.push_async_callback(_cancel, jobs)
        watching = asyncio.create_task(_watch_upstreams(catalogue, metrics), name="upstreams")
        stack.push_async_callback(_cancel, watching)
        door = Door(
            ledger=ledger,
            identity=identity,
            prices=prices,
            catalogue=catalogue,
            allowance=allowance,
            settings=DoorSettings(
                default_output_tokens=plan.default_output_tokens, body_limit_bytes=plan.body_limit_bytes
            ),
            answers=Answers(bytes.fromhex(plan.answer_key) if plan.answer_key else None),
            payments=payments,
        )
        stack.push_async_callback(door.finish)
        services = AccountServices(
            database=database,
            ledger=ledger,
            identity=identity,
            prices=prices,
            catalogue=catalogue,
            allowance=allowance,
            deployment=deployment,
            status=_Status(plan, rpc, store, ledger),
            settings=AccountSettings(public_url=plan.public_url, rpc_url=plan.rpc_url if dev else None),
            payments=payments,
            receipts=receipts,
            metrics=folder,
            plan=Advice(_market_price(plan, rpc, deployment)),
            reload=Reload(Path(plan.run) if plan.run else None, plan.supervisor),
        )
        pages = with_pages(build_account_app(services), url=plan.public_url, model=first_chat_model(catalogue))
        counted = Counted(door, metrics)
        yield counted if traces is None else Traced(counted, traces), pages, door


def _traces(plan: Plan, stack: contextlib.AsyncExitStack) -> Traces | None:
    """Where spans of calls go; None where traces are off."""
    if plan.otlp_endpoint is None:
        return None
    provider = provider_to(plan.otlp_endpoint)
    stack.push_async_callback(asyncio.to_thread, provider.shutdown)
    return Traces(provider)


def _market_price(
    plan: Plan, rpc: Rpc, deployment: Deployment
) -> Callable[[], Awaitable[tuple[float, str] | None]] | None:
    """Reads what one DIEM costs from the chain's pool; gives None as long as none is known."""
    data = plan.data
    if data is None:
        return None

    async def price() -> tuple[float, str] | None:
        defi = await kept.standing(rpc, deployment, data)
        if defi is None:
            return None
        found = await diem_price(rpc, deployment, defi)
        return float(found.usd), found.source

    return price


def _payments(
    plan: Plan, database: Database, rpc: Rpc, deployment: Deployment, ledger: Ledger, identity: Identity
) -> Payments | None:
    """What takes payments by x402; None where they are off."""
    if not takes_payments(plan.x402, deployment.chain_id):
        return None

    async def sender() -> Wallet:
        return await operators_wallet(plan, rpc)

    return Payments(
        database,
        ledger=ledger,
        accounts=identity,
        facilitator=Facilitator(rpc, deployment, sender),
        clock=SystemClock(),
        settings=PaymentSettings(public_url=plan.public_url, least_units=plan.x402_least),
    )


async def _watch_upstreams(catalogue: Catalogue, metrics: Metrics) -> None:
    """Say every second how the upstreams fare here."""
    while True:
        for health in catalogue.health():
            broken = health.state is not State.CLOSED
            metrics.upstream(health.name, broken=broken, running=health.running, failures=health.failures)
        await asyncio.sleep(1.0)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


class _Server(uvicorn.Server):
    """Leaves the signals to us: uvicorn's own handling ends the process before the books are closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(plan: Plan) -> None:
    """Serve until SIGTERM, SIGINT, or the supervisor's end."""
    listener = socket.socket(fileno=plan.socket)
    async with composed(plan) as (inference, rest, door):
        config = uvicorn.Config(
            rest,
            http=speaking(inference),
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        server = _Server(config)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            server.should_exit = True

        for how in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(how, stop)
        loop.add_signal_handler(signal.SIGHUP, _take_up, plan, door)
        _settle_in()
        orphaned = asyncio.create_task(_await_orphaned(os.getppid(), stop), name="orphaned")
        try:
            await server.serve(sockets=[listener])
        finally:
            orphaned.cancel()


def _take_up(plan: Plan, door: Door) -> None:
    """The upstreams that the supervisor has read and checked; calls under way stay where they are."""
    if plan.run is None or not isinstance(door.catalogue, Catalogue):
        return
    try:
        door.catalogue.replace(read_upstreams(read_upstreams_of(Path(plan.run))))
    except (OSError, ValueError) as reason:
        log.error("the new upstreams can't be taken up: %s", reason)
    else:
        log.info("the upstreams were read again")


def _settle_in() -> None:
    """What stands after the start stays: the collector need not look at it again and again, nor so often at all.

    By the defaults a tenth of a busy worker's time goes into looking through modules and routes for garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _await_orphaned(parent: int, stop: Any) -> None:
    """Stop when the supervisor is gone, also where the kernel doesn't say so."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells us
        await asyncio.sleep(1.0)
    stop()


def run(stdin: bytes) -> None:
    """The worker process."""
    import uvloop

    plan = Plan(**json.loads(stdin))
    logs.start(plan.log_level, plan.log_format)
    logging.getLogger("uvicorn.error").setLevel("WARNING")
    # Some libraries raise it a hundredfold when imported; then a deeply nested body would overflow the C stack.
    sys.setrecursionlimit(RECURSION_LIMIT)
    uvloop.run(serve(plan))
