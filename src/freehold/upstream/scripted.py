"""An upstream that does as it is told, in process or as a server of its own: for tests, demos and load.

Replies are deterministic. Without a script a chat answers `You said: <last user text>`, one token per word; an
embedding is a unit vector drawn from the text's digest. `spoken.py` says when it calls a tool, fills a JSON schema or
thinks first. The output limit (`max_completion_tokens`, `max_tokens`, `max_output_tokens`) cuts the reply, with
`finish_reason` "length". Prompt tokens are a quarter of the prompt's bytes, rounded up, and 85 for each image.

A model speaks the APIs that its `shapes` name, chat alone unless told otherwise; every other path is 404.

The models of `MODELS`: `scripted-echo`; `scripted-exact`, which reports its whole output limit as used, so that with
an input price of 0 each call costs exactly its hold; `scripted-embedding`.

A script changes that. It is given to the constructor, or by a request in its own `metadata`, which wins:

    {"model": "scripted-echo", "messages": [...], "metadata": {"freehold_script": {"chunks": ["a", "b"]}}}

(also as a string of JSON, since OpenAI's metadata are strings). Directives:

    chunks            list of strings: the reply's pieces, each one token and one frame, whatever the output limit
    message           object: fields put over the reply's message; in a stream, sent in a frame after the chunks; in other
                      APIs its reasoning_content, content, refusal and tool_calls are said after the chunks
    finish_reason     string: instead of "stop" or "length"
    exact             true: report the whole output limit as used
    usage             what to report, as it stands: an object with lies in it, null, a string; "missing" leaves it out.
                      An object with prompt_tokens is reported under each API's own names
    status            number: an error answer instead of a reply; `body` is its JSON, `retry_after` its header
    die_after         number n: the connection breaks after n chunks; a plain answer breaks half-way
    die               true: the connection breaks before the response begins (in process only; a server answers 500)
    unreachable       true: no connection at all (in process only; a server answers 500)
    timeout_after     number n: the read times out after n chunks; -1 before the response begins (in process only; a
                      server goes silent)
    hang_after        number n: wait for the gate after n chunks; -1 before the response begins
    delay_s           number: seconds before each chunk
    fragment_bytes    number n: the body arrives in pieces of n bytes, which cut through frames and characters
    done              false: leave out the closing `data: [DONE]`

The gate is an `asyncio.Event` handed to the constructor; without one, what hangs, hangs until the caller leaves.
`await scripted.hanging.wait()` returns once a call waits at the gate.

`python -m freehold.upstream.scripted --port 0` serves the same on loopback for other processes and prints one line
of JSON, `{"url": "http://127.0.0.1:<port>/v1", "ready": true}`.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from freehold.upstream import asgi
from freehold.upstream.asgi import Receive, Scope, Send
from freehold.upstream.model import (
    CHAT,
    SHAPES,
    Kind,
    Model,
    Terms,
    UpstreamBroke,
    UpstreamCall,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from freehold.upstream.speakers import ChatSpeaker, CompletionsSpeaker, MessagesSpeaker, ResponsesSpeaker, Speaker
from freehold.upstream.spoken import (
    CREATED,
    Asked,
    Said,
    SpeechError,
    Step,
    asked_of_chat,
    asked_of_messages,
    asked_of_responses,
    prompts,
    steps_of,
    steps_of_message,
)

DIRECTIVE = "freehold_script"
DIMENSIONS = 8
COUNT = "messages/count_tokens"
PATHS = {"chat/completions": CHAT, "completions": "completions", "responses": "responses", "messages": "messages",
         COUNT: "messages"}  # fmt: skip
"""Which API a path belongs to."""

DEFAULT_OUTPUT = 16
"""Output limit of `exact` when the request names none."""

_BODY_LIMIT = 64 * 1024 * 1024

MODELS = (
    Model("scripted-echo", Kind.CHAT, 8_192, 4_096, "scripted-echo", image_tokens=1_024),
    Model("scripted-exact", Kind.CHAT, 1_000_000, 100_000, "scripted-exact"),
    Model("scripted-embedding", Kind.EMBEDDING, 8_192, 0, "scripted-embedding"),
)


@dataclass(frozen=True, slots=True)
class Script:
    """The directives of this module's docstring, as a value."""

    chunks: tuple[str, ...] | None = None
    message: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    exact: bool = False
    usage: Any = "reported"
    status: int = 200
    body: Any = None
    retry_after: int | None = None
    die_after: int | None = None
    die: bool = False
    unreachable: bool = False
    timeout_after: int | None = None
    hang_after: int | None = None
    delay_s: float = 0.0
    fragment_bytes: int = 0
    done: bool = True

    def with_directives(self, directives: Mapping[str, Any]) -> "Script":
        """This script with a request's directives over it. Raises ScriptError."""
        unknown = sorted(set(directives) - {item.name for item in fields(Script)})
        if unknown:
            raise ScriptError(f"{unknown[0]} is not a directive of {DIRECTIVE}.")
        chunks = directives.get("chunks", self.chunks)
        if chunks is not None and (not isinstance(chunks, list | tuple) or not all(isinstance(c, str) for c in chunks)):
            raise ScriptError(f"chunks of {DIRECTIVE} is not a list of strings.")
        for name, kinds in _KINDS.items():
            if name in directives and type(directives[name]) not in kinds:
                raise ScriptError(f"{name} of {DIRECTIVE} is not a {kinds[0].__name__}.")
        return replace(self, **{**directives, "chunks": None if chunks is None else tuple(chunks)})


_NUMBER = (int, type(None))
_KINDS: Mapping[str, tuple[type, ...]] = {
    "message": (dict,),
    "finish_reason": (str, type(None)),
    "exact": (bool,),
    "status": (int,),
    "retry_after": _NUMBER,
    "die_after": _NUMBER,
    "die": (bool,),
    "unreachable": (bool,),
    "timeout_after": _NUMBER,
    "hang_after": _NUMBER,
    "delay_s": (float, int),
    "fragment_bytes": (int,),
    "done": (bool,),
}


class ScriptError(ValueError):
    """A script or a request that the scripted upstream can't follow; the text says why."""


class _Died(Exception):
    """The script breaks the connection here."""


class _TimedOut(Exception):
    """The script lets the read time out here."""


@dataclass(slots=True)
class Seen:
    """One call as the upstream saw it."""

    path: str
    body: bytes
    request_id: str
    chunks_sent: int = 0
    closed: bool = False
    """True once the reader finished or left."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    content_type: str
    retry_after_s: int | None
    parts: AsyncIterator[bytes]
    script: Script


class Scripted:
    """The upstream. `script` is every call's default; `gate` lets go what hangs; `seen` lists the calls so far."""

    def __init__(
        self,
        name: str = "scripted",
        models: Iterable[Model] = MODELS,
        *,
        script: Script | None = None,
        gate: asyncio.Event | None = None,
        keep_seen: int = 100,
        terms: Terms | None = None,
    ) -> None:
        self.name = name
        self.terms = terms or Terms()
        self.models: Mapping[str, Model] = {model.id: model for model in models}
        self.script = script or Script()
        self.gate = gate
        self.hanging = asyncio.Event()
        self.seen: list[Seen] = []
        self._keep_seen = keep_seen
        self._served = {model.upstream_id: model for model in self.models.values()}

    async def send(self, call: UpstreamCall) -> "ScriptedAnswer":
        """As an upstream does. Raises UpstreamUnreachable, UpstreamTimedOut, UpstreamBroke when told to."""
        seen = self._see(call.path, call.body, call.request_id)
        try:
            reply = await self._reply(call.path, call.body, seen)
        except _Unreachable:
            raise UpstreamUnreachable(
                f"Upstream {self.name} can't be reached: connection refused.", before_first_byte=True
            ) from None
        except _TimedOut:
            raise UpstreamTimedOut(
                f"Upstream {self.name} did not answer within its read timeout.", before_first_byte=True
            ) from None
        except _Died:
            raise UpstreamBroke(
                f"Upstream {self.name} closed the connection before it answered.", before_first_byte=True
            ) from None
        return ScriptedAnswer(self.name, reply, seen)

    async def close(self) -> None:
        """Nothing to close: calls end with their readers."""

    def asgi(self) -> "ScriptedServer":
        """The same behaviour as an OpenAI-compatible ASGI application, under `/v1`."""
        return ScriptedServer(self)

    def _see(self, path: str, body: bytes, request_id: str) -> Seen:
        seen = Seen(path, body, request_id)
        self.seen.append(seen)
        del self.seen[: -self._keep_seen]
        return seen

    async def _reply(self, path: str, body: bytes, seen: Seen) -> _Reply:
        try:
            request = json.loads(body)
            if not isinstance(request, dict):
                raise ScriptError("The body is not a JSON object.")
            script = self.script.with_directives(_directives(request))
            return await self._follow(path, request, script, seen)
        except (ScriptError, SpeechError, ValueError) as reason:
            return _plain(400, asgi.error_value(str(reason), "invalid_request"), Script(), seen)
        except RecursionError:
            return _plain(400, asgi.error_value("The body is nested too deeply.", "invalid_request"), Script(), seen)

    async def _follow(self, path: str, request: dict[str, Any], script: Script, seen: Seen) -> _Reply:
        if script.unreachable:
            raise _Unreachable
        if script.die:
            raise _Died
        await self._pass(script, -1)
        if script.status != 200:
            body = (
                script.body
                if script.body is not None
                else asgi.error_value(f"Scripted status {script.status}.", "scripted", kind="upstream_error")
            )
            return _plain(script.status, body, script, seen)
        name = request.get("model")
        model = self._served.get(name) if isinstance(name, str) else None
        if model is not None and path == "embeddings" and model.kind is Kind.EMBEDDING:
            return _plain(200, _embeddings(request, script), script, seen)
        if model is None or model.kind is not Kind.CHAT or PATHS.get(path) not in model.shapes:
            return _plain(
                404, asgi.error_value(f"{path} of model {name} is not served here.", "model_not_found"), script, seen
            )
        if path == COUNT:
            return _plain(200, {"input_tokens": asked_of_messages(request).prompt_tokens()}, script, seen)
        speaker = _speaker(PATHS[path], request, script)
        if request.get("stream"):
            return _Reply(
                200, "text/event-stream", None, _fragments(self._stream(speaker, script, seen), script), script
            )
        await self._pass(script, 0)
        return _plain(200, speaker.whole(), script, seen)

    async def _stream(self, speaker: Speaker, script: Script, seen: Seen) -> AsyncIterator[bytes]:
        yield speaker.head()
        await self._pass(script, 0)
        _break(script, 0)
        for number in range(len(speaker.steps)):
            if script.delay_s:
                await asyncio.sleep(script.delay_s)
            yield speaker.step(number)
            seen.chunks_sent = number + 1
            await self._pass(script, number + 1)
            _break(script, number + 1)
        yield speaker.tail()
        if script.done:
            yield speaker.done()

    async def _pass(self, script: Script, at: int) -> None:
        """The gate and the time-outs of this point: -1 before the response, n after n chunks."""
        if script.timeout_after == at:
            raise _TimedOut
        if script.hang_after == at:
            self.hanging.set()
            await (self.gate or asyncio.Event()).wait()


class _Unreachable(Exception):
    """The script refuses the connection."""


class ScriptedAnswer:
    """A scripted response, in process."""

    def __init__(self, name: str, reply: _Reply, seen: Seen) -> None:
        self.status = reply.status
        self.content_type = reply.content_type
        self.retry_after_s = reply.retry_after_s
        self._name = name
        self._parts = reply.parts
        self._seen = seen

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises UpstreamBroke, also above `limit_bytes`, and UpstreamTimedOut."""
        body = bytearray()
        async for part in self.chunks():
            body += part
            if len(body) > limit_bytes:
                await self.close()
                raise UpstreamBroke(
                    f"Upstream {self._name} sent more than {limit_bytes} bytes.", before_first_byte=False
                )
        return bytes(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises UpstreamBroke, UpstreamTimedOut."""
        try:
            async for part in self._parts:
                yield part
        except _Died:
            raise UpstreamBroke(
                f"Upstream {self._name} closed the connection in the middle of its answer.", before_first_byte=False
            ) from None
        except _TimedOut:
            raise UpstreamTimedOut(
                f"Upstream {self._name} sent nothing within its read timeout.", before_first_byte=False
            ) from None
        finally:
            self._seen.closed = True

    async def close(self) -> None:
        """Stop reading; the call sees its reader leave."""
        self._seen.closed = True
        closing = getattr(self._parts, "aclose", None)
        if closing is not None:
            try:
                await closing()
            except RuntimeError as running:  # another task is reading: its cancellation closes it
                if "already running" not in str(running):
                    raise


class ScriptedServer:
    """A scripted upstream as an ASGI application, under `/v1`."""

    def __init__(self, upstream: Scripted) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ScriptError(f"The scripted upstream doesn't speak {scope['type']}.")
        body = await asgi.read_body(receive, limit_bytes=_BODY_LIMIT)
        path = scope["path"].removeprefix("/v1/")
        if path == "models":
            await asgi.respond_json(send, 200, self._models())
            return
        request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        seen = self._upstream._see(path, body, request_id)
        try:
            await asgi.while_connected(receive, self._answer(path, body, seen, send))
        finally:
            seen.closed = True

    async def _answer(self, path: str, body: bytes, seen: Seen, send: Send) -> None:
        try:
            reply = await self._upstream._reply(path, body, seen)
            await asgi.respond(send, reply.status, reply.content_type, reply.parts, retry_after_s=reply.retry_after_s)
        except _TimedOut:
            await asyncio.Event().wait()  # silence; the caller's own timeout, or its leaving, ends it

    def _models(self) -> dict[str, Any]:
        listed = [
            {"id": model.upstream_id, "object": "model", "created": CREATED, "owned_by": model.owned_by}
            for model in self._upstream.models.values()
        ]
        return {"object": "list", "data": listed}


def _speaker(shape: str, request: dict[str, Any], script: Script) -> Speaker:
    """The reply to a request, in its API's words. Raises ScriptError, SpeechError."""
    options = request.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    if shape == "responses":
        return ResponsesSpeaker(_said(asked_of_responses(request), request, script, shape), request)
    if shape == "messages":
        return MessagesSpeaker(_said(asked_of_messages(request), request, script, shape))
    choices = request.get("n") or 1
    if type(choices) is not int or not 1 <= choices <= 128:
        raise ScriptError("n is not a whole number from 1 to 128.")
    if shape == CHAT:
        said = _said(asked_of_chat(request), request, script, shape)
        return ChatSpeaker(said, choices=choices, include_usage=include_usage, logprobs=request.get("logprobs") is True)
    given = prompts(request)
    limit = _limit(request)
    each = [Asked(text, len(text.encode("utf-8", "replace")), limit=limit) for text in given]
    drawn = request.get("best_of") or choices
    return CompletionsSpeaker(
        [_said(asked, request, script, shape) for asked in each],
        choices=choices,
        drawn=drawn if type(drawn) is int else choices,
        echo=request.get("echo") is True,
        prompts=given,
        logprobs=request.get("logprobs") is not None,
        include_usage=include_usage,
    )


def _said(asked: Asked, request: dict[str, Any], script: Script, shape: str) -> Said:
    """What a request is answered."""
    exact = script.exact or request["model"] == "scripted-exact"
    if script.chunks is None:
        steps = steps_of(asked)
        calls = any(step.kind == "call" for step in steps)
        steps = steps if calls or asked.limit is None else steps[: asked.limit]
    else:
        steps = [Step("text", chunk) for chunk in script.chunks]
        calls = False
    cut = asked.limit is not None and len(steps) >= asked.limit and not calls
    if shape != CHAT:
        steps = [*steps, *steps_of_message(script.message)]
    usual = "length" if cut or exact else "tool_calls" if calls else "stop"
    seed = json.dumps([asked.said, asked.bytes], ensure_ascii=True)
    return Said(
        id="chatcmpl-" + hashlib.sha256(seed.encode()).hexdigest()[:24],
        model=request["model"],
        steps=steps,
        finish=script.finish_reason or usual,
        prompt_tokens=asked.prompt_tokens(),
        completion_tokens=(asked.limit or DEFAULT_OUTPUT) if exact else len(steps),
        reported=script.usage,
        extra=script.message if shape == CHAT else {},
    )


def _embeddings(request: dict[str, Any], script: Script) -> dict[str, Any]:
    given = request.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not given:
        raise ScriptError("input is not text, and not a list with at least one item.")
    raw = [(item if isinstance(item, str) else json.dumps(item)).encode("utf-8", "replace") for item in given]
    as_base64 = request.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else vector}
        for index, vector in enumerate(map(_unit_vector, raw))
    ]
    body: dict[str, Any] = {"object": "list", "data": data, "model": request["model"]}
    tokens = sum(max(1, -(-len(item) // 4)) for item in raw)
    reported = {"prompt_tokens": tokens, "total_tokens": tokens}
    if script.usage != "missing":
        body["usage"] = reported if script.usage == "reported" else script.usage
    return body


def _unit_vector(raw: bytes) -> list[float]:
    drawn = [number - 127.5 for number in hashlib.sha256(raw).digest()[:DIMENSIONS]]
    length = sum(number * number for number in drawn) ** 0.5
    return [number / length for number in drawn]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _directives(request: dict[str, Any]) -> Mapping[str, Any]:
    metadata = request.get("metadata")
    given = metadata.get(DIRECTIVE, {}) if isinstance(metadata, dict) else {}
    if isinstance(given, str):
        given = json.loads(given)
    if not isinstance(given, dict):
        raise ScriptError(f"{DIRECTIVE} is not a JSON object.")
    return given


def _limit(request: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if request.get(name) is not None:
            if type(request[name]) is not int or request[name] < 0:
                raise ScriptError(f"{name} is not a whole number of tokens.")
            return int(request[name])
    return None


def _break(script: Script, at: int) -> None:
    if script.die_after == at:
        raise _Died


def _plain(status: int, value: Any, script: Script, seen: Seen) -> _Reply:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    retry_after_s = script.retry_after if status != 200 else None
    return _Reply(status, "application/json", retry_after_s, _fragments(_once(body, script, seen), script), script)


async def _once(body: bytes, script: Script, seen: Seen) -> AsyncIterator[bytes]:
    if script.die_after is not None:
        yield body[: len(body) // 2]
        raise _Died
    yield body
    seen.chunks_sent = 1


async def _fragments(parts: AsyncIterator[bytes], script: Script) -> AsyncIterator[bytes]:
    async for part in parts:
        size = script.fragment_bytes or len(part) or 1
        for start in range(0, len(part), size):
            yield part[start : start + size]


def main(argv: list[str] | None = None) -> None:
    """Serve the scripted models on loopback until stopped."""
    parser = argparse.ArgumentParser(prog="python -m freehold.upstream.scripted", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", default="{}", help="directives for every call, as JSON")
    parser.add_argument("--shapes", default=CHAT, help=f"the APIs it speaks, of {', '.join(SHAPES)}; parted by commas")
    given = parser.parse_args(argv)
    script = Script().with_directives(json.loads(given.script))
    shapes = frozenset(given.shapes.split(","))
    if not shapes <= set(SHAPES):
        parser.error(f"--shapes takes {', '.join(SHAPES)}")
    models = [replace(model, shapes=shapes) if model.kind is Kind.CHAT else model for model in MODELS]
    asyncio.run(asgi.serve(Scripted(models=models, script=script).asgi(), asgi.bind(given.port)))


if __name__ == "__main__":
    main()
