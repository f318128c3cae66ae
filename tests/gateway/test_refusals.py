"""Each refusal has its name, in OpenAI's shape, and costs nothing."""

import asyncio
import json
import logging
import socket
from typing import Any

import pytest
from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, Response, ask, chat, connect, request

from freehold.db import Database
from freehold.gateway.settings import DoorSettings
from freehold.identity.model import CallerKind, Scope
from freehold.identity.tokens import new_token
from freehold.upstream.model import Kind, Model
from freehold.upstream.scripted import Scripted

HELLO = [{"role": "user", "content": "hello"}]

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


async def refused(house: House, body: Any, customer: Customer, path: str = CHAT) -> Response:
    """A refusal, which reached no upstream and holds nothing."""
    before = len(house.scripted.seen)
    response = await ask(house.port, path, body, customer.token)
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-freehold-cost"] == "0.00"
    assert len(house.scripted.seen) == before
    assert await house.held_nano(customer) == 0
    return response


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b"", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        ({"messages": HELLO}, 400, "invalid_request"),
        ({"model": "scripted-echo"}, 400, "invalid_request"),
        ({"model": "scripted-embedding", "messages": HELLO}, 400, "invalid_request"),
        (chat(max_tokens=0), 400, "invalid_request"),
        (chat(conversation="c"), 400, "unsupported_parameter"),
        (chat(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]), 400, "unsupported_parameter"),
        (
            chat(model="scripted-exact", messages=[{"role": "user", "content": [IMAGE]}]),
            400,
            "unsupported_parameter",
        ),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), 400, "invalid_request"),
        ({"model": "scripted-ecco", "messages": HELLO}, 404, "model_not_found"),
        (chat("word " * 200_000), 413, "request_too_large"),
        (chat(max_tokens=1_000_000_000), 402, "insufficient_credit"),
    ],
)
async def test_a_bad_request_is_refused_by_name(house: House, body: Any, status: int, code: str) -> None:
    customer = await house.customer(prepaid="1")
    response = await refused(house, body, customer)
    assert (response.status, response.code()) == (status, code)


async def test_no_depth_of_nesting_is_a_fault(house: House) -> None:
    customer = await house.customer(prepaid="1")
    for depth in range(880, 1_010, 2):  # around the interpreter's own limit, wherever in the call it is met
        body = json.dumps(chat()).encode()[:-1] + b', "user": ' + b"[" * depth + b"]" * depth + b"}"
        assert (await ask(house.port, CHAT, body, customer.token)).status in (200, 400)
    assert await house.held_nano(customer) == 0


async def test_an_unknown_model_is_answered_with_near_names(house: House) -> None:
    customer = await house.customer(prepaid="1")
    response = await refused(house, {"model": "scripted-ecco", "messages": HELLO}, customer)
    assert "scripted-echo" in response.json()["error"]["message"]


async def test_a_model_without_a_price_is_not_free(prepared: Database) -> None:
    unpriced = Model("unpriced", Kind.CHAT, 8_192, 4_096, "unpriced")
    async with worker(prepared, scripted=Scripted(models=[unpriced])) as house:
        customer = await house.customer(prepaid="1")
        response = await refused(house, {"model": "unpriced", "messages": HELLO}, customer)
        assert (response.status, response.code()) == (404, "model_not_priced")
        await house.set_price("unpriced", {"input": 10**9})
        response = await ask(house.port, CHAT, {"model": "unpriced", "messages": HELLO}, customer.token)
        assert response.status == 200


UNKNOWN = "0" * 43
"""A secret of the right form that nobody has."""


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/models"])
@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer ", "Bearer sk-live", "Basic Zmg6eA==", "Bearer fh_é", "Bearer fh_" + "x" * 5_000,
     f"Bearer fh_{UNKNOWN}", f"Bearer fh_s_{UNKNOWN}", f"Bearer fh_admin_{UNKNOWN}"],
)  # fmt: skip
async def test_a_wrong_key_is_refused(house: House, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    method = "GET" if path == "/v1/models" else "POST"
    response = await ask(house.port, path, chat(), None, method=method, **headers)
    assert (response.status, response.code()) == (401, "invalid_api_key")
    assert UNKNOWN not in response.body.decode()


async def test_the_admin_token_is_told_to_create_a_key(house: House) -> None:
    token = new_token(CallerKind.OPERATOR)
    await house.identity.ensure_admin_token(token)
    response = await ask(house.port, CHAT, chat(), token)
    assert (response.status, response.code()) == (403, "insufficient_scope")
    assert "freehold keys create" in response.json()["error"]["message"]
    assert (await ask(house.port, "/v1/models", b"", token, method="GET")).status == 200


async def test_a_key_calls_only_its_models(house: House) -> None:
    customer = await house.customer(prepaid="1", models=["scripted-exact"])
    response = await refused(house, chat(), customer)
    assert (response.status, response.code()) == (403, "model_not_allowed")
    allowed = {"model": "scripted-exact", "messages": HELLO, "max_tokens": 5}
    assert (await ask(house.port, CHAT, allowed, customer.token)).status == 200


async def test_a_keys_new_list_of_models_is_seen_by_its_next_request(house: House) -> None:
    customer = await house.customer(prepaid="1")
    assert (await ask(house.port, CHAT, chat(), customer.token)).status == 200
    await house.allow(customer, ["scripted-exact"])
    assert (await refused(house, chat(), customer)).code() == "model_not_allowed"
    await house.allow(customer, ["scripted-echo"])
    assert (await ask(house.port, CHAT, chat(), customer.token)).status == 200


async def test_a_key_without_the_scope_calls_nothing(house: House) -> None:
    customer = await house.customer(prepaid="1", scopes=[Scope.READ])
    response = await refused(house, chat(), customer)
    assert (response.status, response.code()) == (403, "insufficient_scope")


async def test_a_keys_cap_is_kept(house: House) -> None:
    customer = await house.customer(prepaid="1", day_cap_nano=10_000)
    body = {"model": "scripted-exact", "messages": HELLO}
    assert (await refused(house, {**body, "max_tokens": 11}, customer)).code() == "key_limit_reached"
    assert (await ask(house.port, CHAT, {**body, "max_tokens": 10}, customer.token)).status == 200
    assert (await refused(house, {**body, "max_tokens": 1}, customer)).code() == "key_limit_reached"


async def test_what_is_too_dear_says_what_is_needed_and_what_is_left(house: House) -> None:
    customer = await house.customer(prepaid="0.000005")
    response = await refused(house, {"model": "scripted-exact", "messages": HELLO, "max_tokens": 6}, customer)
    assert response.status == 402
    message = response.json()["error"]["message"]
    assert "0.000006" in message
    assert "0.000005" in message
    assert response.headers["x-should-retry"] == "false"


async def test_another_method_is_told_the_right_one(house: House) -> None:
    response = await ask(house.port, CHAT, b"", None, method="GET")
    assert (response.status, response.headers["allow"]) == (405, "POST")


async def test_a_declared_body_of_50_mb_is_refused_before_it_is_read(house: House) -> None:
    customer = await house.customer(prepaid="1")
    async with connect(house.port) as connection:
        head = request(CHAT, b"", customer.token).replace(b"content-length: 0", b"content-length: 52428800")
        await connection.send(head)
        response = await connection.response()
    assert (response.status, response.code()) == (413, "request_too_large")
    assert response.headers["connection"] == "close"


async def test_a_body_without_a_declared_length_is_refused_where_it_becomes_too_long(prepared: Database) -> None:
    async with worker(prepared, settings=DoorSettings(body_limit_bytes=100_000)) as house:
        customer = await house.customer(prepaid="1")
        async with connect(house.port) as connection:
            head = request(CHAT, b"", customer.token).replace(b"content-length: 0", b"transfer-encoding: chunked")
            await connection.send(head)
            answer = asyncio.ensure_future(connection.response())
            for _ in range(12):
                await connection.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            response = await answer
    assert (response.status, response.code()) == (413, "request_too_large")


async def test_a_50_mb_body_from_a_client_that_writes_it_all_gets_the_refusal(house: House) -> None:
    customer = await house.customer(prepaid="1")
    body = json.dumps(chat("x" * 50_000_000)).encode()
    async with connect(house.port) as connection:
        connection.writer.write(request(CHAT, body, customer.token))
        response = await connection.response()
    assert (response.status, response.code()) == (413, "request_too_large")


async def test_a_client_that_writes_before_it_reads_gets_the_refusal(prepared: Database) -> None:
    async with worker(prepared, settings=DoorSettings(body_limit_bytes=100_000)) as house:
        customer = await house.customer(prepaid="1")

        def write_then_read() -> bytes:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
                client.connect(("127.0.0.1", house.port))
                client.sendall(request(CHAT, b"x" * 600_000, customer.token))
                return client.recv(65_536)

        assert b" 413 " in await asyncio.to_thread(write_then_read)


async def test_a_body_that_stops_coming_is_refused(prepared: Database) -> None:
    async with worker(prepared, settings=DoorSettings(body_patience_s=0.05)) as house:
        customer = await house.customer(prepaid="1")
        async with connect(house.port) as connection:
            await connection.send(request(CHAT, b'{"model"', customer.token).replace(b": 8", b": 800"))
            response = await connection.response()
    assert (response.status, response.code()) == (408, "request_timeout")


async def test_a_connection_is_used_again_after_a_refusal(house: House) -> None:
    customer = await house.customer(prepaid="1")
    async with connect(house.port) as connection:
        for body, status in ((b"{", 400), (json.dumps(chat()).encode(), 200), (b"{}", 400)):
            await connection.send(request(CHAT, body, customer.token))
            assert (await connection.response()).status == status


async def test_no_log_holds_a_prompt_or_a_key(house: House, caplog: pytest.LogCaptureFixture) -> None:
    customer = await house.customer(prepaid="1")
    with caplog.at_level(logging.DEBUG):
        for body in (
            chat("a private thought"),
            chat("a private thought", stream=True, script={"die_after": 1}),
            chat("a private thought", script={"status": 500}),
            chat("a private thought", max_tokens=0),
            b'{"messages": "a private thought"',
        ):
            await ask(house.port, CHAT, body, customer.token)
        await ask(house.port, CHAT, chat("a private thought"), f"fh_{UNKNOWN}")
    assert "call request_id=req_" in caplog.text
    for secret in ("private thought", customer.token, UNKNOWN):
        assert secret not in caplog.text
