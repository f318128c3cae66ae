"""Group commit: calls that arrive while a batch is at the database leave together as the next one.

Knows nothing of holds. A batch that the database refuses is sent again in halves, so that one bad item fails alone;
one whose COMMIT is unknown is sent again over a new connection, and its ids make the repeat a no-op.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg

from freehold.clock import Clock
from freehold.db import LOST, RETRYABLE, Connection, Database
from freehold.problems import LedgerUnavailable

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST = 256
"""Items in one batch."""
GATHER_S = 0.006
MANY = 12
"""A batch costs PostgreSQL as much as some ten calls in it. So after one of `MANY` or more the next begins no sooner than
`GATHER_S` after it began, or when twice as many wait; what comes alone, or with few, never waits."""

AGAIN_FIRST_S = 1.0
AGAIN_LAST_S = 60.0
"""How long a refused item that nobody waits for rests before it is sent again: doubled each time."""
MOST_REFUSALS = 12
"""After so many, some seven minutes, it is given up: what has it open is swept after its deadline."""

SETTINGS = """
set plan_cache_mode = force_generic_plan;
set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set jit = off;
set enable_bitmapscan = off; set enable_hashagg = off; set enable_material = off; set enable_memoize = off;
set lock_timeout = '1s'; set statement_timeout = '20s';
"""
"""A batch is a handful of look-ups by key however large the tables are, so it is planned once, for that. The lock
timeout keeps one account that somebody has locked from holding up all the others: its batch goes on in halves."""


@dataclass(eq=False, slots=True)
class Waiting(Generic[Item, Result]):
    """One call on its way. `answer` is None for work that nobody waits for."""

    item: Item
    id: Hashable
    until: float
    """Monotonic seconds: after this, the call is told that the ledger is unavailable."""
    answer: asyncio.Future[Result] | None
    tried: bool = False
    """Whether it was ever sent, so that it may have been applied."""
    rest_s: float = 0.0
    refusals: int = 0

    def abandoned(self) -> bool:
        """Whether its caller left."""
        return self.answer is not None and self.answer.cancelled()

    def answered(self) -> bool:
        return self.answer is not None and self.answer.done() and not self.answer.cancelled()


class GroupCommit(Generic[Item, Result]):
    """One dedicated connection, one batch on it at a time.

    `send` makes one database call for all items and returns a result for each, in order. `abandon` is told of an item
    that may have been applied although its caller got no answer, with the result where there is one; what waits is then
    dropped when its caller leaves. Without `abandon` it is sent all the same.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        send: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        abandon: Callable[[Item, Result | None], None] | None = None,
        patience_s: float = 5.0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._send = send
        self._abandon = abandon
        self._patience_s = patience_s
        self._connection: asyncpg.Connection | None = None
        self._queue: list[Waiting[Item, Result]] = []
        self._resting: dict[Waiting[Item, Result], asyncio.TimerHandle] = {}
        self._some = asyncio.Event()
        self._next_s = 0.0
        """Monotonic: when the next batch may begin."""
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.watch: Callable[[int, float], None] | None = None
        """Told of each batch: how many items, and how many seconds the database took."""

    async def start(self) -> None:
        """Connect. Raises OSError when the server can't be reached or refuses."""
        self._closing = False
        await self._connect()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send what is queued, then disconnect."""
        self._closing = True
        for waiting in list(self._resting):
            self._wake(waiting)
        self._some.set()
        if self._task is not None:
            await self._task
            self._task = None
        self._disconnect()

    def submit(self, item: Item, id: Hashable) -> asyncio.Future[Result]:
        """Queue an item. `id` names what it touches: two of the same never share a batch."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if self._closing or self._task is None:
            answer.set_exception(LedgerUnavailable(reason="it is stopping"))
            return answer
        self._queue.append(Waiting(item, id, self._clock.monotonic() + self._patience_s, answer))
        self._some.set()
        return answer

    def post(self, item: Item, id: Hashable) -> None:
        """Queue an item that nobody waits for. It is sent until the database takes it, has refused it MOST_REFUSALS
        times, or until `stop`.
        """
        self._queue.append(Waiting(item, id, float("inf"), None))
        self._some.set()

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._some.clear()
                await self._some.wait()
                continue
            await self._gather()
            batch = self._take()
            self._next_s = self._clock.monotonic() + GATHER_S if len(batch) >= MANY else 0.0
            try:
                await self._commit(batch)
            except Exception as fault:  # noqa: BLE001 - whoever waits must hear of it, and the next batch must go on
                for waiting in batch:
                    if not waiting.answered():
                        self._refuse(waiting, fault)

    async def _gather(self) -> None:
        """Let more come, where many do."""
        if self._next_s and len(self._queue) < 2 * MANY and not self._closing:
            pause_s = self._next_s - self._clock.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    def _take(self) -> list[Waiting[Item, Result]]:
        """The next batch, in order of arrival, without two items of one id and without what is dropped."""
        batch: list[Waiting[Item, Result]] = []
        later: list[Waiting[Item, Result]] = []
        ids: set[Hashable] = set()
        for waiting in self._queue:
            if self._abandon is not None and waiting.abandoned():
                continue
            if len(batch) == LARGEST or waiting.id in ids:
                later.append(waiting)
            else:
                ids.add(waiting.id)
                batch.append(waiting)
        self._queue = later
        return batch

    async def _commit(self, batch: list[Waiting[Item, Result]]) -> None:
        """Bring every item of `batch` to its answer."""
        attempt = 0
        while batch:
            try:
                connection = self._connection or await self._connect()
                for waiting in batch:
                    waiting.tried = True
                began = self._clock.monotonic()
                results = await self._send(connection, [waiting.item for waiting in batch])
            except (*LOST, *RETRYABLE) as fault:
                if isinstance(fault, LOST):
                    self._disconnect()
                log.warning("a batch of %d is sent again: %s", len(batch), fault)
                batch = self._patient(batch)
                self._queue = self._patient(self._queue)
                await asyncio.sleep(min(0.5, 0.002 * 2**attempt))
            except asyncpg.PostgresError as refused:
                if len(batch) == 1:
                    self._refuse(batch[0], refused)
                    return
                middle = len(batch) // 2
                await self._commit(batch[:middle])
                batch = batch[middle:]
            else:
                if self.watch is not None:
                    self.watch(len(batch), self._clock.monotonic() - began)
                for waiting, result in zip(batch, results, strict=True):
                    self._answer(waiting, result)
                return
            attempt += 1

    def _answer(self, waiting: Waiting[Item, Result], result: Result) -> None:
        if waiting.answer is not None and not waiting.answer.done():
            waiting.answer.set_result(result)
        elif waiting.answer is not None and self._abandon is not None:
            self._abandon(waiting.item, result)

    def _refuse(self, waiting: Waiting[Item, Result], refused: Exception) -> None:
        log.error("the database refused %r", waiting.item, exc_info=refused)
        waiting.refusals += 1
        if waiting.answer is None and not self._closing and waiting.refusals < MOST_REFUSALS:
            # Nobody else would send it again, also where it only waited too long for a lock.
            waiting.rest_s = min(AGAIN_LAST_S, max(AGAIN_FIRST_S, waiting.rest_s * 2))
            self._resting[waiting] = asyncio.get_running_loop().call_later(waiting.rest_s, self._wake, waiting)
            return
        self._give_up(waiting, "it refused the entry")

    def _wake(self, waiting: Waiting[Item, Result]) -> None:
        self._resting.pop(waiting).cancel()
        self._queue.append(waiting)
        self._some.set()

    def _give_up(self, waiting: Waiting[Item, Result], reason: str) -> None:
        """Tell the caller; where the item may have been applied, see that it is undone."""
        if waiting.answer is None:
            return
        if waiting.tried and self._abandon is not None:
            self._abandon(waiting.item, None)
        if not waiting.answer.done():
            waiting.answer.set_exception(LedgerUnavailable(reason=reason))
            waiting.answer.exception()  # counts as heard, also where a settlement's caller has left

    def _patient(self, waitings: list[Waiting[Item, Result]]) -> list[Waiting[Item, Result]]:
        """Those who may wait longer; the others are told that the ledger is unavailable."""
        now = self._clock.monotonic()
        kept: list[Waiting[Item, Result]] = []
        for waiting in waitings:
            if now < waiting.until and not self._closing:
                kept.append(waiting)
                continue
            self._give_up(waiting, "PostgreSQL doesn't answer")
        return kept

    async def _connect(self) -> asyncpg.Connection:
        try:
            connection = await self._database.dedicated()
            await connection.execute(SETTINGS)
        except asyncpg.PostgresError as refused:
            raise ConnectionRefusedError(str(refused)) from refused
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
