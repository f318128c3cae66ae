"""One HTTP exchange of an inference route, on plain ASGI: bounded reading, patient sending, and who has left.

`build` puts the inference routes before the rest of the application.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from uuid import UUID, uuid4

import msgspec

from freehold.db import LOST
from freehold.gateway.headers import FREE, Headers
from freehold.gateway.problems import NotSettled, RequestTimeout, RequestTooLarge, ServerFault
from freehold.problems import LedgerUnavailable, Problem, error_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("freehold.gateway")

LINGER_S = 2.0
LINGER_BYTES = 4 * 1024 * 1024
"""How much of a refused body is still thrown away, so that the client reads the refusal before the connection ends."""

JSON: Headers = [(b"content-type", b"application/json")]


class ClientLeft(Exception):
    """Nobody is there to answer."""


class Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id: UUID = uuid4()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.started = False
        """The response has begun: another one can't be sent."""
        self.gone = False
        """The client has left, or accepts nothing any more."""
        self.limits: Headers = []
        """The key's limits per minute, once they are known: they go with every answer."""
        self.left: Callable[[], None] | None = None
        """Called once when the client leaves while it is watched."""
        self.own: Headers = []
        """What goes with every answer of this route."""
        self.refusal: Callable[[Problem, str], dict[str, Any]] = _refusal
        """The body of a refusal, in the words of this route's API."""
        self.failed: Callable[[Problem], bytes] = _failed
        """What tells of a failure in a stream that has begun."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._unread = self.method == "POST"
        self._watcher: asyncio.Task[None] | None = None
        self._head: Message | None = None
        # ASGI has no word for what a client has not accepted, nor for dropping it, and no cheap one for what is known
        # already: uvicorn's own object has. With another server, or another uvicorn, ASGI's words are used.
        self._server: Any = getattr(send, "__self__", None)
        self._transport: Any = getattr(self._server, "transport", None)

    @property
    def request_id(self) -> str:
        """As clients see it."""
        return f"req_{self.id.hex}"

    def header(self, name: bytes) -> str | None:
        """A request header, by its lower-case name."""
        for key, value in self._scope["headers"]:
            if key == name:
                return str(value.decode("latin-1"))
        return None

    @property
    def query(self) -> str:
        """What stands after the path's `?`."""
        return str(self._scope.get("query_string", b"").decode("latin-1"))

    async def body(self, *, limit_bytes: int, patience_s: float) -> bytes:
        """The whole body. Raises RequestTooLarge as soon as it is known, RequestTimeout and ClientLeft."""
        declared = self.header(b"content-length")
        if declared is not None and declared.isdecimal() and int(declared) > limit_bytes:
            raise _too_large(limit_bytes, f"is {int(declared):,} bytes")
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                if self._all_came():
                    message = await self._receive()
                else:
                    async with asyncio.timeout(patience_s):
                        message = await self._receive()
            except TimeoutError:
                raise RequestTimeout(waited=f"{patience_s:g}") from None
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes, "is longer")
            parts.append(part)
            if not message.get("more_body", False):
                self._unread = False
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def watch(self) -> None:
        """From now on, learn when the client disconnects. The body must have been read."""
        if isinstance(getattr(self._server, "message_event", None), asyncio.Event):
            # uvicorn sets this event when the client has left: a task that waits for it costs each call 30 µs.
            self._server.message_event = _Bell(self._look)
            self._look()
        else:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _look(self) -> None:
        if self._server.disconnected:
            self._leave()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            if self.left is not None:
                self.left()

    def unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def start(self, status: int, headers: Headers) -> None:
        """Begin the response; its head, with `x-request-id`, leaves with the first part of the body."""
        head = [(b"x-request-id", self.request_id.encode()), *self.own, *self.limits, *headers]
        if self._unread:
            head.append((b"connection", b"close"))
        self.started = True
        self._head = {"type": "http.response.start", "status": status, "headers": head}

    async def write(self, data: bytes, *, patience_s: float) -> None:
        """Send a part of the body. Raises ClientLeft when not a byte of what waits is accepted for that long."""
        await self._push(data, True, patience_s)

    async def end(self, data: bytes, *, patience_s: float) -> None:
        """Send the last part of the body. Raises ClientLeft as `write` does."""
        if self._unread:
            await self._push(data, True, patience_s)
            await self._linger()
            data = b""
        await self._push(data, False, patience_s)

    async def _push(self, data: bytes, more: bool, patience_s: float) -> None:
        try:
            if not self._dropped():
                await self._push_on(data, more, patience_s)
                return
        except RuntimeError:
            if not self._dropped():
                raise
        # Of several requests that were sent at once, uvicorn tells only the last that the connection has ended.
        self._server.disconnected = True
        self._leave()
        raise ClientLeft

    async def _push_on(self, data: bytes, more: bool, patience_s: float) -> None:
        if self._accepts():
            await self._put_head()
            if self._accepts():
                await self._put(data, more)
                return
        while True:
            waiting = self._waiting_bytes()
            try:
                async with asyncio.timeout(patience_s):
                    await self._put_head()
                    await self._put(data, more)
                return
            except TimeoutError:
                # uvicorn waits before it writes, so nothing of this part was written, and it can be sent again.
                if not 0 < self._waiting_bytes() < waiting:
                    self.gone = True
                    self._abort()
                    raise ClientLeft from None

    async def _put_head(self) -> None:
        if self._head is not None:
            await self._send(self._head)
            self._head = None

    async def _put(self, data: bytes, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, status: int, body: bytes, headers: Headers, *, patience_s: float) -> None:
        """A whole JSON response."""
        head = [*JSON, (b"content-length", str(len(body)).encode()), *headers]
        self.start(status, head)
        await self.end(body, patience_s=patience_s)

    async def refuse(self, problem: Problem, headers: Headers = FREE, *, patience_s: float = 30.0) -> None:
        """The response of a refusal."""
        own = [(name.encode(), value.encode("latin-1", "replace")) for name, value in problem.headers().items()]
        body = msgspec.json.encode(self.refusal(problem, self.request_id))
        await self.respond(problem.status, body, [*headers, *own], patience_s=patience_s)

    async def _linger(self) -> None:
        """Throw away a little of a body that nobody reads: closing at once could reset the refusal under way."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return

    def _all_came(self) -> bool:
        """Whether the whole body certainly lies ready, so that reading it waits for nobody."""
        return getattr(self._server, "more_body", None) is False

    def _accepts(self) -> bool:
        """Whether sending certainly waits for nobody: the transport has room."""
        return getattr(getattr(self._server, "flow", None), "write_paused", None) is False

    def _waiting_bytes(self) -> int:
        """What was sent and the client has not accepted."""
        return 0 if self._transport is None else int(self._transport.get_write_buffer_size())

    def _dropped(self) -> bool:
        """Whether the connection has ended."""
        return self._transport is not None and bool(self._transport.is_closing())

    def _abort(self) -> None:
        """Drop a connection whose client accepts nothing."""
        if self._transport is not None:
            self._transport.abort()


def _refusal(problem: Problem, request_id: str) -> dict[str, Any]:
    """In OpenAI's words."""
    return error_body(problem)


def _failed(problem: Problem) -> bytes:
    """In OpenAI's words."""
    return b"data: " + msgspec.json.encode(error_body(problem)) + b"\n\n"


class _Bell(asyncio.Event):
    """An event that says so when it is set."""

    def __init__(self, rung: Callable[[], None]) -> None:
        super().__init__()
        self._rung = rung

    def set(self) -> None:
        super().set()
        self._rung()


class Inference(Protocol):
    """The inference routes."""

    def route(self, path: str) -> Callable[[Exchange], Awaitable[None]] | None:
        """Who answers `path`; None leaves it to the rest of the application."""
        ...


def build(door: Inference, rest: App) -> App:
    """The whole application: inference routes first, because they are the hot path, then `rest` (also the lifespan)."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        handler = door.route(scope["path"]) if scope["type"] == "http" else None
        if handler is None:
            await rest(scope, receive, send)
        else:
            await answer(handler, Exchange(scope, receive, send))

    return application


async def answer(handler: Callable[[Exchange], Awaitable[None]], exchange: Exchange) -> None:
    """Run one handler; whatever it raises becomes an answer in its API's words, without details of a fault."""
    try:
        await handler(exchange)
    except ClientLeft:
        return
    except Problem as problem:
        await _last_word(exchange, problem)
    except LOST as lost:
        log.warning("database lost request_id=%s path=%s: %s", exchange.request_id, exchange.path, type(lost).__name__)
        await _last_word(exchange, LedgerUnavailable(reason="the database doesn't answer", retry_after_s=2))
    except Exception:
        # The last catch: a fault is logged with its request, and its details are never shown.
        log.exception("unexpected request_id=%s path=%s", exchange.request_id, exchange.path)
        await _last_word(exchange, ServerFault(request_id=exchange.request_id))
    finally:
        exchange.unwatch()


async def _last_word(exchange: Exchange, problem: Problem) -> None:
    if exchange.gone:
        return
    try:
        if not exchange.started:
            await exchange.refuse(problem, [] if isinstance(problem, NotSettled) else FREE)
        else:
            await exchange.end(exchange.failed(problem), patience_s=30.0)
    except ClientLeft:
        return


def _too_large(limit_bytes: int, said: str) -> RequestTooLarge:
    return RequestTooLarge(
        reason=f"The request's body {said}; the most is {limit_bytes:,} bytes. Send less, or in several calls."
    )
