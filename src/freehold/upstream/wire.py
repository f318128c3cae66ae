"""HTTP/1.1 to one host without TLS, on the event loop itself: kept connections, one call on each at a time.

A client with threads of its own wakes another thread several times a call, which costs three times as much as the
call (docs/adr/0007). What the transport needs beyond this (TLS, proxies) is left to that client.
"""

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from typing import cast

import httptools

from freehold.upstream.model import UpstreamBroke, UpstreamError, UpstreamTimedOut, UpstreamUnreachable

KEPT_S = 4.0
"""How long an idle connection is used again: less than the 5 s after which many servers close one, so that a call is
seldom sent on a connection that is just being closed."""

LOOKED_AT_S = 0.5
"""After so long a connection is looked at before it is used again: on a busy loop its end may lie unread."""

UNREAD_BYTES = 256 * 1024
"""When so much waits to be taken, no more is read."""

LONGEST_HEAD = 256 * 1024
"""Bytes of a response's head."""


class Wire:
    """The connections to one host."""

    def __init__(self, name: str, host: str, port: int, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        """`name` is what failures call the upstream. `read_timeout_s` is the longest silence while a call waits."""
        self.name = name
        self.read_timeout_s = read_timeout_s
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[_Connection] = set()
        self._kept: list[_Connection] = []
        self._watching: asyncio.TimerHandle | None = None

    async def ask(self, request: bytes) -> "WireAnswer":
        """Send a whole request, and wait for its answer's head.

        Raises UpstreamUnreachable, UpstreamTimedOut and UpstreamBroke.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.close()
            self._loop = loop
        connection = self._idle(loop.time()) or await self._connect(loop)
        return await connection.ask(request)

    def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        loop, self._loop = self._loop, None
        open_, self._open, self._kept = self._open, set(), []
        watching, self._watching = self._watching, None
        if loop is not None and not loop.is_closed():  # which may be another thread's
            for connection in open_:
                loop.call_soon_threadsafe(connection.transport.abort)
            if watching is not None:
                loop.call_soon_threadsafe(watching.cancel)

    def keep(self, connection: "_Connection") -> None:
        """It has answered, and may be used again."""
        if connection in self._open:
            self._kept.append(connection)
        else:
            connection.transport.abort()

    def lost(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        if connection in self._kept:
            self._kept.remove(connection)

    def _idle(self, now_s: float) -> "_Connection | None":
        """The one that was used last, so that those beyond need grow old and are closed."""
        while self._kept:
            connection = self._kept.pop()
            idle_s = now_s - connection.quiet_since_s
            kept = idle_s < KEPT_S and not connection.transport.is_closing()
            if kept and (idle_s < LOOKED_AT_S or connection.silent()):
                return connection
            connection.transport.close()
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> "_Connection":
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(lambda: _Connection(self, loop), self._host, self._port)
        except OSError as failure:  # a TimeoutError is one
            reason = _reason(failure)
            raise UpstreamUnreachable(
                f"Upstream {self.name} can't be reached: {reason}.", before_first_byte=True
            ) from None
        self._open.add(connection)
        if self._watching is None:
            self._watch_on(loop)
        return connection

    def _watch_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all connections, instead of one for each wait."""
        self._watching = loop.call_later(min(1.0, self.read_timeout_s / 4), self._watch, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = None
        now_s = loop.time()
        for connection in tuple(self._open):
            connection.look(now_s)
        if self._open:
            self._watch_on(loop)


class WireAnswer:
    """A response whose head has come."""

    __slots__ = (
        "_connection",
        "_ended",
        "_failure",
        "_parts",
        "_unread",
        "_waiter",
        "content_type",
        "retry_after_s",
        "status",
    )

    def __init__(self, connection: "_Connection") -> None:
        self.status = 0
        """Until the head has come."""
        self.content_type = ""
        self.retry_after_s: int | None = None
        self._connection: _Connection | None = connection
        """None once the answer is closed."""
        self._parts: list[bytes] = []
        self._unread = 0
        self._ended = False
        self._failure: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body; the connection is free again. Raises UpstreamBroke, also above `limit_bytes`, UpstreamTimedOut."""
        if self._ended and len(self._parts) == 1 and self._unread <= limit_bytes:  # as nearly every plain answer has
            (whole,) = self._parts
            self._parts, self._unread = [], 0
            await self.close()
            return whole
        found: list[bytes] = []
        size = 0
        try:
            while part := await self._next():
                size += len(part)
                if size > limit_bytes:
                    name = self._connection.name if self._connection else ""
                    raise UpstreamBroke(f"Upstream {name} sent more than {limit_bytes} bytes.", before_first_byte=False)
                found.append(part)
        finally:
            await self.close()
        return found[0] if len(found) == 1 else b"".join(found)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes off the wire. Raises UpstreamBroke, UpstreamTimedOut."""
        while part := await self._next():
            yield part

    async def close(self) -> None:
        """Free the connection; one that still has body to come is closed. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None and not self._ended:
            self._ended = True
            connection.transport.abort()

    async def _next(self) -> bytes:
        """What has come since; waits for something. Empty at the end."""
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._ended or self._connection is None:
                return b""
            await self.wait(self._connection)
        parts, self._parts = self._parts, []
        self._unread = 0
        if self._connection is not None and not self._ended:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def wait(self, connection: "_Connection") -> None:
        """Until something happens."""
        connection.quiet_since_s = connection.loop.time()
        self._waiter = connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # What its connection tells it.

    def waiting(self) -> bool:
        return self._waiter is not None

    def failed(self) -> UpstreamError | None:
        return self._failure

    def take(self, part: bytes) -> bool:
        """Some of the body; whether that is enough for now."""
        self._parts.append(part)
        self._unread += len(part)
        return self._unread > UNREAD_BYTES

    def end(self, failure: UpstreamError | None = None) -> None:
        """Nothing more comes."""
        if not self._ended:
            self._ended = failure is None
            self._failure = failure
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection, and the answer that is under way on it."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport
        self.loop = loop
        self.name = wire.name
        self.quiet_since_s = 0.0
        """When it last heard something, or began to wait for it; monotonic."""
        self._wire = wire
        self._parser = httptools.HttpResponseParser(self)
        self._answer: WireAnswer | None = None
        self._paused = False
        self._begin()

    def _begin(self) -> None:
        self._head_bytes = 0
        self._framed = False
        """The head says how long the body is: else it ends with the connection."""

    async def ask(self, request: bytes) -> WireAnswer:
        answer = self._answer = WireAnswer(self)
        self._begin()
        self.transport.write(request)
        try:
            # When this wakes, another call may already be under way here: what is said of this one is its answer's.
            while not answer.status:
                await answer.wait(self)
                failure = answer.failed()
                if failure is not None:
                    raise failure
        except BaseException:
            if self._answer is answer:
                self.transport.abort()
            raise
        return answer

    def look(self, now_s: float) -> None:
        """Called now and then: silence that is too long ends the call, or the connection."""
        quiet_s = now_s - self.quiet_since_s
        if self._answer is None:
            if quiet_s > KEPT_S:
                self.transport.close()
        elif self._answer.waiting() and quiet_s >= self._wire.read_timeout_s:
            said = f"Upstream {self.name} timed out: nothing came for {self._wire.read_timeout_s:g} s."
            self._fail(self._answer, UpstreamTimedOut(said, before_first_byte=not self._answer.status))

    def silent(self) -> bool:
        """Whether nothing lies unread, which between two calls could only be the connection's end."""
        made = self.transport.get_extra_info("socket")
        if made is None or made.fileno() < 0:
            return False
        looking = select.poll()
        looking.register(made.fileno(), select.POLLIN)
        return not looking.poll(0)

    def resume(self) -> None:
        """What had come was taken."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _fail(self, answer: WireAnswer, failure: UpstreamError) -> None:
        self._answer = None
        self.transport.abort()
        answer.end(failure)

    def _broke(self, answer: WireAnswer) -> UpstreamBroke:
        where = "in the middle of its answer" if answer.status else "before it answered"
        return UpstreamBroke(
            f"Upstream {self.name} closed the connection {where}.", before_first_byte=not answer.status
        )

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's isn't one by name
        self.quiet_since_s = self.loop.time()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked
            self.transport.abort()
            return
        self.quiet_since_s = self.loop.time()
        if not answer.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(answer, self._broke(answer))
            return
        if not answer.status and self._head_bytes > LONGEST_HEAD:
            self._fail(answer, self._broke(answer))
        else:
            answer.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._wire.lost(self)
        answer, self._answer = self._answer, None
        if answer is not None:
            ended = error is None and answer.status and not self._framed
            answer.end(None if ended else self._broke(answer))

    # The parser's side

    def on_message_begin(self) -> None:
        if self._answer is None:  # more than was asked for: whose answer would the next be?
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if answer is None or answer.status:  # a trailer
            return
        match name.lower():
            case b"content-type":
                answer.content_type = value.decode("latin-1")
            case b"retry-after":
                answer.retry_after_s = int(value) if value.isdigit() and len(value) < 10 else None
            case b"content-length" | b"transfer-encoding":
                self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200:
            self._answer.status = status
            self._framed = self._framed or status in (204, 304)

    def on_body(self, part: bytes) -> None:
        if self._answer is not None and self._answer.take(part) and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None:
            return
        if not answer.status:  # 100 Continue and its like
            answer.content_type, answer.retry_after_s = "", None
            self._begin()
            return
        self._answer = None
        answer.end()
        if self._parser.should_keep_alive():
            self.resume()
            self._wire.keep(self)
        else:
            self.transport.close()


def _reason(failure: OSError) -> str:
    """A word on the cause, from a closed list: what the system says holds the address."""
    if isinstance(failure, TimeoutError):
        return "the connection timed out"
    if isinstance(failure, socket.gaierror):
        return "its host name doesn't resolve"
    return "connection refused" if isinstance(failure, ConnectionRefusedError) else "no connection"
