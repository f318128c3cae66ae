"""What the two servers of this domain share: read a body, notice a caller that left, answer, listen on loopback."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class TooLarge(Exception):
    """The request's body is above the limit."""


async def read_body(receive: Receive, *, limit_bytes: int) -> bytes:
    """The request's body. Raises TooLarge."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise TooLarge
        if not message.get("more_body"):
            return bytes(body)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; cancel it when the caller leaves. What `work` raises is raised."""
    gone = asyncio.ensure_future(_gone(receive))
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((gone, working), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.gather(gone, working, return_exceptions=True)


async def respond(
    send: Send, status: int, content_type: str, parts: AsyncIterator[bytes], *, retry_after_s: int | None = None
) -> None:
    """Send a response as its parts come."""
    headers = [(b"content-type", content_type.encode("latin-1"))]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def respond_json(send: Send, status: int, value: object, *, retry_after_s: int | None = None) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    await respond(send, status, "application/json", _once(body), retry_after_s=retry_after_s)


def error_value(message: str, code: str, *, kind: str = "invalid_request_error") -> dict[str, Any]:
    """OpenAI's error body."""
    return {"error": {"message": message, "type": kind, "code": code, "param": None}}


def bind(port: int) -> socket.socket:
    """A socket on 127.0.0.1 (port 0: a free one), not yet listening. Raises OSError."""
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
    except BaseException:
        bound.close()
        raise
    return bound


async def serve(app: App, bound: socket.socket) -> None:
    """Print one line of JSON with the URL, and serve until SIGTERM or SIGINT. Closes the socket."""
    import uvicorn

    with bound:
        bound.listen(1_024)
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        sys.stdout.write(json.dumps({"url": url, "ready": True}) + "\n")
        sys.stdout.flush()
        # A script that breaks a connection does so by an exception, which the server would log as a fault.
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=2
        )
        await uvicorn.Server(config).serve(sockets=[bound])


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
