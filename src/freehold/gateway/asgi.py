"""One HTTP exchange: bounded reading, refusals, and what every answer carries; and the way that ASGI carries it.

The inference routes' exchanges are carried by connections of their own (connection.py), the account API's by ASGI.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from uuid import UUID

import msgspec

from freehold.db import LOST, random_id
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


class Exchange(ABC):
    """One request and its response."""

    def __init__(self, method: str, path: str, query: str, headers: Headers) -> None:
        """`query` is what stands after the path's `?`; `headers` are the request's, their names in lower case."""
        self.id: UUID = random_id()
        self.method = method
        self.path = path
        self.query = query
        self.started = False
        """The response has begun: another one can't be sent."""
        self.gone = False
        """The client has left, or accepts nothing any more."""
        self.limits: Headers = []
        """The key's limits per minute, once they are known: they go with every answer."""
        self.left: Callable[[], None] | None = None
        """Called once when the client leaves."""
        self.own: Headers = []
        """The request's id under the other names that this route's API has for it."""
        self.refusal: Callable[[Problem, str], dict[str, Any]] = _refusal
        """The body of a refusal, in the words of this route's API."""
        self.failed: Callable[[Problem], bytes] = _failed
        """What tells of a failure in a stream that has begun."""
        self.alive = b""
        """What may be sent between two parts of the body, and means nothing; empty where nothing may be."""
        self._named: tuple[UUID | None, str] = (None, "")
        self._headers = dict(reversed(headers))  # the first of several counts
        self._unread = method == "POST"

    @property
    def request_id(self) -> str:
        """As clients see it."""
        if self._named[0] is not self.id:
            self._named = self.id, f"req_{self.id.hex}"
        return self._named[1]

    def header(self, name: bytes) -> str | None:
        """A request header, by its lower-case name."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self, *, limit_bytes: int, patience_s: float) -> bytes:
        """The whole body. Raises RequestTooLarge as soon as it is known, RequestTimeout and ClientLeft."""
        declared = self.header(b"content-length")
        if declared is not None and declared.isdecimal() and int(declared) > limit_bytes:
            raise _too_large(limit_bytes, f"is {int(declared):,} bytes")
        parts: list[bytes] = []
        size = 0
        while True:
            part, more = await self._part(patience_s)
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes, "is longer")
            parts.append(part)
            if not more:
                self._unread = False
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def start(self, status: int, headers: Headers) -> None:
        """Begin the response; its head, with `x-request-id`, leaves with the first part of the body."""
        head = [(b"x-request-id", self.request_id.encode()), *self.own, *self.limits, *headers]
        if self._unread:
            head.append((b"connection", b"close"))
        self._begin(status, head)
        self.started = True

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

    async def respond(self, status: int, body: bytes, headers: Headers, *, patience_s: float) -> None:
        """A whole JSON response."""
        self.start(status, [*JSON, (b"content-length", b"%d" % len(body)), *headers])
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
                    part, more = await self._part(LINGER_S)
                    if not more:
                        return
                    left -= len(part)
        except (TimeoutError, RequestTimeout, ClientLeft):
            return

    @abstractmethod
    async def _part(self, patience_s: float) -> tuple[bytes, bool]:
        """What has come of the body, and whether more follows. Raises RequestTimeout, ClientLeft."""

    @abstractmethod
    def _begin(self, status: int, headers: Headers) -> None:
        """The head of the response, to be sent with the next part of the body."""

    @abstractmethod
    async def _push(self, data: bytes, more: bool, patience_s: float) -> None:
        """Send; `more` of the body follows. Raises ClientLeft."""


class AsgiExchange(Exchange):
    """Carried by an ASGI server."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        super().__init__(scope["method"], scope["path"], query, list(scope["headers"]))
        self._receive = receive
        self._send = send
        self._head: Message | None = None

    async def _part(self, patience_s: float) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(patience_s):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(waited=f"{patience_s:g}") from None
        if message["type"] == "http.disconnect":
            self.gone = True
            raise ClientLeft
        return message.get("body", b""), message.get("more_body", False)

    def _begin(self, status: int, headers: Headers) -> None:
        self._head = {"type": "http.response.start", "status": status, "headers": headers}

    async def _push(self, data: bytes, more: bool, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                if self._head is not None:
                    head, self._head = self._head, None
                    await self._send(head)
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            self.gone = True
            raise ClientLeft from None


def _refusal(problem: Problem, request_id: str) -> dict[str, Any]:
    """In OpenAI's words."""
    return error_body(problem)


def _failed(problem: Problem) -> bytes:
    """In OpenAI's words."""
    return b"data: " + msgspec.json.encode(error_body(problem)) + b"\n\n"


class Inference(Protocol):
    """The inference routes."""

    def route(self, path: str) -> Callable[[Exchange], Awaitable[None]] | None:
        """Who answers `path`; None leaves it to the rest of the application."""
        ...


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
