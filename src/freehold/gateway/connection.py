"""The server's side of a connection: uvicorn's, with a way of its own for the inference routes.

Requests of those routes are handed to the door as they come off the parser, and each answer leaves in one write; every
other request takes uvicorn's way through ASGI, on the same connection. Above that, what uvicorn leaves open is closed
here for both: endless heads, clients that dawdle, clients that only end their own sending, and upgrades that nobody
here speaks (docs/adr/0007).
"""

import asyncio
import http
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from freehold.gateway.asgi import JSON, ClientLeft, Exchange, Inference, answer
from freehold.gateway.headers import Headers
from freehold.gateway.problems import RequestTimeout
from freehold.problems import InvalidRequest, Problem, error_body

Handler = Callable[[Exchange], Awaitable[None]]

LONGEST_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""

HEAD_PATIENCE_S = 30.0
"""A client that takes longer for these is cut off."""

UNREAD_BYTES = 64 * 1024
"""When so much of a body waits, no more is read until somebody asks for it."""

_LOOK_S = 5.0
_PROBE_FIRST_S, _PROBE_LAST_S = 0.05, 5.0
_VERSION = b"HTTP/1.1 "
_STATUS = {status.value: b"%d %s\r\n" % (status, status.phrase.encode()) for status in http.HTTPStatus}


class HeadTooLarge(Problem):
    """The request's line and headers are longer than {most:,} bytes. Send what is long in the body."""

    status = 431
    code = "request_too_large"


class Connection(HttpToolsProtocol):
    """One client's connection."""

    inference: ClassVar[Inference]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._carried: list[Carried] = []
        """The exchanges that are not over yet; all but the first wait for their turn."""
        self._head_bytes = 0
        self._in_head = True
        self._upgrading = False
        self._ends = False
        """Nothing more comes from the client, or nothing that could be read: what is under way is the last."""
        self._ahead = 0
        """How much of the next answer's beginning was sent already, to learn whether the client is there."""
        self._dated: tuple[object, bytes] = (None, b"")
        self._due_s = self.loop.time() + HEAD_PATIENCE_S
        self._watching = self.loop.call_later(_LOOK_S, self._look)
        self._probing: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watching.cancel()
        if self._probing is not None:
            self._probing.cancel()
        for exchange in self._carried:
            exchange.leave()

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._ends:
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            known = error.__context__
            self._refuse(known if isinstance(known, Problem) else InvalidRequest(reason="This is not valid HTTP."))
        else:
            if self._in_head and self._head_bytes > LONGEST_HEAD:
                self._refuse(HeadTooLarge(most=LONGEST_HEAD))

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._due_s = self.loop.time() + HEAD_PATIENCE_S

    def on_headers_complete(self) -> None:
        if self._head_bytes > LONGEST_HEAD:  # with what else came at once
            self._head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if self._head_bytes > LONGEST_HEAD:
                raise HeadTooLarge(most=LONGEST_HEAD)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise InvalidRequest(reason="This server is no proxy.")
            self._upgrading = True  # the parser takes the body for another protocol: it is read anew
            return
        self._in_head, self._head_bytes = False, 0
        self._due_s = float("inf")
        path, query = self._address()
        handler = self.inference.route(path)
        if handler is None:
            self._begin_asgi()
            return
        exchange = Carried(self, handler, path, query)
        self._carried.append(exchange)
        before, self.cycle = self.cycle, exchange  # type: ignore[assignment]
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)  # type: ignore[arg-type]
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        if isinstance(self.cycle, Carried):
            self.cycle.came(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._in_head = True
        if isinstance(self.cycle, Carried):
            self.cycle.came(b"", last=True)
        else:
            super().on_message_complete()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client sends nothing more. It may wait for its answer, or be gone: TCP tells when something is sent."""
        if self._quiet() or not self._in_head or self.transport.is_closing():
            return None
        self._ends = True
        self._probe(_PROBE_FIRST_S)
        return True

    def _address(self) -> tuple[str, str]:
        """Path and query; also of `POST http://host/path`."""
        url = self.url
        if not url.startswith(b"/"):
            parsed = httptools.parse_url(url)
            url = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
        path, _, query = url.decode("latin-1").partition("?")
        return unquote(path) if "%" in path else path, query

    def _begin_asgi(self) -> None:
        """uvicorn's way, which begins with what it does before it knows the address."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """A server may ignore an upgrade: the same request without it, then what follows."""
        self._upgrading = False
        lines = [b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self.data_received(b"".join([*lines, b"\r\n", rest]))

    def _refuse(self, problem: Problem) -> None:
        """What came can't be read, and what follows neither: after what is under way the connection ends."""
        self._ends = True
        if self.transport.is_closing():
            return
        if not self._quiet():
            self.flow.pause_reading()
            if not self._in_head:  # its body will never be whole
                self.transport.close()
            return
        body = msgspec.json.encode(error_body(problem))
        headers = [*JSON, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self.transport.write(self.head(problem.status, headers) + body)
        self.transport.close()

    # What goes

    def head(self, status: int, headers: Headers) -> bytes:
        """The head of an answer. What is in `headers` comes from us, so a line end in it is a fault."""
        dated, date = self._dated
        if dated is not self.server_state.default_headers:
            dated = self.server_state.default_headers
            date = b"".join([b"%s: %s\r\n" % header for header in self.server_state.default_headers])
            self._dated = dated, date
        lines = b"".join([b"%s: %s\r\n" % header for header in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
            raise ValueError("a header has a line end")
        version = _VERSION[self._ahead :]
        self._ahead = 0
        return b"".join([version, _STATUS[status], date, lines, b"\r\n"])

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self._ends:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._ends:
            self.transport.close()
        elif self._in_head and not self._head_bytes:
            self._due_s = self.loop.time() + self.timeout_keep_alive

    def over(self, exchange: "Carried") -> None:
        self._carried.remove(exchange)

    def _quiet(self) -> bool:
        """Nothing is under way."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _look(self) -> None:
        """One timer that goes on, instead of one for each request."""
        now_s = self.loop.time()
        if now_s >= self._due_s and self._quiet():
            self.transport.close()
        else:
            self._watching = self.loop.call_at(min(max(self._due_s, now_s + 0.1), now_s + _LOOK_S), self._look)

    def _probe(self, after_s: float) -> None:
        """Send what means nothing by itself, and soon more: a client that has closed answers with a reset.

        Before an answer that is a byte of its constant beginning, within a stream a comment.
        """
        if self.transport.is_closing():
            return
        exchange = self._carried[0] if self._carried and self._carried[0].running else None
        if exchange is None:
            pass
        elif exchange.started:
            exchange.send_alive()
        elif self._ahead < len(_VERSION):
            self.transport.write(_VERSION[self._ahead : self._ahead + 1])
            self._ahead += 1
        self._probing = self.loop.call_later(after_s, self._probe, min(after_s * 2, _PROBE_LAST_S))


def speaking(inference: Inference) -> type[Connection]:
    """uvicorn's `http`: connections that hand the inference routes to `inference`."""
    return type("Connection", (Connection,), {"inference": inference})


class Carried(Exchange):
    """An exchange on a connection; to uvicorn, what it calls a cycle."""

    def __init__(self, connection: Connection, handler: Handler, path: str, query: str) -> None:
        parser = connection.parser
        super().__init__(parser.get_method().decode("ascii"), path, query, connection.headers)
        self.response_complete = False
        self.disconnected = False
        self.running = False
        """Its turn has come."""
        modern = parser.get_http_version() != "1.0"
        self.keep_alive = modern and parser.should_keep_alive()
        self.message_event = _NOTHING
        self._handler = handler
        self._connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self._chunked = modern
        """How a body without a length is sent; to a client of HTTP/1.0 it ends with the connection."""
        self._expects = connection.expect_100_continue
        self._parts: list[bytes] = []
        self._size = 0
        self._came = False
        """The whole body has come."""
        self._waiter: asyncio.Future[None] | None = None
        self._head: bytes | None = None

    async def run_asgi(self, app: Any) -> None:
        """What uvicorn starts."""
        self.running = True
        try:
            await answer(self._handler, self)
        finally:
            if not self.response_complete:
                self.disconnected = True
                self._transport.close()  # so that nobody takes half an answer for a whole one
            self._connection.over(self)

    # What its connection tells it

    def came(self, part: bytes, *, last: bool = False) -> None:
        """Some of the body."""
        if part and not self.response_complete:
            self._parts.append(part)
            self._size += len(part)
            if self._size > UNREAD_BYTES and self._waiter is None:
                self._flow.pause_reading()
        self._came = self._came or last
        self._wake()

    def leave(self) -> None:
        """The client has left."""
        self.disconnected = True
        self._wake()
        if not self.gone:
            self.gone = True
            if self.left is not None:
                self.left()

    def send_alive(self) -> None:
        """Show the client in the middle of a stream that it goes on."""
        if self.alive and self._head is None and not self._flow.write_paused and not self.response_complete:
            self._transport.write(self._framed(self.alive))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # How it is carried

    async def body(self, *, limit_bytes: int, patience_s: float) -> bytes:
        if self._came and len(self._parts) == 1 and self._size <= limit_bytes and not self.disconnected:
            (whole,) = self._parts  # as nearly every request comes: at once, with its head
            self._parts, self._size, self._unread = [], 0, False
            return whole
        return await super().body(limit_bytes=limit_bytes, patience_s=patience_s)

    async def _part(self, patience_s: float) -> tuple[bytes, bool]:
        while not self._parts and not self._came and not self.disconnected:
            if self._expects:
                self._expects = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waiter = self._connection.loop.create_future()
            self._flow.resume_reading()
            try:
                async with asyncio.timeout(patience_s):
                    await self._waiter
            except TimeoutError:
                raise RequestTimeout(waited=f"{patience_s:g}") from None
            finally:
                self._waiter = None
        if self.disconnected:
            self.gone = True
            raise ClientLeft
        parts, self._parts, self._size = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts), not self._came

    def _begin(self, status: int, headers: Headers) -> None:
        names = {name for name, _ in headers}
        sized = b"content-length" in names
        self._chunked = self._chunked and not sized
        if self._chunked:
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        self.keep_alive = self.keep_alive and (sized or self._chunked) and b"connection" not in names
        if not self.keep_alive and b"connection" not in names:
            headers = [*headers, (b"connection", b"close")]
        self._head = self._connection.head(status, headers)

    async def _push(self, data: bytes, more: bool, patience_s: float) -> None:
        if self._flow.write_paused:
            await self._room(patience_s)
        if self.disconnected or self._transport.is_closing():
            self.leave()
            raise ClientLeft
        if self.method == "HEAD":
            data = b""
        framed = self._framed(data) if data else b""
        if self._head is not None:
            framed, self._head = self._head + framed, None
        if not more and self._chunked:
            framed += b"0\r\n\r\n"
        if framed:
            self._transport.write(framed)
        if not more:
            self.response_complete = True
            if not self.keep_alive:
                self._transport.close()
            self._connection.on_response_complete()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data

    async def _room(self, patience_s: float) -> None:
        """Wait until the client has accepted most of what waits. Raises ClientLeft when not a byte goes for too long."""
        while self._flow.write_paused and not self.disconnected:
            waiting = self._transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(patience_s):
                    await self._flow.drain()
            except TimeoutError:
                if not 0 < self._transport.get_write_buffer_size() < waiting:
                    self.gone = True
                    self._transport.abort()
                    raise ClientLeft from None


class _Nothing:
    """Where uvicorn rings for a cycle that is told by its connection."""

    def set(self) -> None:
        return


_NOTHING = _Nothing()
