"""What a client may do to a connection, by mistake or by malice: each gets its answers, in order, or an end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.gateway.house import House, InFlight, QuietServer, serve_on, worker
from tests.gateway.raw import CHAT, Connection, chat, connect, request

from freehold.db import Database
from freehold.gateway import connection as served
from freehold.gateway.asgi import Exchange, Receive, Scope, Send

OTHER = "/other"
"""A path that is not an inference route."""


class Echo:
    """An inference route that says what it got, and another application that says the same by ASGI."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def route(self, path: str) -> Any:
        return {"/v1/echo": self.echo, "/v1/slow": self.slow, "/v1/bad": self.bad, "/v1/refuse": self.refuse}.get(path)

    async def echo(self, exchange: Exchange) -> None:
        body = await exchange.body(limit_bytes=10_000_000, patience_s=5)
        self.bodies.append(body)
        said = {"method": exchange.method, "path": exchange.path, "query": exchange.query, "size": len(body)}
        await exchange.respond(200, json.dumps(said).encode(), [], patience_s=5)

    async def slow(self, exchange: Exchange) -> None:
        """A stream that begins, and ends when the client's body says so."""
        body = await exchange.body(limit_bytes=1_000, patience_s=5)
        exchange.start(200, [])
        for _ in range(int(body)):
            await exchange.write(b"x", patience_s=5)
        await exchange.end(b"", patience_s=5)

    async def bad(self, exchange: Exchange) -> None:
        await exchange.respond(200, b"{}", [(b"x-said", b"one\r\nx-injected: two")], patience_s=5)

    async def refuse(self, exchange: Exchange) -> None:
        await exchange.respond(401, b"{}", [], patience_s=5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        said = json.dumps({"path": scope["path"], "size": len(body)}).encode()
        head = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": said})


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[QuietServer, Echo]]:
    echo = Echo()
    async with serve_on(InFlight(echo, echo)) as server:
        yield server, echo


async def ended(connection: Connection) -> bool:
    """Whether the server has closed it."""
    try:
        return await connection.reader.read(1) == b""
    except ConnectionError:
        return True


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("path", ["/v1/echo", OTHER])
class TestOfBothWays:
    async def test_a_kept_connection_answers_again_and_again(self, path: str) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            for size in (0, 5, 300_000):
                await connection.send(post(path, b"x" * size))
                assert (await connection.response()).json()["size"] == size

    async def test_requests_sent_at_once_are_answered_in_order(self, path: str) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            both = [post("/v1/echo", b"1"), post(path, b"22"), post(OTHER, b"333"), post("/v1/echo", b"4444")]
            await connection.send(b"".join(both))
            assert [(await connection.response()).json()["size"] for _ in both] == [1, 2, 3, 4]

    async def test_a_body_in_chunks_is_read(self, path: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        async with echoing() as (server, echo), connect(server.port) as connection:
            for part in (head, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n0\r\nx-trailer: z\r\n\r\n"):
                await connection.send(part)
                await asyncio.sleep(0)
            assert (await connection.response()).json()["size"] == 5
            assert echo.bodies == [b"abcde"]

    async def test_a_client_that_only_ends_its_sending_gets_its_answer(self, path: str) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(post(path, b"12345"))
            connection.writer.write_eof()
            assert (await connection.response()).json()["size"] == 5
            assert await ended(connection)

    @pytest.mark.parametrize("apart", [False, True])
    async def test_an_upgrade_that_nobody_speaks_is_ignored_and_the_body_is_kept(self, path: str, apart: bool) -> None:
        asked = post(path, b"12345", "connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")
        async with echoing() as (server, echo), connect(server.port) as connection:
            for part in (asked[:-5], asked[-5:]) if apart else (asked,):
                await connection.send(part)
                await asyncio.sleep(0.01)
            assert (await connection.response()).json()["size"] == 5
            assert echo.bodies == [b"12345"]
            await connection.send(post(path, b"1"))
            assert (await connection.response()).json()["size"] == 1

    async def test_a_head_without_end_is_refused(self, path: str) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-long: ".encode()
            await connection.send(head + b"y" * (served.LONGEST_HEAD + 1))
            response = await connection.response()
            assert (response.status, response.code()) == (431, "request_too_large")
            assert await ended(connection)

    async def test_a_whole_head_that_is_too_long_is_refused(self, path: str) -> None:
        long = [f"x-{number}: {'y' * 1000}" for number in range(70)]
        async with echoing() as (server, echo), connect(server.port) as connection:
            await connection.send(post(path, b"1", *long))
            assert (await connection.response()).status == 431
            assert echo.bodies == []

    async def test_a_client_of_http_1_0_gets_an_answer_and_an_end(self, path: str) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(post(path, b"12345", version="1.0"))
            assert (await connection.response()).json()["size"] == 5
            assert await ended(connection)

    async def test_a_client_that_expects_to_be_asked_for_its_body_is_asked(self, path: str) -> None:
        asked = post(path, b"12345", "expect: 100-continue")
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(asked[:-5])
            assert (await connection.head()).status == 100
            await connection.send(asked[-5:])
            assert (await connection.response()).json()["size"] == 5

    async def test_a_client_that_wants_an_end_after_its_answer_gets_it(self, path: str) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(post(path, b"1", "connection: close"))
            response = await connection.response()
            assert response.headers["connection"] == "close"
            assert await ended(connection)

    @pytest.mark.parametrize(
        "hidden",
        [
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 0\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0x5\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nabcde\r\n0\r\n\r\n{next}",
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\nab\n0\n\n{next}",
            "POST {path} HTTP/1.1\nhost: x\ncontent-length: 0\n\n{next}",
        ],
    )
    async def test_what_two_servers_could_read_differently_reaches_nobody(self, path: str, hidden: str) -> None:
        """A request hidden in another is not answered; neither is the other."""
        asked = hidden.format(path=path, next="POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nhid")
        async with echoing() as (server, echo), connect(server.port) as connection:
            await connection.send(asked.encode())
            said = await connection.reader.read()
            assert b"HTTP/1.1 200" not in said
            assert b"hid" not in echo.bodies


class TestOfInference:
    async def test_its_address_is_read_in_every_form(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            for address in ("/v1/echo?a=1&b", "http://x/v1/echo?a=1&b", "/v1/%65cho?a=1&b"):
                await connection.send(post(address, b""))
                said = (await connection.response()).json()
                assert said == {"method": "POST", "path": "/v1/echo", "query": "a=1&b", "size": 0}

    async def test_a_line_end_in_a_header_is_a_fault_and_reaches_no_client(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(post("/v1/bad", b""))
            response = await connection.response()
            assert (response.status, response.code()) == (500, "server_error")
            assert "x-injected" not in response.headers

    async def test_a_stream_to_a_client_of_http_1_0_ends_with_its_connection(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(post("/v1/slow", b"3", version="1.0"))
            head = await connection.head()
            assert "transfer-encoding" not in head.headers
            assert await connection.reader.read() == b"xxx"

    async def test_a_refusal_reaches_a_client_that_still_sends(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            asked = post("/v1/refuse", b"x" * 1_000_000)
            await connection.send(asked[:-10])
            response = await connection.response()
            assert (response.status, response.headers["connection"]) == (401, "close")
            await connection.send(asked[-10:])
            assert await ended(connection)

    async def test_a_proxys_verb_is_refused(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await connection.response()).code() == "invalid_request"
            assert await ended(connection)

    async def test_an_answer_under_way_is_not_mixed_with_the_refusal_of_what_follows(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(post("/v1/echo", b"12345") + b"not HTTP\r\n\r\n")
            assert (await connection.response()).json()["size"] == 5
            assert await ended(connection)

    async def test_a_verb_without_an_answers_body_gets_none(self) -> None:
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(b"HEAD /v1/refuse HTTP/1.1\r\nhost: x\r\n\r\n" + post("/v1/echo", b"1"))
            assert (await connection.head()).status == 401
            assert (await connection.response()).json()["size"] == 1


class TestOfTime:
    async def test_a_head_that_never_ends_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(served, "HEAD_PATIENCE_S", 0.2)
        monkeypatch.setattr(served, "_LOOK_S", 0.05)
        async with echoing() as (server, _), connect(server.port) as connection:
            await connection.send(b"POST /v1/echo HTTP/1.1\r\nhost: x\r\n")
            for number in range(100):
                if connection.reader.at_eof():
                    break
                connection.writer.write(f"x-{number}: y\r\n".encode())
                await asyncio.sleep(0.05)
            assert connection.reader.at_eof()

    async def test_a_connection_without_a_request_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(served, "HEAD_PATIENCE_S", 0.1)
        monkeypatch.setattr(served, "_LOOK_S", 0.05)
        async with echoing() as (server, _), connect(server.port) as connection:
            assert await ended(connection)

    async def test_a_slow_answer_is_not_cut_off(self, monkeypatch: pytest.MonkeyPatch, prepared: Database) -> None:
        monkeypatch.setattr(served, "HEAD_PATIENCE_S", 0.1)
        monkeypatch.setattr(served, "_LOOK_S", 0.05)
        async with worker(prepared) as house:
            customer = await house.customer(prepaid="1")
            house.scripted.gate = asyncio.Event()
            async with connect(house.port) as connection:
                body = json.dumps(chat(script={"hang_after": 0})).encode()
                await connection.send(request(CHAT, body, customer.token))
                await house.scripted.hanging.wait()
                await asyncio.sleep(0.4)
                house.scripted.gate.set()
                assert (await connection.response()).status == 200


class TestOfHalfClosing:
    """A client that only ends its sending waits for its answer; one that has closed is gone. Both begin alike."""

    @pytest.mark.parametrize("stream", [False, True])
    async def test_the_whole_answer_comes_also_late(self, own_house: House, stream: bool) -> None:
        customer = await own_house.customer(prepaid="1")
        own_house.scripted.gate = asyncio.Event()
        async with connect(own_house.port) as connection:
            script = {"chunks": ["one ", "two "], "hang_after": 1 if stream else 0}
            body = json.dumps(chat(stream=stream, script=script)).encode()
            await connection.send(request(CHAT, body, customer.token))
            connection.writer.write_eof()
            await own_house.scripted.hanging.wait()
            await asyncio.sleep(0.3)  # while some of the answer's beginning is sent, and comments in a stream
            own_house.scripted.gate.set()
            response = await connection.response()
        assert response.status == 200
        said = response.text() if stream else response.json()["choices"][0]["message"]["content"]
        assert said == "one two "
        (charge,) = await own_house.charges(customer)
        assert charge.outcome == "complete"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_client_that_has_closed_is_noticed(self, own_house: House, stream: bool) -> None:
        customer = await own_house.customer(prepaid="1")
        async with connect(own_house.port) as connection:
            body = json.dumps(chat(stream=stream, script={"hang_after": 0})).encode()
            await connection.send(request(CHAT, body, customer.token))
            await own_house.scripted.hanging.wait()
            if stream:
                await connection.head()
                await connection.part()
        await own_house.app.quiet()
        (charge,) = await own_house.charges(customer)
        assert charge.outcome == "disconnected"
