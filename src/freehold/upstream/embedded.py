"""The demo models in a child process: SmolLM2-135M-Instruct on llama.cpp, and MiniLM embeddings, at one loopback URL.

`python -m freehold.upstream.embedded` reads its settings from stdin as one JSON object: `api_key` (required: whoever
calls must send it as a bearer), `port` (0 = a free one), `threads` (0 = one less than the cores). Once the models have
answered it prints one line of JSON, `{"url": "http://127.0.0.1:<port>/v1", "ready": true}`. It ends with its parent.

It serves `chat/completions`, `embeddings` and `models`. Of a chat's fields those of CHAT_FIELDS go to llama.cpp; its
own extensions don't, since some of them raise the output above the stated maximum. One choice a call: of several,
llama.cpp reports only one as used. At most SLOTS chats run and
QUEUE wait; the next is 503 with `Retry-After`. A prompt beyond the context is 400 `context_length_exceeded`.
"""

import asyncio
import base64
import hmac
import json
import os
import secrets
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.upstream import asgi
from freehold.upstream.asgi import Receive, Scope, Send
from freehold.upstream.model import Answer, Kind, Model, UpstreamCall, UpstreamError
from freehold.upstream.openai_compatible import OpenAICompatible
from freehold.upstream.weights import Weights, WeightsMissing, find_weights

if TYPE_CHECKING:
    from freehold.upstream.minilm import MiniLM

SLOTS = 2
"""Chats at the same time. llama.cpp divides its context among them."""

QUEUE = 32
"""Chats that wait for a slot, and embedding requests that wait for the one before."""

CONTEXT_TOKENS = 4_096
"""Of one chat, prompt and answer together."""

MAX_ITEMS = 256
"""Texts in one embedding request."""

BODY_LIMIT = 4 * 1024 * 1024

CHAT = Model("smollm2-135m", Kind.CHAT, CONTEXT_TOKENS, 2_048, "smollm2-135m", owned_by="HuggingFaceTB")
EMBEDDING = Model("minilm-l6", Kind.EMBEDDING, 256, 0, "minilm-l6", owned_by="sentence-transformers")
EMBEDDED_MODELS = (CHAT, EMBEDDING)

CHAT_FIELDS = frozenset(
    {
        "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
        "stop", "n", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "tools",
        "tool_choice", "parallel_tool_calls", "response_format",
    }
)  # fmt: skip

_RETRY_AFTER_S = 2


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = asgi.error_value(message, code)


class Queue:
    """At most `running` at a time and `waiting` behind them; `full` when the next would be turned away."""

    def __init__(self, running: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(running)
        self._room = running + waiting

    async def __aenter__(self) -> None:
        if self._room == 0:
            raise _Refused(503, "The demo model is busy and its queue is full; try again in a moment.", "overloaded")
        self._room -= 1
        try:
            await self._slots.acquire()
        except BaseException:
            self._room += 1
            raise

    async def __aexit__(self, *failure: object) -> None:
        self._room += 1
        self._slots.release()


class EmbeddedServer:
    """The ASGI application in front of both models. `chat` reaches llama.cpp."""

    def __init__(self, chat: OpenAICompatible, minilm: "MiniLM", api_key: str) -> None:
        self._chat = chat
        self._minilm = minilm
        self._bearer = f"Bearer {api_key}".encode()
        self._chats = Queue(SLOTS, QUEUE)
        self._embeddings = Queue(1, QUEUE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        except _Refused as refusal:
            retry_after_s = _RETRY_AFTER_S if refusal.status == 503 else None
            await asgi.respond_json(send, refusal.status, refusal.body, retry_after_s=retry_after_s)
        except asgi.TooLarge:
            await asgi.respond_json(send, 413, asgi.error_value("The body is too large.", "request_too_large"))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._bearer):
            raise _Refused(401, "This server takes calls from its own gateway only.", "invalid_api_key")
        path = scope["path"].removeprefix("/v1/")
        if path == "models":
            await asgi.respond_json(send, 200, _models())
            return
        body = await asgi.read_body(receive, limit_bytes=BODY_LIMIT)
        request = _object(body)
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        if path == "chat/completions":
            await asgi.while_connected(receive, self._answer_chat(request, request_id, send))
        elif path == "embeddings":
            await asgi.while_connected(receive, self._answer_embeddings(request, send))
        else:
            raise _Refused(404, f"The demo model doesn't serve {path}.", "not_found")

    async def _answer_chat(self, request: Mapping[str, Any], request_id: str, send: Send) -> None:
        if request.get("n") not in (None, 1):
            # llama.cpp answers with n choices, and reports the tokens of one as used.
            raise _Refused(400, f"{CHAT.id} gives one choice a call: leave out n, or send 1.", "invalid_request")
        asked = {name: value for name, value in request.items() if name in CHAT_FIELDS}
        call = UpstreamCall(
            "chat/completions",
            CHAT,
            json.dumps({**asked, "model": CHAT.upstream_id}).encode(),
            bool(request.get("stream")),
            request_id,
        )
        async with self._chats:
            try:
                answer = await self._chat.send(call)
            except UpstreamError as failure:
                raise _Refused(502, str(failure), "upstream_error") from None
            try:
                if answer.status == 200:
                    await asgi.respond(send, 200, answer.content_type, answer.chunks())
                else:
                    raise await _refusal(answer)
            finally:
                await answer.close()

    async def _answer_embeddings(self, request: Mapping[str, Any], send: Send) -> None:
        texts = _inputs(request)
        async with self._embeddings:
            data, tokens = await asyncio.to_thread(self._embed, texts, request.get("encoding_format") == "base64")
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"object": "list", "data": data, "model": EMBEDDING.upstream_id, "usage": usage}
        await asgi.respond_json(send, 200, body)

    def _embed(self, texts: list[str], as_base64: bool) -> tuple[list[dict[str, Any]], int]:
        tokenized = [self._minilm.tokens(text) for text in texts]
        for index, tokens in enumerate(tokenized):
            if len(tokens) > EMBEDDING.context_tokens:
                raise _Refused(
                    400,
                    f"Text {index} of input has {len(tokens)} tokens; {EMBEDDING.id} takes {EMBEDDING.context_tokens}.",
                    "context_length_exceeded",
                )
        data: list[dict[str, Any]] = []
        for index, tokens in enumerate(tokenized):
            vector = self._minilm.embed(tokens)
            shown = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": shown})
        return data, sum(map(len, tokenized))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Refused(400, "The body is not a JSON object.", "invalid_request")
    return value


def _inputs(request: Mapping[str, Any]) -> list[str]:
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise _Refused(
            400, f"input of {EMBEDDING.id} is text, or a list of texts, none of them empty.", "invalid_request"
        )
    if len(texts) > MAX_ITEMS:
        raise _Refused(400, f"input has {len(texts)} texts; at most {MAX_ITEMS} go in one request.", "invalid_request")
    if request.get("encoding_format") not in (None, "float", "base64"):
        raise _Refused(400, "encoding_format is neither float nor base64.", "invalid_request")
    if request.get("dimensions") not in (None, 384):
        raise _Refused(400, f"{EMBEDDING.id} has 384 dimensions and no others.", "invalid_request")
    return texts


async def _refusal(answer: Answer) -> _Refused:
    """llama.cpp's error in OpenAI's words."""
    try:
        error = json.loads(await answer.read(64 * 1024))["error"]
        message, kind = str(error["message"]), str(error.get("type"))
    except (ValueError, KeyError, TypeError, UpstreamError):
        message, kind = f"The demo model answered {answer.status}.", ""
    if kind == "exceed_context_size_error":
        said = f"The prompt has {error.get('n_prompt_tokens')} tokens; {CHAT.id} has room for {CONTEXT_TOKENS}."
        return _Refused(400, said, "context_length_exceeded")
    # llama.cpp calls it a fault of its own when it can't read messages or tools.
    status = 400 if message.startswith("Failed to parse ") else answer.status
    return _Refused(status, message, "invalid_request" if status < 500 else "upstream_error")


def _models() -> dict[str, Any]:
    listed = [{"id": m.upstream_id, "object": "model", "created": 0, "owned_by": m.owned_by} for m in EMBEDDED_MODELS]
    return {"object": "list", "data": listed}


def spare_threads() -> int:
    """One less than the cores this process may use: with one core busy, a thread on each makes llama.cpp 20 times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def start_llama(gguf: Path, *, threads: int) -> tuple[Any, OpenAICompatible]:
    """llama.cpp in this process on a loopback port of its own; the server, to be kept, and the way to reach it."""
    import xllamacpp

    key = secrets.token_urlsafe(32)
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.model_alias = {CHAT.upstream_id}  # else answers carry the file's path
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0  # memory grows without end otherwise
    params.n_ctx_checkpoints = 0
    params.api_keys = [key]
    params.cors_origins = "http://localhost"
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    return server, OpenAICompatible("embedded", f"{server.listening_address}/v1", [CHAT], api_key=key)


async def _run(settings: Mapping[str, Any], weights: Weights) -> None:
    from freehold.upstream.minilm import MiniLM

    bound = asgi.bind(settings.get("port", 0))  # before the models are loaded: a taken port shows at once
    server, chat = start_llama(weights.chat, threads=settings.get("threads") or spare_threads())
    minilm = MiniLM(weights.embedding)
    minilm.embed(minilm.tokens("ready"))
    try:
        app = EmbeddedServer(chat, minilm, settings["api_key"])
        await asgi.serve(app, bound)
    finally:
        await chat.close()
        del server


def _end_with_parent(parent: int) -> None:
    """End this process once it has another parent than it began with; also where the kernel can't be asked to."""

    def watch() -> None:
        while not ended.wait(1.0):
            if os.getppid() != parent:
                os._exit(0)

    ended = threading.Event()
    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> int:
    """Serve until stopped; 1 or 2 when it can't begin, with one sentence on stderr."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its threads would fight llama.cpp's
    _end_with_parent(os.getppid())
    try:
        settings = json.loads(sys.stdin.read() or "{}")
        if not isinstance(settings, dict) or not isinstance(settings.get("api_key"), str) or not settings["api_key"]:
            raise ValueError("it needs a JSON object with an api_key")
        weights = find_weights()
    except WeightsMissing as missing:
        sys.stderr.write(f"{missing}\n")
        return 2
    except ValueError as fault:
        sys.stderr.write(f"The embedded model's settings on stdin can't be used: {fault}.\n")
        return 2
    try:
        asyncio.run(_run(settings, weights))
    except (OSError, OverflowError, RuntimeError) as failure:
        sys.stderr.write(f"The embedded model can't start: {failure}.\n")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # llama.cpp's threads don't all end by themselves
