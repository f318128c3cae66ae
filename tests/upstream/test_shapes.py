"""Which APIs an upstream speaks, as its table says; and the scripted one speaks those, over HTTP too."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from freehold.upstream.catalogue import Catalogue
from freehold.upstream.config import ConfigError, read_upstreams
from freehold.upstream.model import CHAT, SHAPES, Kind, Model, Upstream, UpstreamCall
from freehold.upstream.openai_compatible import OpenAICompatible
from freehold.upstream.scripted import MODELS, Scripted
from freehold.upstream.spoken import sample

MODEL = {"id": "m", "context_tokens": 100, "max_output_tokens": 50}
TABLE = {"name": "up", "url": "http://127.0.0.1:8000/v1", "models": [MODEL]}
ECHO = replace(MODELS[0], shapes=frozenset(SHAPES))
USER = [{"role": "user", "content": "hello there"}]
ASKED: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": USER},
    "completions": {"prompt": "hello there"},
    "responses": {"input": "hello there"},
    "messages": {"messages": USER, "max_tokens": 50},
}


class TestTables:
    def test_an_upstream_speaks_chat_unless_it_says_more(self) -> None:
        (upstream,) = read_upstreams([TABLE])
        assert upstream.models["m"].shapes == {CHAT}
        (upstream,) = read_upstreams([{**TABLE, "shapes": ["chat", "responses"]}])
        assert upstream.models["m"].shapes == {CHAT, "responses"}

    def test_a_model_may_say_otherwise(self) -> None:
        own = {**MODEL, "id": "n", "shapes": ["chat", "messages"]}
        (upstream,) = read_upstreams([{**TABLE, "shapes": ["chat"], "models": [MODEL, own]}])
        assert [upstream.models[name].shapes for name in "mn"] == [{CHAT}, {CHAT, "messages"}]

    def test_the_scripted_models_speak_what_their_table_says(self) -> None:
        (upstream,) = read_upstreams([{"name": "s", "kind": "scripted", "shapes": list(SHAPES)}])
        assert upstream.models["scripted-echo"].shapes == set(SHAPES)
        assert upstream.models["scripted-embedding"].shapes == {CHAT}

    @pytest.mark.parametrize(
        ("shapes", "sentence"),
        [
            ("chat", "is not a list of chat, completions, responses, messages"),
            (["chat", "gemini"], "is not a list of"),
            ([5], "is not a list of"),
            (["responses"], "leaves out chat"),
            ([], "leaves out chat"),
        ],
    )
    def test_a_fault_is_named(self, shapes: Any, sentence: str) -> None:
        with pytest.raises(ConfigError, match=f"shapes of model m of upstream up {sentence}"):
            read_upstreams([{**TABLE, "shapes": shapes}])

    def test_the_embedded_models_speak_chat(self) -> None:
        table = {"name": "e", "kind": "embedded", "url": "http://127.0.0.1:1/v1", "shapes": ["chat"]}
        with pytest.raises(ConfigError, match="shapes of upstream e doesn't go with kind 'embedded'"):
            read_upstreams([table])

    def test_a_model_of_several_upstreams_speaks_what_all_of_them_do(self) -> None:
        model = Model("m", Kind.CHAT, 10, 5, "m")
        both = [Scripted(f"{n}", [replace(model, shapes=frozenset({CHAT, *more}))]) for n, more in enumerate(
            (("responses", "messages"), ("messages",)))]  # fmt: skip
        assert Catalogue(both).serving("m").model.shapes == {CHAT, "messages"}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[OpenAICompatible]:
    """A scripted upstream as a process of its own, which speaks every API."""

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "freehold.upstream.scripted", "--shapes", ",".join(SHAPES), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    upstream = OpenAICompatible("scripted", ready["url"], [ECHO], read_timeout_s=20, api_key="secret")
    yield upstream
    await upstream.close()
    process.terminate()
    await process.wait()


@pytest.fixture(params=["in process", "over HTTP"])
def upstream(request: pytest.FixtureRequest, server: OpenAICompatible) -> Upstream:
    return Scripted(models=[ECHO]) if request.param == "in process" else server


def call(path: str, **fields: Any) -> UpstreamCall:
    body = {"model": ECHO.upstream_id, **ASKED[path], **fields}
    return UpstreamCall(path, ECHO, json.dumps(body).encode(), bool(fields.get("stream")), "r")


async def said(upstream: Upstream, path: str, **fields: Any) -> bytes:
    answer = await upstream.send(call(path, **fields))
    body = await answer.read(1_000_000)
    assert answer.status == 200, body
    return body


class TestSpeech:
    @pytest.mark.parametrize("path", list(ASKED))
    async def test_every_api_says_the_same(self, upstream: Upstream, path: str) -> None:
        assert b"You said: hello there" in await said(upstream, path)
        stream = await said(upstream, path, stream=True)
        assert [stream.count(word) > 0 for word in (b"You", b" said:", b" hello", b" there")] == [True] * 4

    @pytest.mark.parametrize("path", [path for path in ASKED if path != "chat/completions"])
    async def test_chat_alone_speaks_nothing_else(self, path: str) -> None:
        answer = await Scripted().send(call(path))
        assert answer.status == 404

    async def test_a_tool_is_called_when_it_is_named_and_no_more_once_it_has_answered(self, upstream: Upstream) -> None:
        tool = {"type": "function", "function": {"name": "get_weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}}}}  # fmt: skip
        ask = [{"role": "user", "content": "The weather?"}]
        first = json.loads(await said(upstream, "chat/completions", messages=ask, tools=[tool]))["choices"][0]
        (made,) = first["message"]["tool_calls"]
        assert (first["finish_reason"], made["function"]) == (
            "tool_calls",
            {"name": "get_weather", "arguments": '{"city": "sample"}'},
        )
        turns = [*ask, first["message"], {"role": "tool", "tool_call_id": made["id"], "content": "sunny"}]
        after = json.loads(await said(upstream, "chat/completions", messages=turns, tools=[tool]))["choices"][0]
        assert after["finish_reason"] == "stop"
        unnamed = json.loads(await said(upstream, "chat/completions", tools=[tool]))["choices"][0]
        assert unnamed["finish_reason"] == "stop"
        forced = json.loads(await said(upstream, "chat/completions", tools=[tool], tool_choice="required"))
        assert forced["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("direct", [True, False])
async def test_messages_carry_the_key_as_anthropics_servers_take_it(direct: bool) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = OpenAICompatible("up", f"http://127.0.0.1:{port}/v1", [ECHO], api_key="secret", direct=direct)
    for path in ("messages", "chat/completions"):
        await (await upstream.send(call(path))).read(1_000)
    await upstream.close()
    server.close()
    assert [(b"x-api-key: secret" in head, b"anthropic-version: 2023" in head) for head in heads] == [
        (True, True),
        (False, False),
    ]


def test_a_sample_is_what_its_schema_allows() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "kind": {"enum": ["a", "b"]},
            "size": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 5}]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        },
        "$defs": {
            "tag": {"type": "object", "properties": {"inner": {"$ref": "#/$defs/tag"}, "on": {"type": "boolean"}}}
        },
    }
    found = sample(schema)
    assert (found["name"], found["kind"], found["size"], found["tags"][0]["on"]) == ("sample", "a", 6, True)
