"""The scripted upstream does what it is told, in process and over HTTP alike."""

import asyncio
import base64
import json
import struct
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from freehold.upstream.model import (
    Answer,
    Model,
    Upstream,
    UpstreamBroke,
    UpstreamCall,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from freehold.upstream.openai_compatible import OpenAICompatible
from freehold.upstream.scripted import MODELS, Script, Scripted, ScriptError

ECHO, EXACT, EMBEDDING = MODELS
LIMIT = 1_000_000


def call(
    model: Model = ECHO, path: str = "chat/completions", *, text: str = "hello there", **fields: Any
) -> UpstreamCall:
    body: dict[str, Any] = {"model": model.upstream_id, **fields}
    if path == "chat/completions":
        body = {"messages": [{"role": "user", "content": text}], **body}
    return UpstreamCall(path, model, json.dumps(body).encode(), bool(fields.get("stream")), "r1")


def scripted_call(directives: Any, **fields: Any) -> UpstreamCall:
    return call(metadata={"freehold_script": directives}, **fields)


async def whole(answer: Answer) -> Any:
    return json.loads(await answer.read(LIMIT))


def frames(body: bytes) -> list[Any]:
    assert body.endswith(b"\n\n")
    lines = [part.removeprefix(b"data: ") for part in body.removesuffix(b"\n\n").split(b"\n\n")]
    return [line.decode() if line == b"[DONE]" else json.loads(line) for line in lines]


def said(seen: list[Any]) -> str:
    chunks = [frame for frame in seen if isinstance(frame, dict) and frame["choices"]]
    return "".join(frame["choices"][0]["delta"].get("content") or "" for frame in chunks)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[OpenAICompatible]:
    """The same upstream as a process of its own, reached over HTTP."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "freehold.upstream.scripted", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["ready"] is True
    upstream = OpenAICompatible("scripted", ready["url"], MODELS, read_timeout_s=20)
    yield upstream
    await upstream.close()
    process.terminate()
    await process.wait()


@pytest.fixture(params=["in process", "over HTTP"])
def upstream(request: pytest.FixtureRequest, server: OpenAICompatible) -> Upstream:
    return Scripted() if request.param == "in process" else server


async def test_a_chat_echoes_the_last_user_text_and_counts_it(upstream: Upstream) -> None:
    answer = await upstream.send(call())
    body = await whole(answer)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "You said: hello there",
        "refusal": None,
    }
    assert body["choices"][0]["finish_reason"] == "stop"
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 4)


async def test_a_stream_says_the_same_as_a_plain_answer(upstream: Upstream) -> None:
    answer = await upstream.send(call(stream=True, stream_options={"include_usage": True}))
    seen = frames(await answer.read(LIMIT))
    assert answer.content_type.startswith("text/event-stream")
    assert said(seen) == "You said: hello there"
    assert seen[-3]["choices"][0]["finish_reason"] == "stop"
    assert seen[-2]["choices"] == []
    assert seen[-2]["usage"]["completion_tokens"] == 4
    assert seen[-1] == "[DONE]"


async def test_a_stream_reports_usage_only_when_asked(upstream: Upstream) -> None:
    seen = frames(await (await upstream.send(call(stream=True))).read(LIMIT))
    assert all("usage" not in frame for frame in seen if isinstance(frame, dict))


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_output_limit_cuts_the_reply(upstream: Upstream, field: str) -> None:
    body = await whole(await upstream.send(call(**{field: 2})))
    assert body["choices"][0]["message"]["content"] == "You said:"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


async def test_the_exact_model_reports_its_whole_limit(upstream: Upstream) -> None:
    body = await whole(await upstream.send(call(EXACT, max_tokens=77)))
    assert body["usage"]["completion_tokens"] == 77


@pytest.mark.parametrize(
    "lie",
    [None, "a lot", 5, {"prompt_tokens": -1, "completion_tokens": 10**15}, {"prompt_tokens": None}],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_reported_as_told(upstream: Upstream, lie: Any, stream: bool) -> None:
    asked = scripted_call({"usage": lie}, stream=stream, stream_options={"include_usage": True})
    body = await (await upstream.send(asked)).read(LIMIT)
    assert (frames(body)[-2] if stream else json.loads(body))["usage"] == lie


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_can_be_missing(upstream: Upstream, stream: bool) -> None:
    asked = scripted_call({"usage": "missing"}, stream=stream, stream_options={"include_usage": True})
    assert b'"usage"' not in await (await upstream.send(asked)).read(LIMIT)


async def test_chunks_are_sent_as_told_and_counted(upstream: Upstream) -> None:
    asked = scripted_call({"chunks": ["日", "本", ""]}, stream=True, stream_options={"include_usage": True})
    seen = frames(await (await upstream.send(asked)).read(LIMIT))
    assert said(seen) == "日本"
    assert seen[-2]["usage"]["completion_tokens"] == 3


async def test_directives_may_be_a_string_of_json(upstream: Upstream) -> None:
    body = await whole(await upstream.send(scripted_call('{"chunks": ["x"]}')))
    assert body["choices"][0]["message"]["content"] == "x"


async def test_a_message_can_carry_other_fields(upstream: Upstream) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    asked = {"chunks": [], "message": {"tool_calls": calls}, "finish_reason": "tool_calls"}
    choice = (await whole(await upstream.send(scripted_call(asked))))["choices"][0]
    assert (choice["message"]["tool_calls"], choice["finish_reason"]) == (calls, "tool_calls")
    seen = frames(await (await upstream.send(scripted_call(asked, stream=True))).read(LIMIT))
    assert seen[1]["choices"][0]["delta"] == {"tool_calls": calls}


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_status_is_an_answer(upstream: Upstream, status: int) -> None:
    answer = await upstream.send(scripted_call({"status": status, "body": {"oh": "no"}, "retry_after": 7}))
    assert (answer.status, answer.retry_after_s) == (status, 7)
    assert await whole(answer) == {"oh": "no"}


async def test_a_body_in_fragments_is_the_same_body(upstream: Upstream) -> None:
    asked = scripted_call({"chunks": ["🎉", "é"], "fragment_bytes": 3}, stream=True)
    answer = await upstream.send(asked)
    parts = [part async for part in answer.chunks()]
    await answer.close()
    assert said(frames(b"".join(parts))) == "🎉é"


async def test_a_stream_may_end_without_its_marker(upstream: Upstream) -> None:
    seen = frames(await (await upstream.send(scripted_call({"done": False}, stream=True))).read(LIMIT))
    assert seen[-1] != "[DONE]"


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_stream_dies_after_as_many_chunks_as_told(upstream: Upstream, after: int) -> None:
    asked = scripted_call({"chunks": ["a", "b", "c", "d"], "die_after": after}, stream=True)
    answer = await upstream.send(asked)
    got = b""
    with pytest.raises(UpstreamBroke) as broke:
        async for part in answer.chunks():
            got += part
    assert broke.value.before_first_byte is False
    assert said(frames(got)) == "abcd"[:after]
    await answer.close()


async def test_a_plain_answer_dies_half_way(upstream: Upstream) -> None:
    answer = await upstream.send(scripted_call({"die_after": 0}))
    with pytest.raises(UpstreamBroke):
        await answer.read(LIMIT)


async def test_it_dies_before_it_answers() -> None:
    with pytest.raises(UpstreamBroke) as broke:
        await Scripted().send(scripted_call({"die": True}))
    assert broke.value.before_first_byte is True


async def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(upstream: Upstream) -> None:
    one = await whole(await upstream.send(call(EMBEDDING, "embeddings", input=["a", "b"])))
    two = await whole(await upstream.send(call(EMBEDDING, "embeddings", input="a")))
    packed = await whole(await upstream.send(call(EMBEDDING, "embeddings", input=["b"], encoding_format="base64")))
    a, b = (item["embedding"] for item in one["data"])
    assert two["data"][0]["embedding"] == a != b
    assert abs(sum(x * x for x in a) - 1) < 1e-9
    assert struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(b)
    assert one["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (scripted_call({"dance": 1}), "dance is not a directive"),
        (scripted_call({"chunks": "abc"}), "chunks of freehold_script is not a list"),
        (scripted_call({"die_after": "1"}), "die_after of freehold_script is not a int"),
        (scripted_call(5), "not a JSON object"),
        (call(messages=[]), "messages is not a list"),
        (call(max_tokens="5"), "max_tokens is not a whole number"),
        (call(EMBEDDING, "embeddings"), "input is not text"),
        (UpstreamCall("chat/completions", ECHO, b"{nope", False, "r"), "Expecting"),
    ],
)
async def test_a_request_it_cannot_follow_is_400(upstream: Upstream, asked: UpstreamCall, sentence: str) -> None:
    answer = await upstream.send(asked)
    assert answer.status == 400
    assert sentence in (await whole(answer))["error"]["message"]


async def test_another_path_is_404(upstream: Upstream) -> None:
    assert (await upstream.send(call(path="images"))).status == 404


async def test_an_unreachable_upstream_ran_nothing() -> None:
    with pytest.raises(UpstreamUnreachable) as refusal:
        await Scripted().send(scripted_call({"unreachable": True}))
    assert refusal.value.before_first_byte is True


async def test_a_time_out_before_and_in_the_middle_of_an_answer() -> None:
    upstream = Scripted()
    with pytest.raises(UpstreamTimedOut) as before:
        await upstream.send(scripted_call({"timeout_after": -1}))
    assert before.value.before_first_byte is True
    answer = await upstream.send(scripted_call({"timeout_after": 1}, stream=True))
    with pytest.raises(UpstreamTimedOut) as within:
        await answer.read(LIMIT)
    assert within.value.before_first_byte is False


@pytest.mark.parametrize("at", [-1, 0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_hangs_goes_on_when_the_gate_opens(at: int, stream: bool) -> None:
    gate = asyncio.Event()
    upstream = Scripted(gate=gate)
    body = asyncio.ensure_future(read(upstream, scripted_call({"hang_after": at}, stream=stream)))
    if at == 1 and not stream:
        assert b"You said" in await body  # a plain answer has no first chunk to wait after
        return
    await upstream.hanging.wait()
    assert not body.done()
    gate.set()
    assert b"there" in await body


async def read(upstream: Upstream, asked: UpstreamCall) -> bytes:
    return await (await upstream.send(asked)).read(LIMIT)


async def test_it_remembers_what_it_was_asked_and_how_far_it_came() -> None:
    upstream = Scripted(script=Script(chunks=("a", "b", "c"), die_after=2))
    answer = await upstream.send(call(stream=True))
    with pytest.raises(UpstreamBroke):
        await answer.read(LIMIT)
    (seen,) = upstream.seen
    assert (seen.path, seen.request_id, seen.chunks_sent, seen.closed) == ("chat/completions", "r1", 2, True)


async def test_closing_an_answer_early_is_seen_and_safe_twice(upstream: Upstream) -> None:
    answer = await upstream.send(call(stream=True))
    async for _ in answer.chunks():
        break
    await answer.close()
    await answer.close()
    if isinstance(upstream, Scripted):
        assert upstream.seen[-1].closed


async def test_an_answer_above_the_limit_is_broken_off(upstream: Upstream) -> None:
    answer = await upstream.send(scripted_call({"chunks": ["x" * 5_000]}))
    with pytest.raises(UpstreamBroke, match="more than 1000 bytes"):
        await answer.read(1_000)


def test_a_script_of_the_constructor_is_the_default_and_a_request_wins() -> None:
    script = Script(chunks=("a",)).with_directives({"status": 500})
    assert (script.chunks, script.status) == (("a",), 500)
    with pytest.raises(ScriptError):
        Script().with_directives({"hang_after": 1.5})


def test_the_docstring_names_every_directive() -> None:
    import freehold.upstream.scripted as module

    documented: Callable[[str], bool] = lambda name: f"\n    {name} " in (module.__doc__ or "")  # noqa: E731
    undocumented = [name for name in Script.__dataclass_fields__ if not documented(name)]
    assert undocumented in ([], ["body", "retry_after"])  # these two stand in the line of `status`
