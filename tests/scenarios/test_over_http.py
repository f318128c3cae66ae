"""The same endings when the upstream is a server of its own, reached over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.gateway.house import House, InFlight, serve_on, worker
from tests.gateway.raw import CHAT, ask, chat, connect, request

from freehold.db import Database
from freehold.upstream.model import Kind, Model
from freehold.upstream.openai_compatible import OpenAICompatible
from freehold.upstream.scripted import Scripted

WORDS = ["one ", "twö ", "thrée ", "🌍 "]
SERVED = (
    Model("scripted-echo", Kind.CHAT, 8_192, 4_096, "vendor/echo"),
    Model("scripted-exact", Kind.CHAT, 1_000_000, 100_000, "vendor/exact"),
    Model("scripted-embedding", Kind.EMBEDDING, 8_192, 0, "vendor/embedding"),
)

Server = tuple[Scripted, str, InFlight]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Server]:
    """A scripted upstream as a server."""
    scripted = Scripted(models=SERVED)
    app = InFlight(scripted.asgi())
    async with serve_on(app) as served:
        yield scripted, f"http://127.0.0.1:{served.port}/v1", app


@pytest.fixture
async def house(prepared: Database, server: Server) -> AsyncIterator[House]:
    scripted, url, _ = server
    scripted.hanging = asyncio.Event()
    scripted.seen.clear()
    upstream = OpenAICompatible("vendor", url, SERVED, api_key="sk-operators", read_timeout_s=5)
    async with worker(prepared, upstreams=[upstream]) as house:
        house.scripted = scripted
        yield house
    await upstream.close()


async def test_chats_and_embeddings_are_answered(house: House) -> None:
    customer = await house.customer(prepaid="1")
    plain = await ask(house.port, CHAT, chat("hé"), customer.token)
    assert plain.json()["choices"][0]["message"]["content"] == "You said: hé"
    streamed = await ask(house.port, CHAT, chat(stream=True, script={"chunks": WORDS}), customer.token)
    assert streamed.text() == "".join(WORDS)
    embedded = await ask(house.port, "/v1/embeddings", {"model": "scripted-embedding", "input": "x"}, customer.token)
    assert len(embedded.json()["data"][0]["embedding"]) == 8
    for response in (plain, streamed, embedded):
        assert b"vendor" not in response.body
    assert [charge.outcome for charge in await house.charges(customer)] == ["complete"] * 3


async def test_a_stream_cut_anywhere_is_the_same_stream(house: House) -> None:
    customer = await house.customer(prepaid="1")
    for size in (1, 2, 7):
        script = {"chunks": WORDS, "fragment_bytes": size}
        response = await ask(house.port, CHAT, chat(stream=True, script=script), customer.token)
        assert response.text() == "".join(WORDS)
        assert response.events()[-1] == "data: [DONE]"


async def test_a_server_that_dies_at_any_chunk_is_charged_for_what_came(house: House) -> None:
    customer = await house.customer(prepaid="1")
    for at in range(len(WORDS) + 1):
        script = {"chunks": WORDS, "die_after": at}
        response = await ask(house.port, CHAT, chat(stream=True, script=script), customer.token)
        assert response.text() == "".join(WORDS[:at])
        assert response.chunks()[-1]["error"]["code"] == "upstream_error"
    charges = await house.charges(customer)
    assert [charge.usage["output"] for charge in charges] == [4, 3, 2, 1]
    assert {charge.outcome for charge in charges} == {"upstream_died"}
    assert await house.held_nano(customer) == 0


async def test_a_client_that_leaves_closes_the_connection_to_the_server(house: House, server: Server) -> None:
    customer = await house.customer(prepaid="1")
    async with connect(house.port) as connection:
        body = json.dumps(chat(stream=True, script={"chunks": WORDS, "hang_after": 2})).encode()
        await connection.send(request(CHAT, body, customer.token))
        said = b""
        await connection.head()
        while "twö".encode() not in said:
            said += await connection.part()
        connection.leave()
    await house.app.quiet()
    (charge,) = await house.charges(customer)
    assert (charge.outcome, charge.usage["output"]) == ("disconnected", 2)
    async with asyncio.timeout(10):
        await server[2].quiet()  # the server learns of it by its socket
    assert house.scripted.seen[-1].closed


@pytest.mark.parametrize(("status", "answered"), [(401, 502), (403, 502), (429, 503), (500, 502), (400, 400)])
async def test_a_servers_refusal_shows_neither_its_body_nor_the_key(house: House, status: int, answered: int) -> None:
    customer = await house.customer(prepaid="1")
    script = {"status": status, "body": {"error": {"message": "key sk-operators of vendor/echo at 10.0.0.1"}}}
    response = await ask(house.port, CHAT, chat(script=script), customer.token)
    assert response.status == answered
    assert not [secret for secret in (b"sk-operators", b"vendor", b"10.0.0.1") if secret in response.body]
    assert await house.charges(customer) == []


async def test_a_server_that_is_not_there_is_named(prepared: Database) -> None:
    upstream = OpenAICompatible("vendor", "http://127.0.0.1:9/v1", SERVED)
    async with worker(prepared, upstreams=[upstream]) as house:
        customer = await house.customer(prepaid="1")
        response = await ask(house.port, CHAT, chat(stream=True), customer.token)
        assert (response.status, response.code()) == (503, "no_upstream")
        assert response.headers["retry-after"]
        assert b"127.0.0.1" not in response.body
        assert await house.held_nano(customer) == 0
    await upstream.close()


async def test_json_as_deep_as_can_be_read_is_no_fault(house: House) -> None:
    customer = await house.customer(prepaid="1")
    for depth in range(900, 1_010, 2):
        body = json.dumps(chat()).encode()[:-1] + b', "user": ' + b"[" * depth + b"]" * depth + b"}"
        response = await ask(house.port, CHAT, body, customer.token)
        assert response.status in (200, 400, 502)  # 502: the scripted server's own reader may give up
    assert await house.held_nano(customer) == 0
