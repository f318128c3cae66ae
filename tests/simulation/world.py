"""One simulation: workers over the real ledger, callers, a chain, an administrator, and what befalls them. All from a seed.

What was sent, acknowledged and refused is written down here, by whoever sent it; laws.py compares that with the books.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from msgspec.structs import replace as changed

from freehold.clock import DAY_S
from freehold.db import LOST, Connection
from freehold.ledger.jobs import once
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import (
    FOREVER_S,
    Attempt,
    Charge,
    Hold,
    HoldRequest,
    KeyLimits,
    KeyState,
    Settlement,
    Source,
)
from freehold.ledger.problems import (
    AnswerStored,
    DayUnopened,
    IdempotencyConflict,
    IdempotencyInProgress,
    InsufficientCredit,
    KeyExpired,
    KeyLimitReached,
    KeyRevoked,
    RateLimited,
    StaleKey,
    StalePrice,
)
from freehold.money import MAX_NANO
from freehold.problems import Conflict, LedgerUnavailable, NotFound

from .loop import PROCESS, SeededLoop
from .server import EPOCH_S, Server, SimulatedDatabase, Weather

LOG = logging.getLogger("freehold.ledger.batch")
T = TypeVar("T")
REFUSED = (
    InsufficientCredit,
    KeyLimitReached,
    KeyRevoked,
    KeyExpired,
    RateLimited,
    IdempotencyConflict,
    IdempotencyInProgress,
    AnswerStored,
)
FIRST_DAY = 21_000
"""The first of a month, so that one midnight is a day's and the one before is a month's, too."""
LONGEST_S = 600.0
"""Virtual seconds after which a simulation that isn't over is stuck."""


class Died(Exception):
    """The process was killed before it answered."""


class Listening(logging.Handler):
    """Hears what the ledger has to log as an error: something that PostgreSQL refused, and no rule foresaw."""

    def __init__(self, world: "World") -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        if fault is not None and not isinstance(fault, asyncpg.LockNotAvailableError):
            self._world.breaks("every refusal has a name", f"PostgreSQL refused: {fault!r}")


class VirtualClock:
    def __init__(self, loop: SeededLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return EPOCH_S + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()


@dataclass
class Plan:
    """What a seed draws: sizes, and which faults there are."""

    workers: int
    accounts: int
    callers: int
    calls: int
    scale: int
    orderly: bool
    weather: Weather
    kills: list[int]
    stops: list[int]
    leaves: float
    doubles: float
    midnight: bool
    stall: bool
    before_midnight_s: int
    first_day: int
    outage_s: float
    """How long PostgreSQL can't be reached; 0: it always can."""
    crowded: bool = False

    @classmethod
    def drawn(cls, random: Random) -> "Plan":
        def rate(most: float) -> float:
            return random.choice((0.0, 0.0, most / 4, most))

        weather = Weather(
            random,
            split=random.choice((0.0, 0.2, 0.6)),
            lost_before=rate(0.06),
            aborted=rate(0.1),
            lost_after=rate(0.08),
            late_commit=rate(0.08),
            serialization=rate(0.1),
            refused_connect=rate(0.2),
            latency_s=random.choice((0.001, 0.02, 0.3)),
        )
        return cls(
            workers=random.randint(1, 3),
            accounts=random.choice((1, 1, 2, 3)),
            callers=random.randint(2, 7),
            calls=random.randint(1, 4),
            scale=random.choice((10, 1_000, 10**9, 10**14, MAX_NANO // 400)),
            orderly=random.random() < 0.4,
            weather=weather,
            kills=sorted(random.randint(50, 2_500) for _ in range(random.choice((0, 0, 1, 2)))),
            stops=sorted(random.randint(100, 1_500) for _ in range(random.choice((0, 0, 0, 1)))),
            leaves=random.choice((0.0, 0.1, 0.4)),
            doubles=random.choice((0.0, 0.1, 0.4)),
            midnight=random.random() < 0.5,
            stall=random.random() < 0.15,
            before_midnight_s=random.randint(1, 12),
            first_day=random.choice((FIRST_DAY - 1, FIRST_DAY)),
            outage_s=random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 7.0, 18.0)),
        )._crowded(random.random() < 0.35)

    def _crowded(self, crowded: bool) -> "Plan":
        """Many callers of few workers on one account or two with little in them, as fast as they can."""
        if crowded:
            self.crowded, self.accounts, self.workers = True, min(2, self.accounts), max(2, self.workers)
            self.callers, self.calls = max(6, self.callers), max(3, self.calls)
            self.weather.split, self.weather.latency_s = 0.6, 0.02
        return self


@dataclass
class Call:
    """One caller's call, as the caller knows it."""

    request: HoldRequest
    epoch: int
    """The worker's when the call was sent."""
    began: int = 0
    """In the loop's steps, as all moments here."""
    bodies: list[HoldRequest] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    refused: str | None = None
    unknown: bool = False
    left: bool = False
    """Its caller went while it was being held."""
    extended: bool = False
    known: dict[str, Any] = field(default_factory=dict)
    """What had been acknowledged to somebody before the hold was sent."""
    settlements: list[Settlement] = field(default_factory=list)
    """Every body that was sent."""
    charges: list[tuple[Settlement, Charge]] = field(default_factory=list)
    charged_at: int = 0
    released: bool = False
    release_sent: bool = False
    owed: tuple[Attempt, ...] = ()
    """What its tries cost, where it was released."""
    answer_known: bool = False
    """What a repeat is answered was acknowledged as stored."""
    not_open: bool = False
    worker: int = 0


@dataclass
class Issue:
    """One thing that the chain, or the operator, posts."""

    external_id: str
    verb: str
    bodies: list[Any] = field(default_factory=list)
    """Acknowledged."""
    conflicts: list[Any] = field(default_factory=list)


@dataclass
class Account:
    id: int
    rich: bool
    keys: dict[int, KeyLimits]
    net: dict[str, int] = field(default_factory=dict)
    """By the grant's external id: what it was issued for, raised and reversed to."""
    sources: dict[str, Source] = field(default_factory=dict)
    days: dict[int, str] = field(default_factory=dict)
    stake: int = 0
    posted: set[str] = field(default_factory=set)
    """Ids of days that stand in the books."""
    issues: dict[str, Issue] = field(default_factory=dict)
    revoked_at: dict[int, int] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(eq=False)
class Worker:
    number: int
    ledger: Ledger
    database: SimulatedDatabase
    died: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: bool = False
    failed: list[Ledger] = field(default_factory=list)
    """That couldn't start."""
    tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)


def _answer(request_id: UUID) -> bytes:
    """What the call said: sealed by its gateway, so nothing to the ledger."""
    return b"answer of " + request_id.bytes


@dataclass
class Report:
    seed: int
    broken: list[str]
    digest: str
    trace: list[str]
    counts: dict[str, int]
    steps: int
    virtual_s: float


class World:
    """Everything of one seed but PostgreSQL."""

    def __init__(
        self, seed: int, server: Server, *, ledger_type: type[Ledger] = Ledger, keep_trace: bool = True
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.plan = Plan.drawn(self.random)
        self.burst: int | None = None
        """The one key that all callers use at once, where they do."""
        self._burst(Random(f"burst {seed}"))
        self.server = server
        self.loop = SeededLoop(self.random, orderly=self.plan.orderly)
        self.weather = self.plan.weather
        self.weather.told = lambda what: self.count(what)
        self.ledger_type = ledger_type
        self.workers: list[Worker] = []
        self.accounts: list[Account] = []
        self.calls: list[Call] = []
        self.broken: list[str] = []
        self.trace: list[str] = []
        self.counts: dict[str, int] = {}
        self.price = 1
        self.price_known = 0
        self.lapsed_known: dict[int, int] = {}
        """Epoch: the step from which on it was known as lapsed."""
        self.ended: set[int] = set()
        """Epochs that their own workers ended."""
        self.at_s = self.plan.first_day * DAY_S + (
            DAY_S - self.plan.before_midnight_s if self.plan.midnight else 40_000
        )
        self.base_s = self.at_s
        self.provisional = False
        self.seen_books: dict[tuple[str, int, str], str] = {}
        self._digest = hashlib.sha256()
        self._names = 0
        self._numbers = 0
        self._crowd: set[asyncio.Task[Any]] = set()
        self._keep_trace = keep_trace
        self._waiting: list[str] = []

    def _burst(self, drawn: Random) -> None:
        """Now and then: eight callers at once, on one key with a small limit of an account that has enough."""
        if drawn.random() < 0.2:
            plan = self.plan
            self.burst = drawn.choice((2, 3, 3))
            plan.crowded, plan.accounts, plan.workers, plan.callers, plan.calls = True, 1, drawn.choice((1, 2)), 8, 3
            plan.scale = max(1_000, plan.scale)

    # ---- what is written down

    def say(self, text: str) -> None:
        line = f"{self.loop.steps:>6} {self.loop.time():>10.4f} p{PROCESS.get()} {text}"
        self._digest.update(line.encode())
        self.trace.append(line)
        if not self._keep_trace and len(self.trace) > 400:
            del self.trace[:200]

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.say(f"* {what}")

    def breaks(self, law: str, text: str) -> None:
        self.broken.append(f"{law}: {text}")
        self.say(f"BROKEN {law}: {text}")

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}:{self._names}"

    def uuid(self) -> UUID:
        return UUID(int=self.random.getrandbits(128))

    def amount(self) -> int:
        return self.random.randint(1, self.plan.scale)

    # ---- the run

    def run(self) -> Report:
        asyncio.set_event_loop(self.loop)
        self.server.begin(self.loop)
        listening = Listening(self)
        LOG.addHandler(listening)
        try:
            self.loop.run_until_complete(self._in_time())
            self.judge()
        except asyncpg.PostgresError as fault:
            self.breaks("every refusal has a name", repr(fault))
        except TimeoutError:
            self.breaks("every call ends", f"somebody waits for ever: {self._waiting}")
        finally:
            for worker in self.workers:
                worker.database.lose_all(self.random)
            self.server.end()
            self.loop.bury()
            asyncio.set_event_loop(None)
            LOG.removeHandler(listening)
        for fault in self.loop.faults:
            self.breaks("nothing fails unheard", str(fault.get("exception") or fault.get("message")))
        self._digest.update(repr(sorted(self.seen_books.items())).encode())
        return Report(
            self.seed, self.broken, self._digest.hexdigest(), self.trace, self.counts, self.loop.steps, self.loop.time()
        )

    def judge(self) -> None:
        """Hold the books against what was told, when everything is over."""
        from .laws import final

        final(self)

    def taken(self, row: dict[str, Any], charges: dict[str, dict[str, Any]]) -> int | None:
        """What a settled hold's call took of its key's tokens; None: what was counted stays."""
        call = next((call for call in self.calls if str(call.request.request_id) == row["request_id"]), None)
        return call.settlements[0].tokens if call is not None and call.settlements else None

    async def _in_time(self) -> None:
        living = self.loop.create_task(self._live())
        await asyncio.wait({living}, timeout=LONGEST_S)
        if living.done():
            living.result()
            return
        self._waiting = sorted(
            f"{task.get_coro().__qualname__} at {[frame.f_lineno for frame in task.get_stack()]}"
            for task in asyncio.all_tasks(self.loop)
        )
        raise TimeoutError

    async def _live(self) -> None:
        for _ in range(self.plan.accounts):
            self._make_account()
        for _ in range(self.plan.workers):
            self.spawn_worker()
        jobs = [self.go(self._jobs()), self.go(self._chain_time())]
        busy = [self.go(self._chain(account)) for account in self.accounts]
        busy.append(self.go(self._administer()))
        if self.plan.outage_s:
            self.loop.call_later(self.random.uniform(0, 5), self._go_out)
        for at in self.plan.kills:
            self.loop.after_steps(at, self._kill_one)
        for at in self.plan.stops:
            self.loop.after_steps(at, self._stop_one)
        if self.random.random() < 0.5:
            self.loop.after_steps(self.random.randint(200, 2_000), self._checkpoint)
        await asyncio.gather(*busy)
        while self._crowd:
            await asyncio.wait(self._crowd)
        await self._end(jobs)

    async def _end(self, jobs: "list[asyncio.Task[None]]") -> None:
        """Faults cease, everything comes to rest, and what dead workers left is swept."""
        from .laws import at_rest

        self.weather.calm = True
        for worker in self.alive():
            self.loop.continue_process(worker.number)
            worker.stopped = False
        await asyncio.sleep(8)
        at_rest(self)
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        if not self.alive():
            await self._started(self._new_worker())
        for worker in self.alive():
            epoch = worker.ledger.epoch
            await self.on(worker, worker.ledger.stop)
            self.ended.add(epoch)
        self.loop._timer_cancelled_count = 0
        last = self._new_worker()
        await self.on(last, last.ledger.start)
        await self.on(last, lambda: last.ledger.set_time(self.now_s() + 1, opened_day=self.plan.first_day - 1))
        await asyncio.sleep(0)
        # Everybody else is gone for longer than a lapse.
        self.server.admin(
            "execute",
            "update ledger.epochs set beat_at = beat_at - interval '20 s' where lapsed_at is null and id <> $1",
            last.ledger.epoch,
        )
        await self.on(last, lambda: once(last.ledger))
        await self.on(last, last.ledger.stop)
        self.ended.add(last.ledger.epoch)

    def go(self, work: Any) -> "asyncio.Task[Any]":
        """A task of the world's own."""
        context = copy_context()
        context.run(PROCESS.set, 0)
        return self.loop.create_task(work, context=context)

    def _make_account(self) -> None:
        rich = self.random.random() < (0.2 if self.plan.crowded else 0.4) or self.burst is not None
        account_id = self.server.admin("fetchval", "insert into ledger.accounts default values returning id")
        account = Account(account_id, rich, {})
        for key_id in (1, 2, 3):
            caps = {}
            if key_id == 2 and self.random.random() < 0.6:
                caps["day_cap_nano"] = self.plan.scale * self.random.randint(1, 6)
            if key_id == 2 and self.random.random() < 0.3:
                caps["total_cap_nano"] = self.plan.scale * self.random.randint(1, 10)
            if key_id == 3:
                caps = self._drawn_limits()
            if self.burst is not None:
                small = self.plan.scale * self.random.randint(2, 4) // 2
                ways = {2: ("day_cap_nano", "total_cap_nano"), 3: ("month_cap_nano", "rpm", "tpm")}
                limit = self.random.choice(ways.get(key_id, ("day_cap_nano",)))
                caps = {limit: {"rpm": 3, "tpm": 200}.get(limit, small)}
            account.keys[key_id] = limits = KeyLimits(account_id, key_id, 1, **caps)
            self.server.admin(
                "execute",
                "insert into ledger.keys (account_id, key_id, version, state, day_cap, total_cap, month_cap, rpm, tpm,"
                " expires_at_s) values ($1, $2, 1, 'active', $3, $4, $5, $6, $7, $8)",
                account_id,
                key_id,
                limits.day_cap_nano,
                limits.total_cap_nano,
                limits.month_cap_nano,
                limits.rpm,
                limits.tpm,
                limits.expires_at_s,
            )
        self.accounts.append(account)

    def _drawn_limits(self) -> dict[str, int]:
        """Of a key that has an end, limits per minute and a cap per month, or some of them."""
        limits = {}
        if self.random.random() < 0.5:
            limits["month_cap_nano"] = self.plan.scale * self.random.randint(1, 6) // 2
        if self.random.random() < 0.5:
            limits["rpm"] = self.random.randint(1, 5)
        if self.random.random() < 0.5:
            limits["tpm"] = self.random.randint(50, 300)
        if self.random.random() < 0.2:
            limits["expires_at_s"] = self.at_s + self.random.randint(1, 15)
        return limits

    # ---- workers

    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.died.is_set()]

    def _new_worker(self) -> Worker:
        self._numbers += 1
        database = SimulatedDatabase(self.server, self.weather)
        worker = Worker(self._numbers, self.ledger_type(database, clock=VirtualClock(self.loop)), database)
        self.workers.append(worker)
        return worker

    def spawn_worker(self, callers: int | None = None) -> Worker:
        worker = self._new_worker()
        self.say(f"worker {worker.number} starts")
        share = max(1, self.plan.callers // self.plan.workers) if callers is None else callers
        task = self.go(self._serve(worker, share))
        self._crowd.add(task)
        task.add_done_callback(self._crowd.discard)
        return worker

    async def _serve(self, worker: Worker, callers: int) -> None:
        """Start a worker and its callers; until they have all ended, or the worker died."""
        try:
            await self._started(worker)
            tasks = [self._task(worker, self._caller(worker)) for _ in range(callers)]
            await self._or_died(worker, asyncio.gather(*tasks, return_exceptions=True))
            for task in tasks:
                if task.exception() is not None:
                    self.breaks("nothing fails unheard", f"a caller: {task.exception()!r}")
        except Died:
            return

    async def _started(self, worker: Worker) -> None:
        while True:
            try:
                await self.on(worker, worker.ledger.start)
                return
            except LedgerUnavailable:
                worker.failed.append(worker.ledger)
                worker.ledger = self.ledger_type(worker.database, clock=VirtualClock(self.loop))
                await asyncio.sleep(0.2)

    def _task(self, worker: Worker, work: Any) -> "asyncio.Task[Any]":
        context = copy_context()
        context.run(PROCESS.set, worker.number)
        task = self.loop.create_task(work, context=context)
        worker.tasks.add(task)
        task.add_done_callback(worker.tasks.discard)
        return task

    async def on(self, worker: Worker, work: Callable[[], Awaitable[T]]) -> T:
        """Do it in the worker's process. Raises Died."""

        async def done() -> T:
            return await work()

        if worker.died.is_set():
            raise Died
        return await self._or_died(worker, self._task(worker, done()))

    async def _or_died(self, worker: Worker, task: "asyncio.Future[T]") -> T:
        died = self.go(worker.died.wait())
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if task.done():
            return task.result()
        raise Died

    def _go_out(self) -> None:
        """For a while nobody reaches PostgreSQL."""
        self.say("PostgreSQL is out")
        self.weather.out = True

        def back() -> None:
            self.say("PostgreSQL is back")
            self.weather.out = False

        self.loop.call_later(self.plan.outage_s, back)

    def _kill_one(self) -> None:
        if self.weather.calm or not (living := self.alive()):
            return
        worker = self.random.choice(living)
        self.count("worker killed")
        self.loop.kill(worker.number)
        worker.died.set()
        worker.database.lose_all(self.random)
        self.loop.call_later(self.random.random() * 20, lambda: self.weather.calm or self.spawn_worker())

    def _stop_one(self) -> None:
        if self.weather.calm or not (living := self.alive()):
            return
        worker = self.random.choice(living)
        self.count("worker stopped")
        worker.stopped = True
        self.loop.stop_process(worker.number)
        seconds = self.random.choice((3, 17, 30))

        def go_on() -> None:
            self.say(f"worker {worker.number} goes on")
            worker.stopped = False
            self.loop.continue_process(worker.number)

        self.loop.call_later(seconds, go_on)

    async def anywhere(self, work: Callable[[Worker], Awaitable[T]]) -> T:
        """On some worker, and on another until its outcome is known."""
        while True:
            living = self.alive()
            if not living:
                await asyncio.sleep(1)
                continue
            worker = self.random.choice(living)
            try:
                return await self.on(worker, lambda: work(worker))  # noqa: B023 - awaited before the next turn
            except (Died, LedgerUnavailable, *LOST):
                await asyncio.sleep(0.1)

    # ---- callers

    async def _caller(self, worker: Worker) -> None:
        if self.burst is not None:
            await asyncio.sleep(0.5)  # by then there is credit
        for _ in range(self.plan.calls):
            if not self.plan.crowded:
                await asyncio.sleep(self.random.choice((0, 0, 0.01, 1.0)) * self.random.random())
            await self._one_call(worker, self.random.choice(self.accounts))

    def _new_request(self, account: Account) -> HoldRequest:
        amount = self.amount()
        least = amount if self.random.random() < 0.7 else self.random.randint(0, amount)
        key_id = self.burst or self.random.choice((1, 2, 3, 3) if self.plan.crowded else (1, 2, 3))
        keyed = self.random.random() < 0.25
        return HoldRequest(
            account.id,
            key_id,
            self.uuid(),
            amount,
            least,
            price_version=self.price_known,
            key_version=account.keys[key_id].version,
            tokens=self.random.choice((0, 60, 100, 150)),
            idempotency_key=f"again{self.random.randint(1, 3)}" if keyed else None,
            body_digest=bytes([self.random.randint(1, 2)]) if keyed else None,
        )

    async def _one_call(self, worker: Worker, account: Account) -> None:
        request = self._new_request(account)
        for _ in range(6):
            call = Call(request, worker.ledger.epoch, worker=worker.number)
            self.calls.append(call)
            outcome = await self._hold(worker, account, call)
            if isinstance(outcome, Hold):
                await self._end_call(worker, account, call, outcome)
                return
            if isinstance(outcome, DayUnopened):
                await self._wait_for(self.go(self._open_day(account)))
                request = changed(request, day_unopened_ok=True)
            elif isinstance(outcome, StalePrice):
                request = changed(request, price_version=outcome.current)
            elif isinstance(outcome, StaleKey):
                request = changed(request, key_version=account.keys[request.key_id].version)
            elif isinstance(outcome, RateLimited) and self._waits_for(outcome):
                await asyncio.sleep(outcome.retry_after_s or 0)
            else:
                return
            request = changed(request, request_id=self.uuid())

    def _waits_for(self, limited: RateLimited) -> bool:
        """Whether a caller that was told to come again does: some, and not when the simulation is old."""
        return limited.retry_after_s is not None and self.loop.time() < 40 and self.random.random() < 0.4

    @staticmethod
    async def _wait_for(task: "asyncio.Task[Any]") -> None:
        await asyncio.wait({task})
        task.result()

    async def _hold(self, worker: Worker, account: Account, call: Call) -> object:
        call.began = self.loop.steps
        call.known = {
            "price": self.price_known,
            "revoked": call.request.key_id in account.revoked_at,
            "version": account.keys[call.request.key_id].version,
            "rich": account.rich and bool(account.net),
            "answers": {other.request.request_id for other in self.calls if other.answer_known},
        }
        bodies = [call.request]
        if self.random.random() < self.plan.doubles:
            bodies.append(call.request if self.random.random() < 0.5 else changed(
                call.request, amount_nano=call.request.amount_nano + 1
            ))  # fmt: skip
        call.bodies = bodies
        short = str(call.request.request_id)[:8]
        self.say(f"hold {short} {call.request.amount_nano} of key {account.id}.{call.request.key_id}")
        tasks = [asyncio.ensure_future(self._try_hold(worker, call, body)) for body in bodies]
        if self.random.random() < self.plan.leaves:
            call.left = True
            for task in tasks:
                self.loop.after_steps(self.random.randint(1, 60), task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            self.say(f"hold {short}: {type(outcome).__name__}")
        first: object = None
        for body, outcome in zip(bodies, outcomes, strict=True):
            if isinstance(outcome, Hold):
                call.holds.append(outcome)
                call.request = body
                first = outcome
        if first is not None:
            if len(set(call.holds)) > 1:
                self.breaks("a repeat is a no-op", f"hold {short} was answered in two ways: {call.holds}")
            bodied = {body for body, outcome in zip(bodies, outcomes, strict=True) if isinstance(outcome, Hold)}
            if len(bodied) > 1:
                self.breaks("another body is refused", f"hold {short} was granted for two bodies")
            # Where one of two callers of this id left, the hold may be given back under the other.
            call.left = any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            call.unknown = any(isinstance(outcome, LedgerUnavailable) for outcome in outcomes)
            return first
        outcome = outcomes[0]
        if isinstance(outcome, REFUSED):
            call.refused = type(outcome).__name__
            self.counts[call.refused] = self.counts.get(call.refused, 0) + 1
            if isinstance(outcome, AnswerStored):
                self._answered(call, outcome)
            if isinstance(outcome, InsufficientCredit) and call.known["rich"] and len(bodies) == 1:
                self.breaks("no credit leaks", f"hold {short} was refused on a rich account: {outcome}")
        elif isinstance(outcome, DayUnopened | StalePrice | StaleKey):
            call.refused = type(outcome).__name__
        elif isinstance(outcome, LedgerUnavailable | asyncio.CancelledError | Conflict):
            call.unknown = True
        elif isinstance(outcome, BaseException):
            self.breaks("every refusal has a name", f"hold {short}: {outcome!r}")
        if any(other is not None and type(other) is not type(outcome) for other in outcomes):
            call.unknown, call.refused = True, None
        return outcome

    def _answered(self, call: Call, stored: AnswerStored) -> None:
        """A repeat is answered what the first call of its key was, of the same account and body."""
        law, name = "a repeat gets the first call's answer", call.request.request_id
        of = (call.request.account_id, call.request.idempotency_key, call.request.body_digest)
        first = next((other for other in self.calls if other.request.request_id == stored.request_id), None)
        if first is None or of != (first.request.account_id, first.request.idempotency_key, first.request.body_digest):
            self.breaks(law, f"{name} was answered as {stored.request_id}, which is another call")
        elif stored.answer is None and stored.request_id in call.known["answers"]:
            self.breaks(law, f"{name} got no answer, and that of {stored.request_id} was stored")
        elif stored.answer is not None and stored.answer != _answer(stored.request_id):
            self.breaks(law, f"{name} got {stored.answer!r} as the answer of {stored.request_id}")

    async def _try_hold(self, worker: Worker, call: Call, body: HoldRequest) -> Hold:
        return await worker.ledger.hold(body)

    async def _end_call(self, worker: Worker, account: Account, call: Call, hold: Hold) -> None:
        self.count("held")
        short = str(hold.request_id)[:8]
        longest_s = 0.02 if self.plan.crowded else self.random.choice((0.0, 0.01, 0.5, 3.0, 3.0, 25.0))
        await asyncio.sleep(longest_s * self.random.random())
        if self.random.random() < 0.15:
            hold = await self._extend(worker, call, hold)
        if self.random.random() < 0.12:
            call.release_sent = True
            call.owed = self._attempts()
            await self._until_known(lambda: worker.ledger.release(hold, call.owed))
            call.released = True
            self.say(f"released {short}")
            return
        percent = self.random.choice((0, 30, 70, 100, 100, self.random.randint(0, 100), 130))
        settlement = self._settlement(hold, percent, call.request.tokens)
        call.settlements.append(settlement)
        tasks = [asyncio.ensure_future(self._until_known(lambda: worker.ledger.settle(hold, settlement)))]
        other = settlement
        if self.random.random() < self.plan.doubles:
            if self.random.random() < 0.5:
                other = changed(settlement, cost_nano=settlement.cost_nano + 1)
                call.settlements.append(other)
            tasks.append(asyncio.ensure_future(self._until_known(lambda: worker.ledger.settle(hold, other))))
        if self.random.random() < self.plan.leaves:
            self.loop.after_steps(self.random.randint(1, 40), tasks[0].cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(outcomes[0], asyncio.CancelledError):
            # The caller left; the door goes on until the outcome is known.
            again = asyncio.ensure_future(self._until_known(lambda: worker.ledger.settle(hold, settlement)))
            outcomes[0] = (await asyncio.gather(again, return_exceptions=True))[0]
        for body, outcome in zip((settlement, other), outcomes, strict=False):
            self.say(f"settle {short} {body.cost_nano}: {type(outcome).__name__}")
            if isinstance(outcome, Charge):
                call.charges.append((body, outcome))
                call.charged_at = self.loop.steps
                self.counts["charged"] = self.counts.get("charged", 0) + 1
            elif isinstance(outcome, NotFound):
                call.not_open = True
            elif isinstance(outcome, Conflict):
                continue
            elif isinstance(outcome, BaseException):
                self.breaks("every refusal has a name", f"settle {short}: {outcome!r}")
        if call.charges and settlement.answer_follows:
            call.answer_known = await self._until_known(
                lambda: worker.ledger.store_answer(hold, _answer(hold.request_id))
            )
        elif settlement.answer is not None:
            call.answer_known = any(charge.outcome != "unsettled" for _, charge in call.charges)
        bodies = {body.cost_nano for body, charge in call.charges if charge.outcome != "unsettled"}
        if len(bodies) > 1:
            self.breaks("another body is refused", f"settle {short} was charged for {sorted(bodies)}")
        if not call.charges and not call.not_open:
            self.breaks("a repeat is a no-op", f"settle {short} was never charged: {outcomes}")

    def _settlement(self, hold: Hold, percent: int, bound: int) -> Settlement:
        """What a call came to, what its tries cost, and maybe what a repeat is answered."""
        kept = self.random.random() if hold.idempotency_key is not None else 1.0
        return Settlement(
            hold.amount_nano * percent // 100,
            "small",
            {"output": percent},
            attempts=self._attempts(),
            tokens=self.random.choice((None, None, self.random.randint(0, bound), bound + 5)),
            answer=_answer(hold.request_id) if kept < 0.4 else None,
            answer_follows=0.4 <= kept < 0.8,
        )

    def _attempts(self) -> tuple[Attempt, ...]:
        return tuple(
            Attempt(f"up{n}", self.random.randint(0, 1_000), "complete")
            for n in range(self.random.choice((0, 0, 1, 2)))
        )

    async def _extend(self, worker: Worker, call: Call, hold: Hold) -> Hold:
        more = self.amount()
        revoked = call.request.key_id in self._account(hold.account_id).revoked_at
        call.extended = True  # unless it is told that it isn't: the worker may die
        unknown = False
        for _ in range(4):
            try:
                longer = await worker.ledger.extend(
                    hold, more, tokens=self.random.choice((0, 30)), day_unopened_ok=True
                )
            except LedgerUnavailable:
                unknown = True
                continue
            except (*REFUSED, Conflict):
                call.extended = unknown
                return hold
            except NotFound:
                return hold  # it was swept: after it had grown, or before
            self.count("extended")
            if revoked:
                self.breaks("the hold call decides", f"{hold.request_id} was extended by a key known as revoked")
            if longer.amount_nano != hold.amount_nano + more:
                self.breaks("a repeat is a no-op", f"{hold.request_id} grew to {longer.amount_nano}")
            return longer
        return hold

    def _account(self, account_id: int) -> Account:
        return next(account for account in self.accounts if account.id == account_id)

    async def _until_known(self, work: Callable[[], Awaitable[T]]) -> T:
        pause_s = 0.1
        while True:
            try:
                return await work()
            except LedgerUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(5.0, pause_s * 2)

    # ---- the chain

    async def _post(self, account: Account, verb: str, external_id: str, body: Any, send: Any) -> object:
        """Post it until it is known; now and then twice at once, also with another body. What it was answered."""
        issue = account.issues.setdefault(external_id, Issue(external_id, verb))

        async def one(this: Any) -> object:
            try:
                answer = await self.anywhere(lambda worker: send(worker.ledger, this))
            except Conflict:
                issue.conflicts.append(this)
                return None
            except asyncpg.PostgresError as fault:
                self.breaks("every refusal has a name", f"{external_id}: {fault!r}")
                return None
            issue.bodies.append(this)
            return answer

        tries = [self.go(one(body))]
        if self.random.random() < self.plan.doubles:
            tries.append(self.go(one(body)))
        if self.random.random() < self.plan.doubles / 2 and isinstance(body, int) and verb == "grant":
            tries.append(self.go(one(body + 1)))
        answers = await asyncio.gather(*tries)
        if not issue.bodies:
            self.breaks("what was told is durable", f"{external_id} was never posted")
            issue.bodies.append(body)
        if len(set(issue.bodies)) != 1:
            self.breaks("another body is refused", f"{external_id} was posted for {sorted(set(issue.bodies))}")
        self.say(f"{verb} {external_id} of {account.id}: {issue.bodies[:1]}")
        return next((answer for answer in answers if answer is not None), None)

    async def _grant(self, account: Account, source: Source, amount: int, *, ends_s: int = FOREVER_S) -> None:
        external_id = self.name("evt")
        async with account.turn:
            await self._post(
                account, "grant", external_id, amount,
                lambda ledger, this: ledger.grant(
                    account.id, source, this, external_id, starts_at_s=0, expires_at_s=ends_s
                ),
            )  # fmt: skip
            account.net[external_id] = account.issues[external_id].bodies[0]
            account.sources[external_id] = source

    async def _open_day(self, account: Account) -> None:
        async with account.turn:
            await self._day(account, account.stake, opens=True)

    async def _day(self, account: Account, to: int, *, opens: bool) -> None:
        time = await self.anywhere(lambda worker: worker.ledger.time())
        day = time.opened_day
        if day < time.at_s // DAY_S:
            return
        external_id = f"day:{day}:allowance:{'open' if opens else self.name('raise')}"
        grant = account.days.get(day, external_id)
        first = account.issues.get(external_id)
        if first is not None:
            to = first.bodies[0]
        before = account.net.get(grant, 0)
        # An id stands once it has changed something: what found nothing to raise is no posting, and may come again.
        known = external_id in account.posted
        await self._post(
            account, "day", external_id, to,
            lambda ledger, this: (ledger.open_day if opens else ledger.raise_grant)(
                account.id, day, Source.ALLOWANCE, this, external_id
            ),
        )  # fmt: skip
        if known:
            return
        if to > before:
            account.posted.add(external_id)
            account.net[grant] = to
        if to > 0 and day not in account.days:
            account.days[day] = external_id
            account.sources[external_id] = Source.ALLOWANCE

    async def _reverse(self, account: Account) -> None:
        names = [name for name in account.net if name in account.sources]
        if not names or account.rich:
            return
        async with account.turn:
            grant = self.random.choice(names)
            to = self.random.randint(0, account.net[grant])
            less = account.net[grant] - to
            external_id = self.name("reorg")
            taken = await self._post(
                account, "reverse", external_id, to,
                lambda ledger, this: ledger.reverse(account.id, grant, this, external_id),
            )  # fmt: skip
            account.net[grant] = min(account.net[grant], to)
            if not isinstance(taken, int) or not 0 <= taken <= less:
                self.breaks("a reversal adds, never deletes", f"{external_id} took {taken} of {less}")

    async def _replay(self, account: Account) -> None:
        """Something old arrives once more, long after."""
        old = [issue for issue in account.issues.values() if issue.verb == "grant"]
        if not old:
            return
        issue = self.random.choice(old)
        other = self.random.random() < 0.5
        amount = issue.bodies[0] + other
        source = account.sources[issue.external_id]
        ends_s = FOREVER_S
        if source is not Source.PREPAID:
            return
        try:
            await self.anywhere(
                lambda worker: worker.ledger.grant(
                    account.id, source, amount, issue.external_id, starts_at_s=0, expires_at_s=ends_s
                )
            )
        except Conflict:
            if not other:
                self.breaks("a repeat is a no-op", f"a repeat of {issue.external_id} was refused")
        else:
            if other:
                self.breaks("another body is refused", f"{issue.external_id} was granted again for {amount}")
        self.count("replayed")

    async def _chain(self, account: Account) -> None:
        """What befalls one account from outside, one thing after another."""
        account.stake = self.amount() * self.random.randint(0, 4)
        first = self.plan.scale * (200 if account.rich else self.random.randint(1, 6))
        await self._grant(account, Source.PREPAID, first)
        for _ in range(self.random.randint(2, 6)):
            await asyncio.sleep(self.random.random() * (0.5 if self.plan.crowded else 4))
            match self.random.randrange(6):
                case 0:
                    await self._grant(account, Source.PREPAID, self.amount() * 2)
                case 1:
                    ends = self.now_s() + self.random.randint(1, 20)
                    await self._grant(account, Source.PROMO, self.amount() * 2, ends_s=ends)
                case 2:
                    account.stake += self.amount()
                    async with account.turn:
                        await self._day(account, account.stake, opens=False)
                case 3:
                    await self._reverse(account)
                case 4:
                    await self._replay(account)
                case _:
                    await self._open_day(account)

    def now_s(self) -> int:
        return self.base_s + int(self.loop.time())

    async def _chain_time(self) -> None:
        """Blocks, and the day that is opened a little after its midnight."""
        silent_from = self.random.uniform(2, 8) if self.plan.stall else 1e9
        while True:
            now = self.loop.time()
            if not silent_from <= now < silent_from + 6:
                self.at_s = self.now_s()
                # A day is opened by a block of it, confirmed by the time of 2 s.
                await self.anywhere(
                    lambda worker: worker.ledger.set_time(self.at_s, opened_day=(self.at_s - 2) // DAY_S)
                )
            elif not self.provisional:
                # As if it had been silent for two minutes: time runs ahead of its next block's.
                self.provisional = True
                self.server.admin("execute", "update ledger.clock set refreshed_at = refreshed_at - interval '125 s'")
            await asyncio.sleep(self.random.uniform(0.3, 1) if self.plan.crowded else self.random.uniform(1, 6))

    # ---- the administrator, and jobs

    async def _administer(self) -> None:
        for _ in range(self.random.randint(0, 4)):
            await asyncio.sleep(self.random.random() * 5)
            if self.random.random() < 0.5:
                self.price += 1
                version = self.price

                async def reprice(worker: Worker, version: int = version) -> None:
                    await worker.database.transact(lambda conn: worker.ledger.set_price_version(conn, version))

                await self.anywhere(reprice)
                self.price_known = version
                self.say(f"price {version}")
            else:
                await self._change_key(self.random.choice(self.accounts), self.random.choice((2, 3)))

    async def _change_key(self, account: Account, key_id: int) -> None:
        limits = account.keys[key_id]
        limits = replace(limits, version=limits.version + 1)
        revoke = self.random.random() < 0.5
        if revoke:
            limits = replace(limits, state=KeyState.REVOKED)

        async def put(worker: Worker) -> None:
            async def work(conn: Connection) -> None:
                await worker.ledger.put_key(conn, limits)

            await worker.database.transact(work)

        await self.anywhere(put)
        account.keys[key_id] = limits
        if limits.state is KeyState.REVOKED:
            account.revoked_at.setdefault(key_id, self.loop.steps)
        self.say(f"key {account.id}.{key_id} {limits.state.value} {limits.version}")

    async def _jobs(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(3, 9))
            swept = await self.anywhere(lambda worker: once(worker.ledger, limit=self.random.choice((1, 500))))
            if swept != (0, 0):
                self.count("swept or expired")
            for row in self.server.admin("fetch", "select id from ledger.epochs where lapsed_at is not null"):
                self.lapsed_known.setdefault(row["id"], self.loop.steps)

    def _checkpoint(self) -> None:
        from .laws import checkpoint

        checkpoint(self)
