"""The real PostgreSQL behind the simulation, and the network before it.

Statements are real, and run one at a time: each runs until PostgreSQL has answered or until it waits for a lock that
another simulated transaction holds. What waits is looked at again whenever a transaction ends. Real connections are
lent to simulated ones for the length of a transaction, so that losing a simulated connection costs nothing.
The database's clock is the simulation's: `clock_timestamp()` is found in the schema `sim`, ahead of PostgreSQL's own.
"""

import asyncio
import os
import re
import tempfile
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import uvloop

from freehold.db import Database
from freehold.ledger.batch import SETTINGS

from .loop import SeededLoop

T = TypeVar("T")

EPOCH_S = 1_800_000_000
"""Wall time at the start of every simulation."""

CLOCK = """
create schema sim;
create function sim.clock_timestamp() returns timestamptz language sql volatile
as $$ select 'epoch'::timestamptz + pg_read_file('{path}')::bigint * interval '1 microsecond' $$;
create function sim.pg_postmaster_start_time() returns timestamptz language sql stable
as $$ select 'epoch'::timestamptz $$;
alter database "{name}" set sim.clock = '{path}';
"""
"""A file holds the time: to write one costs nothing, beside a statement for each moment."""

ENDED = """
create table sim.ended as table ledger.holds with no data;
create function sim.keep() returns trigger language plpgsql as $$ begin insert into sim.ended select old.*; return old; end $$;
create trigger ended after delete on ledger.holds for each row execute function sim.keep();
"""
"""A hold's row goes when its charge comes: the laws still look at it."""

TABLES = "select relname from pg_class where relnamespace = 'ledger'::regnamespace and relkind = 'r' order by oid"
RESTART = """
select setval(s.oid, 1, false) from pg_class s join pg_namespace n on n.oid = s.relnamespace
where n.nspname = 'ledger' and s.relkind = 'S'
"""
VACUUM_EVERY = 100
"""Simulations between two removals of all dead rows."""
BLOCKING = "select pid, pg_blocking_pids(pid) as by from unnest($1::int[]) pid"
_LOCK_TIMEOUT = re.compile(r"lock_timeout\s*=\s*'(\d+)s'")


async def prepare(url: str, name: str, patches: Callable[[asyncpg.Connection], Awaitable[None]] | None = None) -> str:
    """Create the database `name` on the server at `url` with the simulation's clock and every migration; its URL."""
    admin = await asyncpg.connect(url)
    try:
        await admin.execute(f'drop database if exists "{name}" with (force)')
        await admin.execute(f'create database "{name}" template template0 strategy file_copy')
        await admin.execute(f'alter database "{name}" set search_path = sim, pg_catalog, public')
        await admin.execute(f"alter database \"{name}\" set deadlock_timeout = '1ms'")
        await admin.execute(f'alter database "{name}" set jit = off')
    finally:
        await admin.close()
    fresh = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    handle, path = tempfile.mkstemp(prefix=f"freehold-{name}-", dir="/tmp")
    os.write(handle, _written(EPOCH_S))
    os.fchmod(handle, 0o644)  # PostgreSQL's own user reads it
    os.close(handle)
    first = await asyncpg.connect(fresh)
    await first.execute(CLOCK.format(path=path, name=name))
    await first.close()
    database = await Database.connect(fresh, max_size=2)
    try:
        await database.migrate()
        await database.execute(ENDED)
        if patches is not None:
            async with database.pool.acquire() as connection:
                await patches(connection)
    finally:
        await database.close()
    return fresh


def _written(at_s: float) -> bytes:
    """A time as the clock's file holds it."""
    return b"%020d" % int(at_s * 1_000_000)


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
        self._real = uvloop.new_event_loop()
        self._idle: list[asyncpg.Connection] = []
        self._lent: list[asyncpg.Connection] = []
        self._blocked: list[Blocked] = []
        self._runs = 0
        self.loop: SeededLoop | None = None
        self.database = self.now(Database.connect(url, min_size=1, max_size=2))
        self._admin: asyncpg.Connection = self.now(self._connect())
        self._clock = Path(self.now(self._admin.fetchval("select current_setting('sim.clock')")))
        self._time = os.open(self._clock, os.O_WRONLY)
        self._empty = self.now(self._keep())

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

    async def _keep(self) -> str:
        """The statements that bring every table of the ledger back to what it holds now; truncating takes longer."""
        tables = [row["relname"] for row in await self._admin.fetch(TABLES)]
        steps = ["delete from sim.ended", *(f"delete from ledger.{table}" for table in reversed(tables))]
        for table in tables:
            if await self._admin.fetchval(f"select exists (select from ledger.{table})"):
                await self._admin.execute(f"create table if not exists sim.kept_{table} as table ledger.{table}")
                steps.append(f"insert into ledger.{table} overriding system value table sim.kept_{table}")
        steps.append("set session_replication_role = origin")
        return "; ".join(["set session_replication_role = replica", *steps, RESTART])

    def begin(self, loop: SeededLoop) -> None:
        """Empty the database for a new simulation."""
        assert not self._lent and not self._blocked, "the simulation before this one left something behind"
        self.loop = loop

        self._tell_time()
        self._runs += 1

        async def empty() -> None:
            await self._admin.execute(self._empty)
            # What is read in no order lies as it was written: then a seed replays.
            await self._admin.execute("vacuum ledger.holds, ledger.grants")
            if self._runs % VACUUM_EVERY == 0:
                await self._admin.execute("vacuum")

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
        os.close(self._time)
        self._clock.unlink()

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
        self._tell_time()
        self.now(real.execute("begin"))

    def run(self, real: asyncpg.Connection, work: Coroutine[Any, Any, T], *, ends: bool) -> "T | Blocked":
        """Until PostgreSQL answers, or the statement waits. `ends`: it may end a transaction and so free others."""
        self._tell_time()

        async def until_known() -> "T | Blocked":
            task = self._real.create_task(work)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            if len(self._lent) == 1:
                return await task
            assert self.loop is not None
            blocked = Blocked(real, task, self.loop.create_future())
            await self._settled([*self._blocked, blocked], until=task)
            if task.done():
                return task.result()
            self._blocked.append(blocked)
            return blocked

        try:
            return self.now(until_known())
        finally:
            if ends:
                self.look_again()

    def look_again(self) -> None:
        """Wake those whose locks have come free."""
        if not self._blocked:
            return

        self.now(self._settled(self._blocked))
        woken = [blocked for blocked in self._blocked if blocked.task.done()]
        self._blocked = [blocked for blocked in self._blocked if not blocked.task.done()]
        for blocked in woken:
            if not blocked.answer.done():
                blocked.answer.set_result(None)

    def cancel(self, blocked: Blocked) -> None:
        """What PostgreSQL does when a lock's timeout is over, or a client asks it to."""

        async def cancel() -> None:
            await self._admin.execute("select pg_cancel_backend($1)", blocked.real.get_server_pid())
            await asyncio.wait([blocked.task])
            blocked.task.exception()

        self._blocked.remove(blocked)
        self.now(cancel())

    async def _settled(self, some: "list[Blocked]", until: "asyncio.Task[Any] | None" = None) -> None:
        """Wait until each has its answer (or `until` has), or waits for a transaction in which nothing runs.

        Who waits in a circle doesn't count as waiting: PostgreSQL is about to find that deadlock, and to end it.
        """
        while until is None or not until.done():
            running = {blocked.real.get_server_pid(): blocked.task for blocked in some if not blocked.task.done()}
            if not running:
                return
            done, _ = await asyncio.wait(running.values(), timeout=0.001, return_when=asyncio.FIRST_COMPLETED)
            if done:
                continue
            rows = await self._admin.fetch(BLOCKING, list(running))
            blocking = {row["pid"]: row["by"] for row in rows}
            if all(_stands(pid, blocking, frozenset()) for pid in running):
                return

    def _tell_time(self) -> None:
        assert self.loop is not None
        os.pwrite(self._time, _written(EPOCH_S + self.loop.time()), 0)


def _stands(pid: int, blocking: Mapping[int, Sequence[int]], asking: frozenset[int]) -> bool:
    """Whether it waits for nobody but idle transactions, at however many removes."""
    if pid not in blocking:
        return True
    return (
        pid not in asking
        and bool(blocking[pid])
        and all(_stands(other, blocking, asking | {pid}) for other in blocking[pid])
    )


LOSSES = ("lost before", "lost before begin", "lost before commit", "connect refused")
"""What befalls each statement while PostgreSQL can't be reached."""


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
    out: bool = False
    """PostgreSQL can't be reached."""
    told: Callable[[str], None] = field(default=lambda _: None)

    def strikes(self, chance: float, what: str) -> bool:
        if self.out and not self.calm and what in LOSSES:
            self.told(what)
            return True
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
