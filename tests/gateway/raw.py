"""HTTP by hand: for requests that no client library sends, and clients that leave in the middle."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)

    def code(self) -> str:
        """The code of an error in OpenAI's shape."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "code", "param"}
        assert error["message"]
        return str(error["code"])

    def events(self) -> list[str]:
        """The blocks of an event stream."""
        return [block for block in self.body.decode().split("\n\n") if block]

    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of its data frames."""
        data = [block.removeprefix("data: ") for block in self.events() if block.startswith("data: ")]
        return [json.loads(item) for item in data if item != "[DONE]"]

    def text(self) -> str:
        """What a stream said."""
        choices = [choice for chunk in self.chunks() for choice in chunk.get("choices", [])]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Response:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        return Response(int(lines[0].split(" ")[1]), {name.lower(): value for name, value in pairs})

    async def part(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def response(self) -> Response:
        response = await self.head()
        if response.headers.get("transfer-encoding") == "chunked":
            while part := await self.part():
                response.body += part
        else:
            response.body = await self.reader.readexactly(int(response.headers["content-length"]))
        return response

    def leave(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def request(path: str, body: bytes, token: str | None, *, method: str = "POST", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def ask(port: int, path: str, body: Any, token: str | None, *, method: str = "POST", **headers: str) -> Response:
    """One request on a connection of its own; `body` is bytes, or a value sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with connect(port) as connection:
        await connection.send(request(path, raw, token, method=method, **headers))
        return await connection.response()


CHAT = "/v1/chat/completions"


def chat(text: str = "hello there", *, script: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A chat request for `scripted-echo`; `script` are the scripted upstream's directives."""
    body: dict[str, Any] = {"model": "scripted-echo", "messages": [{"role": "user", "content": text}], **fields}
    if script is not None:
        body["metadata"] = {"freehold_script": script}
    return body
