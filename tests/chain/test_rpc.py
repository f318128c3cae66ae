"""JSON-RPC: results, errors, silence, and what is never shown."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from freehold.chain.problems import NodeUnavailable, RpcError
from freehold.chain.rpc import Rpc, shown

SECRETS = "/v3/0123456789abcdef?token=verysecret"


@asynccontextmanager
async def node(answer: Callable[[Any], Any | Awaitable[Any]]) -> AsyncIterator[str]:
    """A node that answers what `answer` makes of the question; the base of its URL."""

    async def handle(request: web.Request) -> web.StreamResponse:
        made = answer(json.loads(await request.read()))
        if asyncio.iscoroutine(made):
            made = await made
        return made if isinstance(made, web.StreamResponse) else web.json_response(made)

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


async def refusal(answer: Callable[[Any], Any], *, timeout_s: float = 5.0) -> str:
    """The message of what one call raises, seen through a URL that is full of secrets."""
    async with node(answer) as place, Rpc(f"http://user:hunter22@{place}{SECRETS}", timeout_s=timeout_s) as rpc:
        with pytest.raises((NodeUnavailable, RpcError)) as raised:
            await rpc.call("eth_blockNumber")
        said = f"{raised.value} {raised.value.__cause__!r} {rpc!r}"
    for secret in ("0123456789abcdef", "verysecret", "hunter22"):
        assert secret not in said
    assert place in said
    return raised.value.message


async def test_a_call_returns_its_result() -> None:
    def echo(q: Any) -> Any:
        return {"id": q["id"], "result": [q["method"], q["params"]]}

    async with node(echo) as place, Rpc(f"http://{place}") as rpc:
        assert await rpc.call("eth_call", {"to": "0x0"}, "latest") == ["eth_call", [{"to": "0x0"}, "latest"]]


async def test_a_batch_returns_results_in_order_whatever_order_they_come_in() -> None:
    def backwards(questions: Any) -> Any:
        return [{"id": q["id"], "result": q["params"][0]} for q in reversed(questions)]

    async with node(backwards) as place, Rpc(f"http://{place}") as rpc:
        assert await rpc.batch([("m", [n]) for n in range(250)]) == list(range(250))


async def test_a_batch_in_which_one_call_fails_raises_its_error() -> None:
    def second_fails(questions: Any) -> Any:
        first, second = questions
        return [{"id": first["id"], "result": 1}, {"id": second["id"], "error": {"code": 3, "message": "no"}}]

    async with node(second_fails) as place, Rpc(f"http://{place}") as rpc:
        with pytest.raises(RpcError, match="answered two with an error: no"):
            await rpc.batch([("one", []), ("two", [])])


async def test_an_empty_batch_asks_nothing() -> None:
    async with Rpc("http://127.0.0.1:1") as rpc:
        assert await rpc.batch([]) == []


@pytest.mark.parametrize("shape", ["0xdeadbeef", {"data": "0xdeadbeef"}, "Reverted 0xdeadbeef"])
async def test_a_revert_carries_its_data(shape: Any) -> None:
    def revert(q: Any) -> Any:
        return {"id": q["id"], "error": {"code": 3, "message": "execution reverted", "data": shape}}

    async with node(revert) as place, Rpc(f"http://{place}") as rpc:
        with pytest.raises(RpcError) as raised:
            await rpc.call("eth_call")
    assert raised.value.data == bytes.fromhex("deadbeef")


async def test_no_node_is_a_sentence_without_the_secrets_of_its_url() -> None:
    async with node(lambda q: None) as place:
        pass
    async with Rpc(f"http://user:hunter22@{place}{SECRETS}") as rpc:
        with pytest.raises(NodeUnavailable) as raised:
            await rpc.call("eth_chainId")
    assert raised.value.message.startswith(f"The chain's node at http://{place} can't be used now: no connection")
    assert "hunter22" not in raised.value.message


async def test_a_node_that_takes_too_long_is_unavailable() -> None:
    async def never(question: Any) -> Any:
        await asyncio.Event().wait()

    assert "no answer within 0.2 s" in await refusal(never, timeout_s=0.2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (web.Response, "its answer is not JSON"),
        (lambda: web.Response(text="<html>"), "its answer is not JSON"),
        (lambda: web.json_response([]), "is missing or not an object"),
        (lambda: web.json_response({"id": 1}), "neither result nor error"),
        (lambda: web.Response(status=401), "HTTP status 401"),
        (lambda: web.Response(status=307, headers={"location": "http://127.0.0.1:1/"}), "HTTP status 307"),
        (lambda: web.json_response({"error": {"code": 1, "message": "slow"}}, status=429), "limits the rate"),
        (lambda: web.json_response({"error": {"code": 1, "message": f"bad path {SECRETS}"}}, status=404), "bad path"),
    ],
)
async def test_an_answer_that_is_none_is_told_without_secrets(answer: Callable[[], Any], reason: str) -> None:
    assert reason in await refusal(lambda question: answer())


async def test_a_node_that_does_not_speak_tls_is_told_so() -> None:
    async with node(lambda q: None) as place, Rpc(f"https://user:hunter22@{place}{SECRETS}") as rpc:
        with pytest.raises(NodeUnavailable, match="it doesn't speak TLS as it should") as raised:
            await rpc.call("eth_chainId")
    assert "verysecret" not in str(raised.value)


def test_only_scheme_host_and_port_of_a_url_are_shown() -> None:
    assert shown("https://user:pass@node.example:8545/key?x=y") == "https://node.example:8545"
    assert shown("https://node.example/v2/key") == "https://node.example"


async def test_a_url_that_is_none_is_refused_without_showing_it() -> None:
    async with Rpc("http://secret-key@:99999/abc") as rpc:
        with pytest.raises(NodeUnavailable) as raised:
            await rpc.call("eth_chainId")
    assert "secret-key" not in str(raised.value)
