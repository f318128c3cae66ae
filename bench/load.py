"""The load generator: many callers on one event loop, each on a kept connection of its own.

`python bench/load.py` reads one JSON command a line from stdin and answers each with a line of JSON. It also reads the
CPU time of the processes that it is told to watch, at both ends of the measured window, so that nothing of warming up
counts. Latencies are kept whole, in microseconds.

    {"do": "plain", "port", "headers": {..}, "tokens": [..], "callers", "seconds" | "count", "warm_s", "watch": {..}}
    {"do": "streams", "port", "headers", "tokens", "streams", "repeats", "pause_ms", "spread_s", "watch"}
"""

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from machine import cpu_s, quantile, rss_mb

from upstream import TOKENS

GIVE_UP_S = 60.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TOKEN = re.compile(rb"tok(\d\d)")


def request(port: int, headers: dict[str, str], body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    named = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "content-length": str(len(data))}
    head = "".join(f"{name}: {value}\r\n" for name, value in {**named, **headers}.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + data


def requests(command: dict[str, Any], **extra: object) -> list[bytes]:
    """One ready request for each token; one without authorization when there are none."""
    body = {
        "model": "bench-model",
        "messages": [
            {"role": "system", "content": "You answer in one paragraph, and never say more than is known."},
            {"role": "user", "content": "What does a gateway add to each call, and where does the time go? " * 3},
        ],
        "max_tokens": 256,
        **extra,
    }
    tokens = command.get("tokens") or [None]
    return [
        request(
            command["port"],
            {**command.get("headers", {}), **({"authorization": f"Bearer {token}"} if token else {})},
            body,
        )
        for token in tokens
    ]


class Caller(asyncio.Protocol):
    """Sends a request, waits for its whole answer, sends the next."""

    def __init__(self, run: "PlainRun") -> None:
        self._run = run
        self._transport: asyncio.Transport
        self._read = b""
        self._whole = 0
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        sent = self._run.next()
        if sent is None:
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        if self._read:
            data = self._read + data
        if not self._whole:
            at = data.find(b"\r\n\r\n")
            if at < 0:
                self._read = data
                return
            length = _LENGTH.search(data, 0, at)
            self._whole = at + 4 + int(length[1]) if length else -1
        if len(data) < self._whole if self._whole > 0 else not data.endswith(b"0\r\n\r\n"):
            self._read = data
            return
        self._read, self._whole = b"", 0
        self._run.done(self._begun, data.startswith(b"HTTP/1.1 200"), data)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.left()


class PlainRun:
    """Callers in a closed loop, first to warm up and then to be measured."""

    def __init__(self, command: dict[str, Any]) -> None:
        self._requests = requests(command)
        self._callers: int = command["callers"]
        self._port: int = command["port"]
        self._warm_s: float = command.get("warm_s", 0.3)
        self._seconds: float | None = command.get("seconds")
        self._count: int | None = command.get("count")
        self._watch: dict[str, list[int]] = command.get("watch", {})
        self._sent = 0
        self._open = 0
        self._stopping = False
        self._measuring = False
        self._latencies: list[float] = []
        self._failed: list[str] = []
        self._finished = asyncio.Event()
        self._closed = asyncio.Event()

    def next(self) -> bytes | None:
        if self._stopping:
            return None
        self._sent += 1
        return self._requests[self._sent % len(self._requests)]

    def done(self, begun: float, passed: bool, answer: bytes) -> None:
        if not passed:
            self._failed.append(answer[:300].decode("latin-1"))
            if len(self._failed) > 100:
                self._stopping = True
                self._finished.set()
        elif self._measuring:
            self._latencies.append(time.perf_counter() - begun)
            if self._count is not None and len(self._latencies) >= self._count:
                self._finished.set()

    def left(self) -> None:
        self._open -= 1
        if not self._open:
            self._closed.set()
            self._finished.set()

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self._callers):
            await loop.create_connection(lambda: Caller(self), "127.0.0.1", self._port)
            self._open += 1
        await asyncio.sleep(self._warm_s)
        self._measuring = True
        before = {name: cpu_s(pids) for name, pids in self._watch.items()}
        begun = time.perf_counter()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), self._seconds or 3600)
        took_s = time.perf_counter() - begun
        self._measuring = False
        used = {name: cpu_s(pids) - before[name] for name, pids in self._watch.items()}
        memory = {name: rss_mb(pids) for name, pids in self._watch.items()}
        self._stopping = True
        try:
            await asyncio.wait_for(self._closed.wait(), GIVE_UP_S)
        except TimeoutError:
            self._failed.append("not every caller was answered")
        found = sorted(self._latencies)
        calls = len(found)
        return {
            "calls": calls,
            "seconds": took_s,
            "rps": calls / took_s,
            "p50_us": quantile(found, 0.5) * 1e6,
            "p99_us": quantile(found, 0.99) * 1e6,
            "cpu_us": {name: seconds / max(calls, 1) * 1e6 for name, seconds in used.items()},
            "rss_mb": memory,
            "failed": len(self._failed),
            "failure": self._failed[0] if self._failed else None,
        }


class Listener(asyncio.Protocol):
    """Runs a few streams one after another on one connection."""

    def __init__(self, run: "StreamRun", sent: bytes) -> None:
        self._run = run
        self._sent = sent
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        self._begun = 0.0
        self._first = 0.0
        self._left = run.repeats

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        self._begun = time.perf_counter()
        self._first = 0.0
        self._parts = []
        self._transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        if not self._first and b"tok" in data:
            self._first = time.perf_counter()
        self._parts.append(data)
        if data.endswith(b"0\r\n\r\n"):
            self._end(whole=True)
        elif not self._parts[0].startswith(b"HTTP/1.1 200"):
            self._transport.abort()  # a refusal: whatever else comes is no stream

    def _end(self, *, whole: bool) -> None:
        if not self._left:
            return
        answer = b"".join(self._parts)
        tokens = {int(found) for found in _TOKEN.findall(answer)}
        whole = whole and b"[DONE]" in answer and answer.startswith(b"HTTP/1.1 200")
        self._run.ended(self._first - self._begun if self._first else None, TOKENS - len(tokens), whole, answer)
        self._left -= 1
        if self._left:
            self._send()
        else:
            self._run.left()
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        while self._left:
            self._end(whole=False)
            self._parts, self._first = [], 0.0

    def give_up(self) -> None:
        self._transport.abort()


def _why(answer: bytes, lost: int) -> str:
    """What came instead of a whole stream, in a line."""
    status, _, rest = answer.partition(b"\r\n")
    if not status.startswith(b"HTTP/1.1 200"):
        return f"{status.decode('latin-1')}: {rest.partition(bytes([13, 10, 13, 10]))[2][:120].decode('latin-1')}"
    return f"{TOKENS - lost} of {TOKENS} chunks had come when patience ended"


class StreamRun:
    """Many streams at a time, their starts spread evenly."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.repeats: int = command.get("repeats", 1)
        self._command = command
        self._open: int = command["streams"]
        self._firsts: list[float] = []
        self._lost = 0
        self._broken = 0
        self._failure: str | None = None
        self._closed = asyncio.Event()

    def ended(self, first_s: float | None, lost: int, whole: bool, answer: bytes) -> None:
        if first_s is not None:
            self._firsts.append(first_s)
        self._lost += lost
        if not whole:
            self._broken += 1
            self._failure = self._failure or _why(answer, lost)

    def left(self) -> None:
        self._open -= 1
        if not self._open:
            self._closed.set()

    async def run(self) -> dict[str, Any]:
        command = self._command
        sent = requests(command, stream=True, seed=command["pause_ms"])
        watch: dict[str, list[int]] = command.get("watch", {})
        count, spread_s = command["streams"], command["spread_s"]
        before = {name: cpu_s(pids) for name, pids in watch.items()}
        begun = time.perf_counter()
        listeners: list[Listener] = []
        starts = [
            asyncio.create_task(self._start(i * spread_s / count, sent[i % len(sent)], listeners)) for i in range(count)
        ]
        await asyncio.gather(*starts)
        least_s = command["pause_ms"] / 1000 * TOKENS * self.repeats
        try:
            await asyncio.wait_for(self._closed.wait(), least_s + command.get("patience_s", GIVE_UP_S))
        except TimeoutError:
            for listener in listeners:
                listener.give_up()
            await asyncio.wait_for(self._closed.wait(), 10)
        took_s = time.perf_counter() - begun
        used = {name: cpu_s(pids) - before[name] for name, pids in watch.items()}
        found = sorted(self._firsts)
        streams = count * self.repeats
        return {
            "streams": streams,
            "seconds": took_s,
            "first_p50_us": quantile(found, 0.5) * 1e6,
            "first_p99_us": quantile(found, 0.99) * 1e6,
            "lost_chunks": self._lost,
            "broken": self._broken,
            "failure": self._failure,
            "cpu_us_per_chunk": {name: seconds / (streams * TOKENS) * 1e6 for name, seconds in used.items()},
            "cpu_share": {name: seconds / took_s for name, seconds in used.items()},
            "rss_mb": {name: rss_mb(pids) for name, pids in watch.items()},
        }

    async def _start(self, after_s: float, sent: bytes, listeners: list[Listener]) -> None:
        await asyncio.sleep(after_s)
        try:
            _, listener = await asyncio.get_running_loop().create_connection(
                lambda: Listener(self, sent), "127.0.0.1", self._command["port"]
            )
        except OSError as refused:
            for _ in range(self.repeats):
                self.ended(None, TOKENS, False, str(refused).encode())
            self.left()
        else:
            listeners.append(listener)


DO: dict[str, Callable[[dict[str, Any]], PlainRun | StreamRun]] = {"plain": PlainRun, "streams": StreamRun}


async def obey() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        answer = await DO[command["do"]](command).run()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(obey())
