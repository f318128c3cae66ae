"""What a network failure means for a call: whether it may have run, and no secret in what is said about it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from msgspec.structs import replace

from freehold.upstream.model import (
    UpstreamBroke,
    UpstreamCall,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from freehold.upstream.openai_compatible import OpenAICompatible, is_direct
from freehold.upstream.scripted import MODELS

SECRET = "sk-very-secret"
LIMIT = 1_000_000
CALL = UpstreamCall("chat/completions", MODELS[0], b'{"a":1}', True, "request-7")

Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
Peer = Callable[..., contextlib.AbstractAsyncContextManager[OpenAICompatible]]


@asynccontextmanager
async def _peer(direct: bool, talk: Talk, *, read_timeout_s: float = 20.0) -> AsyncIterator[OpenAICompatible]:

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                head += await reader.readexactly(len(CALL.body))
                await talk(head, writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = OpenAICompatible(
        "up", f"http://127.0.0.1:{port}/v1/", MODELS, api_key=SECRET, read_timeout_s=read_timeout_s, direct=direct
    )
    try:
        yield upstream
    finally:
        await upstream.close()
        server.close()


@pytest.fixture(params=[True, False], ids=["direct", "library"])
def direct(request: pytest.FixtureRequest) -> bool:
    """Whether the way is our own or the library's: both mean the same by a failure."""
    return bool(request.param)


@pytest.fixture
def peer(direct: bool) -> Peer:
    """An upstream whose server reads one request and then does as `talk` does, byte by byte."""
    return partial(_peer, direct)


def told_safely(failure: UpstreamError) -> bool:
    said = f"{failure!r} {failure} {failure.__cause__!r}"
    return str(failure).startswith("Upstream up ") and SECRET not in said and "127.0.0.1" not in said


async def test_a_call_carries_body_key_and_request_id(peer: Peer) -> None:
    heads: list[bytes] = []

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head.lower())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    async with peer(talk) as upstream:
        answer = await upstream.send(CALL)
        assert (answer.status, answer.content_type, answer.retry_after_s) == (200, "application/json", None)
        assert await answer.read(LIMIT) == b"{}"
    (head,) = heads
    assert head.startswith(b"post /v1/chat/completions http/1.1\r\n")
    assert b"\r\nauthorization: bearer sk-very-secret\r\n" in head
    assert b"\r\nx-request-id: request-7\r\n" in head
    assert b"\r\naccept-encoding: identity\r\n" in head
    assert head.endswith(b'\r\n\r\n{"a":1}')


async def test_connections_are_used_again(peer: Peer) -> None:
    ports: set[int] = set()

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        ports.add(writer.get_extra_info("peername")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with peer(talk) as upstream:
        for _ in range(5):
            await (await upstream.send(CALL)).read(LIMIT)
    assert len(ports) == 1


async def test_a_chunk_arrives_while_the_stream_is_open(peer: Peer) -> None:
    more = asyncio.Event()

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await more.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async with peer(talk) as upstream:
        answer = await upstream.send(CALL)
        chunks = answer.chunks()
        assert await anext(chunks) == b"first"
        more.set()
        assert b"".join([chunk async for chunk in chunks]) == b"second"
        await answer.close()


@pytest.mark.parametrize(("header", "seconds"), [(b"7", 7), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None)])
async def test_an_error_status_is_an_answer_and_says_when_to_retry(
    peer: Peer, header: bytes, seconds: int | None
) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: " + header + b"\r\nContent-Length: 4\r\n\r\nbusy")

    async with peer(talk) as upstream:
        answer = await upstream.send(CALL)
        assert (answer.status, answer.retry_after_s, await answer.read(LIMIT)) == (429, seconds, b"busy")


async def test_a_redirect_is_not_followed_so_the_key_stays_here(peer: Peer) -> None:
    heads: list[bytes] = []

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    async with peer(talk) as upstream:
        answer = await upstream.send(CALL)
        assert answer.status == 307
        await answer.close()
    assert len(heads) == 1


async def test_a_refused_connection_certainly_ran_nothing(direct: bool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        upstream = OpenAICompatible(
            "up", f"http://127.0.0.1:{unused.getsockname()[1]}/v1", MODELS, api_key=SECRET, direct=direct
        )
        with pytest.raises(UpstreamUnreachable, match="connection refused") as failure:
            await upstream.send(CALL)
        await upstream.close()
    assert failure.value.before_first_byte is True
    assert told_safely(failure.value)


async def test_a_host_that_never_accepts_certainly_ran_nothing(direct: bool) -> None:
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        upstream = OpenAICompatible("up", f"http://127.0.0.1:{port}/v1", MODELS, connect_timeout_s=0.2, direct=direct)
        with pytest.raises(UpstreamUnreachable, match="the connection timed out"):
            await upstream.send(CALL)
        await upstream.close()


async def test_a_peer_that_takes_the_call_and_closes_may_have_run_it(peer: Peer) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with peer(talk) as upstream:
        with pytest.raises(UpstreamBroke, match="before it answered") as failure:
            await upstream.send(CALL)
    assert failure.value.before_first_byte is True
    assert told_safely(failure.value)


async def test_a_peer_that_takes_the_call_and_falls_silent_may_have_run_it(peer: Peer) -> None:
    leave = asyncio.Event()

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        await leave.wait()

    async with peer(talk, read_timeout_s=0.2) as upstream:
        with pytest.raises(UpstreamTimedOut, match=r"nothing came for 0\.2 s") as failure:
            await upstream.send(CALL)
        leave.set()
    assert failure.value.before_first_byte is True
    assert told_safely(failure.value)


async def test_silence_in_the_middle_of_an_answer_is_a_time_out(peer: Peer) -> None:
    leave = asyncio.Event()

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await leave.wait()

    async with peer(talk, read_timeout_s=0.2) as upstream:
        chunks = (await upstream.send(CALL)).chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(UpstreamTimedOut) as failure:
            await anext(chunks)
        leave.set()
    assert failure.value.before_first_byte is False
    assert told_safely(failure.value)


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst",
    ],
)
async def test_an_answer_that_ends_early_is_broken(peer: Peer, part: bytes) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await writer.drain()
        writer.close()

    async with peer(talk) as upstream:
        chunks = (await upstream.send(CALL)).chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(UpstreamBroke, match="in the middle of its answer") as failure:
            await anext(chunks)
    assert failure.value.before_first_byte is False
    assert told_safely(failure.value)


async def test_an_answer_above_the_limit_is_broken_off(peer: Peer) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")

    async with peer(talk) as upstream:
        with pytest.raises(UpstreamBroke, match="more than 9 bytes"):
            await (await upstream.send(CALL)).read(9)
        assert await (await upstream.send(CALL)).read(10) == b"0123456789"


async def test_closing_an_answer_early_ends_the_call_at_the_upstream(peer: Peer) -> None:
    ended = asyncio.Event()

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"5\r\nagain\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            ended.set()
            raise

    async with peer(talk) as upstream:
        answer = await upstream.send(CALL)
        assert (await anext(answer.chunks())).startswith(b"again")
        await answer.close()
        await answer.close()
        await ended.wait()


async def test_one_upstream_serves_several_event_loops_and_opens_again_after_close(peer: Peer) -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with peer(talk) as upstream:

        async def ask() -> bytes:
            return await (await upstream.send(CALL)).read(LIMIT)

        assert await ask() == b"{}"
        assert await asyncio.to_thread(asyncio.run, ask()) == b"{}"
        await upstream.close()
        assert await ask() == b"{}"


def test_a_key_that_no_header_takes_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="characters that no HTTP header takes") as refusal:
        OpenAICompatible("up", "http://127.0.0.1/v1", MODELS, api_key=f"{SECRET}\r\n")
    assert SECRET not in str(refusal.value)
    assert SECRET not in repr(OpenAICompatible("up", "http://127.0.0.1/v1", MODELS, api_key=SECRET))


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://models.internal/v1", True),
        ("https://127.0.0.1:8000/v1", False),
        ("http://user:pass@127.0.0.1/v1", False),
        ("http://127.0.0.1/a path", False),
    ],
)
def test_only_what_needs_neither_tls_nor_a_password_is_reached_directly(
    url: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert is_direct(url) is direct


def test_a_proxy_is_used_but_for_this_machine_and_what_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "models.internal")
    found = [is_direct(f"http://{host}/v1") for host in ("models.example", "models.internal", "localhost")]
    assert found == [False, True, True]


async def test_anthropics_api_gets_its_version_and_the_key_under_its_own_name(peer: Peer) -> None:
    heads: list[bytes] = []

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head.lower())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with peer(talk) as upstream:
        await (await upstream.send(replace(CALL, path="messages"))).read(LIMIT)
    (head,) = heads
    assert b"\r\nanthropic-version: 2023-06-01\r\n" in head
    assert b"\r\nx-api-key: sk-very-secret\r\n" in head
