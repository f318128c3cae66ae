"""`/v1/completions`: text that goes on. Reading a request, saying it as a chat, and what comes back."""

import time
from dataclasses import dataclass
from typing import Any

import msgspec

from freehold.gateway.asking import (
    FREE_TIERS,
    MOST_CHOICES,
    PAID,
    Ask,
    count,
    flag,
    for_upstream,
    lowered,
    may_store,
    model_of,
    read_object,
)
from freehold.gateway.asking import REFUSED as REFUSED_OF_CHATS
from freehold.gateway.meter import BadFrame, Meter, Pass, StreamReader, shown_usage
from freehold.gateway.problems import RequestTooLarge
from freehold.gateway.shapes import chat
from freehold.gateway.shapes.given import (
    FLAG,
    NUMBER,
    OBJECT,
    STOP,
    TEXT,
    WHOLE,
    Check,
    check_types,
    maximum,
    unsupported,
    wrong,
)
from freehold.gateway.shapes.model import Reader
from freehold.gateway.shapes.said import Call, Refusal, Text, parts
from freehold.gateway.shapes.translated import FromChat
from freehold.gateway.sse import DONE, frame
from freehold.problems import Problem, UnsupportedParameter, error_body
from freehold.upstream.model import Kind, Model

NAME = "completions"
PATH = "completions"

DEFAULT_OUTPUT = 16
"""Most output of a request that names no maximum: what OpenAI's API says."""

MOST_PROMPTS = 2_048
MOST_BEST_OF = 20
MOST_LOGPROBS = 20

FIELDS: dict[str, Check] = {
    "stream": FLAG,
    "stream_options": OBJECT,
    "echo": FLAG,
    "suffix": TEXT,
    "logprobs": WHOLE,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "seed": WHOLE,
    "stop": STOP,
    "logit_bias": OBJECT,
    "user": TEXT,
    "service_tier": TEXT,
    "metadata": OBJECT,
}

REFUSED = {
    **{name: why for name, why in REFUSED_OF_CHATS.items() if name not in ("prompt", "best_of")},
    "max_completion_tokens": "use max_tokens for the most output",
    "modalities": PAID,
}

_OWN = frozenset({"prompt", "best_of", "echo", "suffix", "logprobs", "max_tokens", *REFUSED})
_READ = _OWN | FIELDS.keys() | {"model", "n", "freehold", "store"}

_ALONE = "upstreams that speak only chat, as those of this model, can't do that"

Prompt = str | list[int]


class Completions:
    """OpenAI's first shape: a prompt, and the text that follows."""

    name = NAME

    def read(self, raw: bytes) -> Ask:
        """Raises InvalidRequest, UnsupportedParameter, RequestTooLarge."""
        body = read_object(raw)
        lowered(body, _READ)
        for name, why in REFUSED.items():
            if body.get(name) not in (None, False):
                raise unsupported(name, why)
        if body.get("service_tier") not in FREE_TIERS:
            raise unsupported("service_tier", PAID)
        check_types(body, FIELDS)
        model = model_of(body)
        prompts = _prompts(body.get("prompt"))
        stream = flag(body, "stream")
        choices = count(body, "n", most=MOST_CHOICES) or 1
        best_of = count(body, "best_of", most=MOST_BEST_OF) or choices
        if best_of < choices:
            raise wrong("best_of", f"is {best_of}, less than n, which is {choices}")
        if best_of > choices and stream:
            raise wrong("best_of", "is more than n, which can't be streamed")
        logprobs = body.get("logprobs")
        if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
            raise wrong("logprobs", f"is not a whole number from 0 to {MOST_LOGPROBS}")
        limit = maximum(body, "max_tokens", least=0)
        alone = _alone(body, prompts, limit, best_of=best_of, choices=choices)
        return Ask(
            kind=Kind.CHAT,
            body=body if alone else _chat(body, prompts[0]),
            model=model,
            stream=stream,
            wants_usage=chat.wants_usage(body.get("stream_options"), stream),
            max_output=DEFAULT_OUTPUT if limit is None else limit,
            choices=best_of * len(prompts),
            store=may_store(body),
            items=len(prompts),
            shape=NAME,
            told="prompt",
            native=body,
            alone=alone,
        )

    def upstream(self, ask: Ask, model: Model, max_output: int) -> tuple[str, bytes]:
        """What goes upstream: the request itself where the upstream speaks this shape, else the chat."""
        if NAME not in model.shapes or ask.native is None:
            return chat.PATH, chat.upstream_body(ask, model, max_output)
        sent = for_upstream(ask.native, model.upstream_id)
        sent["max_tokens"] = max_output
        if ask.stream:
            sent["stream_options"] = {"include_usage": True}
        else:
            sent.pop("stream_options", None)
        return PATH, msgspec.json.encode(sent)

    def reader(self, ask: Ask, meter: Meter, model_id: str, served: Model, request_id: str) -> Reader:
        if NAME in served.shapes:
            return CompletionsReader(meter, model_id, wants_usage=ask.wants_usage)
        asked = ask.native or {}
        echoed = asked["prompt"] if asked.get("echo") else ""
        writer = Completer(
            model_id, request_id, _alone_in(echoed), logprobs=asked.get("logprobs"), wants_usage=ask.wants_usage
        )
        return FromChat(StreamReader(meter, model_id), writer)

    def refusal(self, problem: Problem, request_id: str) -> dict[str, Any]:
        return error_body(problem)


def _prompts(given: Any) -> list[Prompt]:
    """Each prompt: a text, or a list of token numbers."""
    if isinstance(given, str):
        return [given]
    if given is None:
        raise wrong("prompt", "is missing: send a text, a list of texts, or token numbers")
    if not isinstance(given, list) or not given:
        raise wrong("prompt", "is neither a text nor a list with at least one item")
    if type(given[0]) is int:
        return [_tokens(given, "prompt")]
    if len(given) > MOST_PROMPTS:
        raise RequestTooLarge(reason=f"prompt has {len(given):,} items; the most is {MOST_PROMPTS:,}.", param="prompt")
    return [item if isinstance(item, str) else _tokens(item, f"prompt[{n}]") for n, item in enumerate(given)]


def _tokens(given: Any, where: str) -> list[int]:
    if not isinstance(given, list) or not given or not all(type(token) is int and token >= 0 for token in given):
        raise wrong(where, "is neither a text nor a list of token numbers")
    return given


def _alone(
    body: dict[str, Any], prompts: list[Prompt], limit: int | None, *, best_of: int, choices: int
) -> UnsupportedParameter | None:
    """Why no chat says the same."""
    if len(prompts) > 1:
        return unsupported("prompt", f"{_ALONE}: send each prompt in a call of its own")
    if not isinstance(prompts[0], str):
        return unsupported("prompt", f"{_ALONE}: send text in place of token numbers")
    if body.get("suffix"):
        return unsupported("suffix", _ALONE)
    if best_of > choices:
        return unsupported("best_of", f"{_ALONE}: ask for n and choose")
    if limit == 0:
        return unsupported("max_tokens", f"{_ALONE}: ask for at least one token")
    if body.get("echo") and body.get("logprobs") is not None:
        return unsupported("echo", f"{_ALONE} together with logprobs")
    return None


def _alone_in(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[0])


def _chat(body: dict[str, Any], prompt: Prompt) -> dict[str, Any]:
    """The same request as a chat."""
    sent = {name: value for name, value in body.items() if name not in _OWN and value is not None}
    sent["messages"] = [{"role": "user", "content": prompt}]
    if body.get("logprobs") is not None:
        sent["logprobs"] = True
        if body["logprobs"]:
            sent["top_logprobs"] = body["logprobs"]
    return sent


class CompletionsReader(chat.ChatReader):
    """What an upstream answers that speaks this shape: choices with text in place of deltas."""

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        choices = value.get("choices")
        texts = (
            [choice.get("text") for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else ()
        )
        self.meter.see_answer(value.get("usage"), sum(len(text.encode()) for text in texts if isinstance(text, str)))
        value["model"] = self.model
        value["usage"] = shown_usage(self.meter)
        return value

    def see(self, data: bytes, *, counted: bool) -> tuple[bytes, Pass]:
        shown, leave = StreamReader.see(self, data, counted=counted)
        if counted and leave is not Pass.NEVER:
            said = [choice.get("text") for choice in self.chunk["choices"]]
            if any(said):
                self.meter.deltas += 1
                self.meter.characters += sum(len(text) for text in said if isinstance(text, str))
        return shown, leave

    def cut(self, choices: int) -> bytes:
        head = self.head or {}
        left = [index for index in range(choices) if index not in self.complete]
        ends = ({"index": index, "text": "", "logprobs": None, "finish_reason": "length"} for index in left)
        return b"".join(frame(msgspec.json.encode({**head, "choices": [end]})) for end in ends)


@dataclass(slots=True)
class Completer:
    """Writes completions from what a chat says."""

    model: str
    request_id: str
    echoed: str = ""
    """The prompt, for a client that wants it repeated."""
    logprobs: int | None = None
    wants_usage: bool = False
    created_s: int = 0
    begun: frozenset[int] = frozenset()
    """The choices that have said something."""
    ended: frozenset[int] = frozenset()
    offset: int = 0

    def whole(self, answer: dict[str, Any], meter: Meter) -> dict[str, Any]:
        choices = []
        for number, choice in enumerate(answer["choices"]):
            self.offset = 0
            text, logprobs = self._said(choice, choice.get("message"))
            choices.append(_choice(_index(choice, number), self.echoed + text, logprobs, _reason(choice)))
        return {**self._head(answer), "choices": choices, "usage": shown_usage(meter)}

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        head = self._head(chunk)
        found = []
        for number, choice in enumerate(chunk.get("choices") or ()):
            index = _index(choice, number)
            text, logprobs = self._said(choice, choice.get("delta"))
            reason = _reason(choice) if choice.get("finish_reason") is not None else None
            if index not in self.begun:
                self.begun |= {index}
                text = self.echoed + text
            if reason is not None:
                self.ended |= {index}
            if text or logprobs or reason:
                found.append(_choice(index, text, logprobs, reason))
        return frame(msgspec.json.encode({**head, "choices": found})) if found else b""

    def cut(self, choices: int) -> bytes:
        left = [index for index in range(choices) if index not in self.ended]
        return b"".join(
            frame(msgspec.json.encode({**self._head({}), "choices": [_choice(index, "", None, "length")]}))
            for index in left
        )

    def ending(self, meter: Meter) -> bytes:
        if not self.wants_usage:
            return b""
        return frame(msgspec.json.encode({**self._head({}), "choices": [], "usage": shown_usage(meter)}))

    def marker(self, meter: Meter) -> bytes:
        return frame(DONE)

    def failed(self, problem: Problem) -> bytes:
        return frame(msgspec.json.encode(error_body(problem)))

    def _head(self, said: dict[str, Any]) -> dict[str, Any]:
        created_s = said.get("created")
        if not self.created_s:
            self.created_s = created_s if type(created_s) is int else int(time.time())
        return {
            "id": f"cmpl-{self.request_id.removeprefix('req_')}",
            "object": "text_completion",
            "created": self.created_s,
            "model": self.model,
        }

    def _said(self, choice: dict[str, Any], message: Any) -> tuple[str, dict[str, Any] | None]:
        """The text, and its log probabilities where they were asked for."""
        texts: list[str] = []
        tokens: list[Any] = []
        for part in parts(choice, message):
            if isinstance(part, Call):
                raise BadFrame("it called a tool that nobody offered")
            if isinstance(part, Text):
                texts.append(part.text)
                tokens += part.logprobs or ()
            elif isinstance(part, Refusal):
                texts.append(part.text)
            # What was thought on the way is no text that goes on, and is charged all the same.
        return "".join(texts), self._logprobs(tokens) if self.logprobs is not None and tokens else None

    def _logprobs(self, tokens: list[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            if not isinstance(token, dict):
                raise BadFrame("it sent a log probability that is not an object")
            text, tops = str(token.get("token", "")), token.get("top_logprobs")
            found["tokens"].append(text)
            found["token_logprobs"].append(token.get("logprob"))
            found["top_logprobs"].append(
                {str(top.get("token", "")): top.get("logprob") for top in tops if isinstance(top, dict)}
                if isinstance(tops, list)
                else {}
            )
            found["text_offset"].append(self.offset)
            self.offset += len(text)
        return found


def _index(choice: dict[str, Any], number: int) -> int:
    index = choice.get("index", number)
    return index if isinstance(index, int) else number


def _reason(choice: dict[str, Any]) -> str:
    """This shape knows three."""
    reason = choice.get("finish_reason")
    return reason if reason in ("stop", "length", "content_filter") else "stop"


def _choice(index: int, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
