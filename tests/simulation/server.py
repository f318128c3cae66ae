"""The real PostgreSQL behind the simulation, and the network before it.

Statements are real, and run one at a time: each runs until PostgreSQL has answered or until it waits for a lock that
another simulated transaction holds. What waits is looked at again whenever a transaction ends. Real connections are
lent to simulated ones for the length of a transaction, so that losing a simulated connection costs nothing.
The database's clock is the simulation's: `clock_timestamp()` is found in the schema `sim`, ahead of PostgreSQL's own.
"""

import asyncio
import re
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from freehold.db import Database
from freehold.ledger.batch import SETTINGS

from .loop import SeededLoop

T = TypeVar("T")

EPOCH_S = 1_800_000_000
"""Wall time at the start of every simulation."""

CLOCK = f"""
create schema sim;
create sequence sim.time start {EPOCH_S * 1_000_000};
create function sim.clock_timestamp() returns timestamptz language sql volatile
as $$ select 'epoch'::timestamptz + last_value * interval '1 microsecond' from sim.time $$;
create function sim.pg_postmaster_start_time() returns timestamptz language sql stable
as $$ select 'epoch'::timestamptz $$;
"""

EMPTY = """
set session_replication_role = replica;
delete from ledger.idempotency; delete from ledger.rates;
delete from ledger.charges; delete from ledger.postings; delete from ledger.holds; delete from ledger.grants;
delete from ledger.keys; delete from ledger.accounts; delete from ledger.epochs;
set session_replication_role = origin;
update ledger.clock set at_s = 0, refreshed_at = 'epoch', opened_day = -1;
update ledger.price set version = 0;
"""
RESTART = """
select setval(s.oid, 1, false) from pg_class s join pg_namespace n on n.oid = s.relnamespace
where n.nspname = 'ledger' and s.relkind = 'S'
"""
VACUUM_EVERY = 40
"""Simulations between two removals of dead rows."""
_LOCK_TIMEOUT = re.compile(r"lock_timeout\s*=\s*'(\d+)s'")


async def prepare(url: str, name: str, patches: Callable[[asyncpg.Connection], Awaitable[None]] | None = None) -> str:
    """Create the database `name` on the server at `url` with the simulation's clock and every migration; its URL."""
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f'drop database if exists "{name}" with (force)')
        await admin.execute(f'create database "{name}" template template0 strategy file_copy')
        await admin.execute(f'alter database "{name}" set search_path = sim, pg_catalog, public')
        await admin.execute(f"alter database \"{name}\" set deadlock_timeout = '1ms'")
    finally:
        await admin.close()
    fresh = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    first = await asyncpg.connect(fresh)
    await first.execute(CLOCK)
    await first.close()
    database = await Database.connect(fresh, max_size=2)
    try:
        await database.migrate()
        if patches is not None:
            async with database.pool.acquire() as connection:
                await patches(connection)
    finally:
        await database.close()
    return fresh


@dataclass(eq=False)
class Blocked:
    """A statement that waits for somebody's lock."""

    real: asyncpg.Connection
    task: "asyncio.Task[Any]"
    answer: "asyncio.Future[None]"


class Server:
    """One database, used for one simulation after another in one thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._real = asyncio.new_event_loop()
        self._idle: list[asyncpg.Connection] = []
        self._lent: list[asyncpg.Connection] = []
        self._blocked: list[Blocked] = []
        self._told_us = -1
        self._runs = 0
        self.loop: SeededLoop | None = None
        self.database = self.now(Database.connect(url, min_size=1, max_size=2))
        self._admin: asyncpg.Connection = self.now(self._connect())

    def now(self, work: Coroutine[Any, Any, T]) -> T:
        """Run real I/O to its end, also from within the simulation's loop: to it, no time passes."""
        outer = events._get_running_loop()
        events._set_running_loop(None)
        try:
            return self._real.run_until_complete(work)
        finally:
            events._set_running_loop(outer)

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(self.url)
        await connection.execute(
            "set timezone to 'UTC';" + SETTINGS + "set lock_timeout = 0; set statement_timeout = 0"
        )
        return connection

    def begin(self, loop: SeededLoop) -> None:
        """Empty the database for a new simulation."""
        assert not self._lent and not self._blocked, "the simulation before this one left something behind"
        self.loop = loop
        self._told_us = -1
        self._runs += 1

        async def empty() -> None:
            await self._admin.execute(EMPTY)
            await self._admin.execute(RESTART)
            if self._runs % VACUUM_EVERY == 0:
                for table in ("charges", "postings", "holds", "grants", "keys", "accounts", "epochs", "clock", "rates"):
                    await self._admin.execute(f"vacuum ledger.{table}")

        self.now(empty())

    def admin(self, verb: str, sql: str, *args: Any) -> Any:
        """A statement of the world's own, at once."""
        self._tell_time()
        return self.now(getattr(self._admin, verb)(sql, *args))

    def close(self) -> None:
        async def close() -> None:
            for connection in (*self._idle, self._admin):
                await connection.close()
            await self.database.close()

        self.now(close())
        self._real.close()

    # ---- for connections

    def lend(self) -> asyncpg.Connection:
        real = self._idle.pop() if self._idle else self.now(self._connect())
        self._lent.append(real)
        return real

    def take_back(self, real: asyncpg.Connection) -> None:
        self._lent.remove(real)
        self._idle.append(real)

    def end(self) -> None:
        """The simulation is over: whatever is still at PostgreSQL comes to nothing."""
        for blocked in list(self._blocked):
            self.cancel(blocked)
        for real in list(self._lent):
            if real.is_in_transaction():
                self.now(real.execute("rollback"))
            self.take_back(real)

    def begin_transaction(self, real: asyncpg.Connection) -> None:
        news = self._news()
        self.now(real.execute(f"{news}; begin" if news else "begin"))

    def run(self, real: asyncpg.Connection, work: Coroutine[Any, Any, T], *, ends: bool) -> "T | Blocked":
        """Until PostgreSQL answers, or the statement waits. `ends`: it may end a transaction and so free others."""
        self._tell_time()

        async def until_known() -> "T | Blocked":
            task = self._real.create_task(work)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            if len(self._lent) == 1:
                return await task
            if await self._waits(task, real):
                assert self.loop is not None
                blocked = Blocked(real, task, self.loop.create_future())
                self._blocked.append(blocked)
                return blocked
            return task.result()

        try:
            return self.now(until_known())
        finally:
            if ends:
                self.look_again()

    def look_again(self) -> None:
        """Wake those whose locks have come free."""
        if not self._blocked:
            return

        async def look() -> None:
            while True:
                woken = [blocked for blocked in self._blocked if not await self._waits(blocked.task, blocked.real)]
                self._blocked = [blocked for blocked in self._blocked if blocked not in woken]
                for blocked in woken:
                    if not blocked.answer.done():
                        blocked.answer.set_result(None)
                if not woken:
                    return

        self.now(look())

    def cancel(self, blocked: Blocked) -> None:
        """What PostgreSQL does when a lock's timeout is over, or a client asks it to."""

        async def cancel() -> None:
            await self._admin.execute("select pg_cancel_backend($1)", blocked.real.get_server_pid())
            await asyncio.wait([blocked.task])
            blocked.task.exception()

        self._blocked.remove(blocked)
        self.now(cancel())

    async def _waits(self, task: "asyncio.Task[Any]", real: asyncpg.Connection) -> bool:
        """Whether it waits for a lock: seen twice, as PostgreSQL looks for deadlocks in between."""
        seen = 0
        while seen < 2:
            done, _ = await asyncio.wait({task}, timeout=0.002)
            if done:
                return False
            waits = await self._admin.fetchval("select cardinality(pg_blocking_pids($1)) > 0", real.get_server_pid())
            seen = seen + 1 if waits else 0
        return not task.done()

    def _news(self) -> str | None:
        """The statement that tells PostgreSQL what time it is, if it has passed."""
        assert self.loop is not None
        at_us = int((EPOCH_S + self.loop.time()) * 1_000_000)
        if at_us == self._told_us:
            return None
        self._told_us = at_us
        return f"select setval('sim.time', {at_us})"

    def _tell_time(self) -> None:
        news = self._news()
        if news is not None:
            self.now(self._admin.execute(news))


@dataclass
class Weather:
    """How often what happens to a statement on its way, and how long things take, in virtual seconds."""

    random: Random
    split: float = 0.3
    """How often others run between a statement and its COMMIT."""
    lost_before: float = 0.0
    """The connection breaks before PostgreSQL has the statement."""
    aborted: float = 0.0
    """The statement has run, its connection breaks, and PostgreSQL rolls back."""
    lost_after: float = 0.0
    """PostgreSQL has committed, and the answer is lost."""
    late_commit: float = 0.0
    """The connection breaks while PostgreSQL works on; it commits when the caller has long tried again."""
    serialization: float = 0.0
    refused_connect: float = 0.0
    latency_s: float = 0.002
    calm: bool = False
    """No fault any more: the end of a simulation."""
    told: Callable[[str], None] = field(default=lambda _: None)

    def strikes(self, chance: float, what: str) -> bool:
        if self.calm or chance == 0.0 or self.random.random() >= chance:
            return False
        self.told(what)
        return True

    async def pass_by(self) -> None:
        """Some time on the way."""
        if self.calm or self.random.random() < 0.5:
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.random.random() * self.latency_s)


class Simulated:
    """What asyncpg.Connection is to the ledger: a connection that can break at each moment."""

    def __init__(self, server: Server, weather: Weather, *, own: bool) -> None:
        self._server = server
        self._weather = weather
        self._own = own
        """A dedicated connection, whose user sends again what a serialization failure ended."""
        self._lock_timeout_s: float | None = None
        self._real: asyncpg.Connection | None = None
        self._inside = False
        """Within a transaction that its user began."""
        self._blocked: Blocked | None = None
        self._closed = False

    def is_closed(self) -> bool:
        return self._closed

    async def fetch(self, sql: str, *args: Any, **_: Any) -> Any:
        return await self._statement("fetch", sql, args)

    async def fetchrow(self, sql: str, *args: Any, **_: Any) -> Any:
        return await self._statement("fetchrow", sql, args)

    async def fetchval(self, sql: str, *args: Any, **_: Any) -> Any:
        return await self._statement("fetchval", sql, args)

    async def execute(self, sql: str, *args: Any, **_: Any) -> Any:
        if "lock_timeout" in sql:
            found = _LOCK_TIMEOUT.search(sql)
            self._lock_timeout_s = float(found.group(1)) if found else None
            return "SET"
        return await self._statement("execute", sql, args)

    def transaction(self) -> "Transaction":
        return Transaction(self)

    def terminate(self) -> None:
        self.lose(commits=False)

    async def close(self) -> None:
        self.terminate()

    def lose(self, *, commits: bool) -> None:
        """The client's end is gone. `commits`: PostgreSQL ends what it has in hand by committing, where it may."""
        if self._closed:
            return
        self._closed = True
        if self._real is None:
            return
        blocked, self._blocked = self._blocked, None
        if blocked is not None and not blocked.task.done():
            # It doesn't notice before it has its lock, and then commits what was one statement.
            verb = "rollback" if self._inside else "commit"
            blocked.answer.add_done_callback(lambda _: self._finish(verb), context=Context())
            return
        self._finish("commit" if commits and not self._inside else "rollback")

    def _finish(self, verb: str) -> None:
        """PostgreSQL ends the transaction with nobody to hear of it."""
        real, self._real = self._real, None
        if real is None:
            return

        async def finish() -> None:
            try:
                if real.is_in_transaction():
                    await real.execute(verb)
            except asyncpg.PostgresError:
                await real.execute("rollback")

        self._server.run(real, finish(), ends=True)
        self._server.take_back(real)
        self._server.look_again()

    def _break(self, *, commits: bool = False) -> ConnectionResetError:
        self.lose(commits=commits)
        return ConnectionResetError("the simulated connection broke")

    def _require_open(self) -> None:
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")

    async def begin(self) -> None:
        self._require_open()
        if self._weather.strikes(self._weather.lost_before, "lost before begin"):
            raise self._break()
        await self._open()
        self._inside = True

    async def end(self, verb: str) -> None:
        """COMMIT or ROLLBACK of a transaction that its user began."""
        if self._closed:
            if verb == "commit":
                raise asyncpg.InterfaceError("connection is closed")
            return
        weather = self._weather
        if verb == "commit":
            await weather.pass_by()
            self._require_open()
            if weather.strikes(weather.aborted, "lost before commit"):
                raise self._break()
            if weather.strikes(weather.serialization, "serialization failure"):
                self._inside = False
                self._conclude("rollback")
                raise asyncpg.SerializationError("simulated")
        self._inside = False
        self._conclude(verb)
        if verb == "commit":
            if weather.strikes(weather.lost_after, "lost after commit"):
                raise self._break()
            await weather.pass_by()

    async def _open(self) -> None:
        self._real = self._server.lend()
        self._server.begin_transaction(self._real)

    def _conclude(self, verb: str) -> None:
        real = self._real
        assert real is not None
        try:
            self._server.run(real, real.execute(verb), ends=True)
        except asyncpg.PostgresError:
            self._server.run(real, real.execute("rollback"), ends=True)
            raise
        finally:
            self._real = None
            self._server.take_back(real)

    async def _statement(self, verb: str, sql: str, args: tuple[Any, ...]) -> Any:
        self._require_open()
        weather = self._weather
        await weather.pass_by()
        self._require_open()
        if weather.strikes(weather.lost_before, "lost before"):
            raise self._break()
        if self._inside:
            result = await self._work(verb, sql, args)
            await weather.pass_by()
            self._require_open()
            return result
        late = weather.strikes(weather.late_commit, "late commit")
        split = not weather.calm and weather.random.random() < weather.split
        if late or split:
            result = await self._in_parts(verb, sql, args, late=late, split=split)
        else:
            self._real = self._server.lend()
            try:
                result = await self._work(verb, sql, args)
            finally:
                if self._real is not None and self._blocked is None:
                    self._return()
        if weather.strikes(weather.lost_after, "lost after commit"):
            raise self._break()
        await weather.pass_by()
        self._require_open()
        return result

    async def _in_parts(self, verb: str, sql: str, args: tuple[Any, ...], *, late: bool, split: bool) -> Any:
        """A statement, a while in which others run and it may still come to nothing, and its COMMIT."""
        weather = self._weather
        await self._open()
        try:
            result = await self._work(verb, sql, args)
            if late:
                self._commit_later()
                raise ConnectionResetError("the simulated connection broke")
            if split:
                await weather.pass_by()
                self._require_open()
                if weather.strikes(weather.aborted, "lost before commit"):
                    raise self._break()
                if self._own and weather.strikes(weather.serialization, "serialization failure"):
                    self._conclude("rollback")
                    raise asyncpg.SerializationError("simulated")
        except asyncio.CancelledError:
            # asyncpg asks PostgreSQL to cancel; that comes in time, or not.
            if self._real is not None and self._blocked is None:
                self._finish("commit" if weather.random.random() < 0.5 else "rollback")
            raise
        except asyncpg.PostgresError:
            if self._real is not None:
                self._conclude("rollback")
            raise
        self._conclude("commit")
        return result

    def _return(self) -> None:
        real, self._real = self._real, None
        assert real is not None
        self._server.take_back(real)
        self._server.look_again()

    async def _work(self, verb: str, sql: str, args: tuple[Any, ...]) -> Any:
        """The statement itself, waiting as long as PostgreSQL would."""
        real = self._real
        assert real is not None
        known = self._server.run(real, getattr(real, verb)(sql, *args), ends=False)
        if not isinstance(known, Blocked):
            return known
        self._weather.told("waits for a lock")
        self._blocked = known
        try:
            async with asyncio.timeout(self._lock_timeout_s):
                await known.answer
        except (TimeoutError, asyncio.CancelledError) as fault:
            if not known.task.done():
                self._server.cancel(known)
            self._blocked = None
            if isinstance(fault, TimeoutError):
                raise asyncpg.LockNotAvailableError("simulated lock timeout") from None
            raise
        self._blocked = None
        self._require_open()
        return known.task.result()

    def _commit_later(self) -> None:
        """This end is closed; the other commits a little later."""
        other = Simulated(self._server, self._weather, own=self._own)
        other._real, self._real = self._real, None
        self._closed = True
        assert self._server.loop is not None
        delay_s = self._weather.random.random() * 0.05
        # In no process's context: PostgreSQL commits although the process is killed.
        self._server.loop.call_later(delay_s, other.lose_committing, context=Context())

    def lose_committing(self) -> None:
        self.lose(commits=True)


class Transaction:
    """asyncpg's `async with connection.transaction()`."""

    def __init__(self, connection: Simulated) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        await self._connection.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._connection.end("commit" if kind is None else "rollback")


class Pool:
    """asyncpg.Pool: a fresh simulated connection for each user."""

    def __init__(self, server: Server, weather: Weather) -> None:
        self._server = server
        self._weather = weather
        self.open: list[Simulated] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Simulated]:
        connection = self.connect(own=False)
        try:
            yield connection
        finally:
            connection.lose(commits=False)
            self.open.remove(connection)

    def connect(self, *, own: bool) -> Simulated:
        connection = Simulated(self._server, self._weather, own=own)
        self.open.append(connection)
        return connection

    async def fetch(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.execute(sql, *args)


class SimulatedDatabase(Database):
    """The real Database, over simulated connections."""

    def __init__(self, server: Server, weather: Weather) -> None:
        self._connections = Pool(server, weather)
        super().__init__(self._connections, "simulated")
        self._weather = weather

    async def dedicated(self) -> asyncpg.Connection:
        await self._weather.pass_by()
        if self._weather.strikes(self._weather.refused_connect, "connect refused"):
            raise ConnectionRefusedError("simulated")
        return self._connections.connect(own=True)

    def lose_all(self, random: Random) -> None:
        """The process is gone: PostgreSQL ends what each connection had in hand."""
        for connection in list(self._connections.open):
            connection.lose(commits=random.random() < 0.5)
