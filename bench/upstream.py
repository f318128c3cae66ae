"""The upstream that every gateway is measured against: answers that are ready before the question comes.

`python bench/upstream.py` prints its port as one line of JSON and serves until its stdin is closed. A plain chat completion
is answered at once. A stream is TOKENS content chunks, the first at once and one every `seed` milliseconds: `seed` is
a parameter that every gateway passes on untouched. Each chunk's text is a token of its own, so that whoever reads can
tell which are missing.
"""

import asyncio
import json
import re
import sys

import uvloop

TOKENS = 50
INPUT_TOKENS = 40

_SEED = re.compile(rb'"seed": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)


def _usage() -> dict[str, int]:
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": TOKENS, "total_tokens": INPUT_TOKENS + TOKENS}


def _plain() -> bytes:
    text = "".join(token(number) for number in range(TOKENS))
    message = {"role": "assistant", "content": text}
    body = json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "bench-model",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(),
        },
        separators=(",", ":"),
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def token(number: int) -> str:
    return f" tok{number:02}"


def _frame(**fields: object) -> bytes:
    value = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "bench-model",
    }
    data = b"data: " + json.dumps({**value, **fields}, separators=(",", ":")).encode() + b"\n\n"
    return _chunk(data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _content(number: int) -> bytes:
    delta = {"content": token(number)} if number else {"role": "assistant", "content": token(number)}
    return _frame(choices=[{"index": 0, "delta": delta, "finish_reason": None}])


PLAIN = _plain()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = [_content(number) for number in range(TOKENS)]
LAST = _frame(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = _frame(choices=[], usage=_usage())
END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection of one gateway. Requests on it come one after another."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._read = b""
        self._sent = 0
        self._pause_s = 0.0
        self._wants_usage = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._read = self._read + data if self._read else data
        while self._read:
            at = self._read.find(b"\r\n\r\n")
            if at < 0:
                return
            length = _LENGTH.search(self._read, 0, at)
            if length is None and _CHUNKED.search(self._read, 0, at):
                end = self._read.find(b"0\r\n\r\n", at)
                if end < 0:
                    return
                end += 5
            else:
                end = at + 4 + (int(length[1]) if length else 0)
                if len(self._read) < end:
                    return
            body, self._read = self._read[at + 4 : end], self._read[end:]
            if _STREAM.search(body):
                self._begin(body)
            else:
                self._transport.write(PLAIN)

    def _begin(self, body: bytes) -> None:
        seed = _SEED.search(body)
        self._pause_s = int(seed[1]) / 1000 if seed else 0.0
        self._wants_usage = b"include_usage" in body
        self._sent = 0
        self._due = asyncio.get_running_loop().time()
        self._transport.write(STREAM_HEAD)
        self._next()

    def _next(self) -> None:
        self._transport.write(CHUNKS[self._sent])
        self._sent += 1
        if self._sent < TOKENS:
            self._due += self._pause_s
            self._timer = asyncio.get_running_loop().call_at(self._due, self._next)
        else:
            self._transport.write(LAST + (USAGE if self._wants_usage else b"") + END)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: closed.set() if not sys.stdin.buffer.raw.read(1) else None)  # type: ignore[attr-defined]
    await closed.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
