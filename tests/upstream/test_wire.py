"""Connections of our own to an upstream: what is kept, what is closed, and how an answer's end is known."""

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from freehold.upstream import wire
from freehold.upstream.model import UpstreamBroke, UpstreamUnreachable
from freehold.upstream.wire import Wire

ASKED = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def host(talk: Talk) -> AsyncIterator[tuple[Wire, list[int]]]:
    """A wire to a server that answers each request as `talk` does, and the ports that its connections came from."""
    ports: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await talk(writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = Wire("up", "127.0.0.1", server.sockets[0].getsockname()[1], connect_timeout_s=5, read_timeout_s=20)
    try:
        yield made, ports
    finally:
        made.close()
        server.close()


def saying(*parts: bytes, close: bool = False) -> Talk:
    """A server that says each part by itself."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    return talk


async def whole(made: Wire) -> bytes:
    return await (await made.ask(ASKED)).read(10**9)


async def test_calls_at_once_have_connections_of_their_own_and_later_ones_use_them_again() -> None:
    async with host(saying(WHOLE)) as (made, ports):
        assert await asyncio.gather(*[whole(made) for _ in range(3)]) == [b"{}"] * 3
        assert len(ports) == 3
        assert await asyncio.gather(*[whole(made) for _ in range(3)]) == [b"{}"] * 3
        assert len(ports) == 3


async def test_a_call_is_not_mixed_up_with_the_next_on_its_connection() -> None:
    """An answer may be whole, and its connection taken by another call, before the caller has been told."""
    async with host(saying(WHOLE)) as (made, _):

        async def several() -> list[bytes]:
            return [await whole(made) for _ in range(50)]

        assert await asyncio.gather(*[several() for _ in range(8)]) == [[b"{}"] * 50] * 8


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "KEPT_S", 0.0)
    async with host(saying(WHOLE)) as (made, ports):
        assert [await whole(made), await whole(made)] == [b"{}"] * 2
        assert len(ports) == 2


async def test_a_connection_that_its_server_closes_is_not_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    async with host(saying(answer)) as (made, ports):
        assert [await whole(made), await whole(made)] == [b"{}"] * 2
        assert len(ports) == 2


async def test_a_connection_whose_end_lies_unread_is_not_used_again() -> None:
    """Its server has closed it, and a busy loop hasn't come to that yet."""
    left_alone = asyncio.Event()

    async def talk(writer: asyncio.StreamWriter) -> None:
        await saying(WHOLE)(writer)
        await left_alone.wait()
        writer.close()

    async with host(talk) as (made, ports), asyncio.timeout(60):
        assert await whole(made) == b"{}"
        (connection,) = made._open
        connection.transport.pause_reading()  # as if the loop had no time to read
        left_alone.set()
        end = select.poll()
        end.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
        assert await asyncio.to_thread(end.poll, 30_000)
        connection.quiet_since_s -= wire.LOOKED_AT_S
        assert await whole(made) == b"{}"
        assert len(ports) == 2


async def test_a_quiet_connection_is_used_again_after_a_look() -> None:
    async with host(saying(WHOLE)) as (made, ports), asyncio.timeout(60):
        for _ in range(3):
            assert await whole(made) == b"{}"
            (connection,) = made._open
            connection.quiet_since_s -= wire.LOOKED_AT_S
        assert len(ports) == 1


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    async with host(saying(WHOLE + WHOLE)) as (made, ports):
        assert [await whole(made), await whole(made)] == [b"{}"] * 2
        assert len(ports) == 2


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with host(saying(b"HTTP/1.1 200 OK\r\n\r\n", b"first", b"second", close=True)) as (made, _):
        assert await whole(made) == b"firstsecond"


async def test_interim_answers_and_trailers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\nRetry-After: 9\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n"
    async with host(saying(interim, interim + head, b"2\r\n{}\r\n0\r\nContent-Type: c/d\r\n\r\n")) as (made, ports):
        for _ in range(2):
            answer = await made.ask(ASKED)
            assert await answer.read(10) == b"{}"
            assert (answer.status, answer.content_type, answer.retry_after_s) == (200, "a/b", None)
        assert len(ports) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (wire.LONGEST_HEAD + 1),
    ],
)
async def test_what_is_no_answer_breaks_the_call(said: bytes) -> None:
    async with host(saying(said)) as (made, _):
        with pytest.raises(UpstreamBroke, match="before it answered"):
            await whole(made)


async def test_a_server_is_read_no_faster_than_its_answer_is_taken() -> None:
    size = 32 * 1024 * 1024
    sent = 0
    drained = asyncio.Event()

    async def talk(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536
            drained.set()

    async with host(talk) as (made, _):
        answer = await made.ask(ASKED)
        before = -1
        while before != sent:  # until the server stands still
            before = sent
            drained.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(drained.wait(), 0.2)
        assert sent < size // 2
        assert len(await answer.read(size)) == size


async def test_a_call_that_is_cancelled_ends_at_the_upstream() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def talk(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await writer.wait_closed()

    async with host(talk) as (made, ports):
        call = asyncio.create_task(whole(made))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        ended.set()
        made.close()
    assert len(ports) == 1


async def test_a_name_that_does_not_resolve_certainly_ran_nothing() -> None:
    made = Wire("up", "nowhere.invalid", 80, connect_timeout_s=5, read_timeout_s=5)
    with pytest.raises(UpstreamUnreachable, match="its host name doesn't resolve"):
        await whole(made)


async def test_a_half_sent_answer_is_not_taken_for_a_whole_one() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        made = Wire("up", "127.0.0.1", listener.getsockname()[1], connect_timeout_s=5, read_timeout_s=5)
        call = asyncio.create_task(whole(made))
        loop = asyncio.get_running_loop()
        accepted, _ = await loop.sock_accept(listener)
        await loop.sock_sendall(accepted, b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()  # by a reset
        with pytest.raises(UpstreamBroke):
            await call
        made.close()
