"""Chat completions: reading a request, what goes upstream, and what comes back."""

from dataclasses import dataclass
from typing import Any

import msgspec

from freehold.gateway.asking import (
    MOST_CHOICES,
    MOST_TOKENS,
    PAID,
    STATE,
    Ask,
    check_fields,
    count,
    flag,
    for_upstream,
    may_store,
    model_of,
    read_object,
)
from freehold.gateway.meter import SHOWN, Meter, StreamReader, shown_usage
from freehold.gateway.shapes.given import (
    CHOICE,
    FLAG,
    NUMBER,
    OBJECT,
    STOP,
    TEXT,
    WHOLE,
    Check,
    check_types,
)
from freehold.gateway.sse import DONE, frame
from freehold.problems import InvalidRequest, Problem, UnsupportedParameter, error_body
from freehold.upstream.model import Kind, Model

FIELDS: dict[str, Check] = {
    "temperature": NUMBER,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "seed": WHOLE,
    "stop": STOP,
    "logprobs": FLAG,
    "top_logprobs": WHOLE,
    "logit_bias": OBJECT,
    "user": TEXT,
    "parallel_tool_calls": FLAG,
    "response_format": OBJECT,
    "tool_choice": CHOICE,
    "reasoning_effort": TEXT,
    "verbosity": TEXT,
    "metadata": OBJECT,
    "store": FLAG,
    "prompt_cache_key": TEXT,
    "safety_identifier": TEXT,
}
"""What some servers answer with a fault of their own when it has the wrong type."""

OWN_TOOLS = frozenset({"function", "custom"})
"""Tools that the caller runs itself; every other type runs, and is billed, at the upstream."""

FILE_PARTS = ("file", "input_file", "file_id", "container_upload")


def read(raw: bytes) -> Ask:
    """A chat request. Raises InvalidRequest, UnsupportedParameter."""
    body = read_object(raw)
    check_fields(body)
    check_types(body, FIELDS)
    model = model_of(body)
    _check_messages(body.get("messages"))
    _check_tools(body.get("tools"))
    _check_modalities(body.get("modalities"))
    stream = flag(body, "stream")
    return Ask(
        kind=Kind.CHAT,
        body=body,
        model=model,
        stream=stream,
        wants_usage=wants_usage(body.get("stream_options"), stream),
        max_output=_maximum(body),
        choices=count(body, "n", most=MOST_CHOICES) or 1,
        store=may_store(body),
    )


def upstream_body(ask: Ask, model: Model, max_output: int) -> bytes:
    """What the upstream is sent: its own model name, one maximum, and always the usage of a stream."""
    sent = for_upstream(ask.body, model.upstream_id)
    sent.pop("max_tokens", None)
    sent.pop("max_completion_tokens", None)
    sent["max_completion_tokens" if model.hidden_output else "max_tokens"] = max_output
    if ask.stream:
        sent["stream_options"] = {"include_usage": True}
    else:
        sent.pop("stream_options", None)
    return msgspec.json.encode(sent)


class Chat:
    """The shape that every upstream of chats speaks."""

    name = "chat"

    def read(self, raw: bytes) -> Ask:
        return read(raw)

    def upstream(self, ask: Ask, model: Model, max_output: int) -> tuple[str, bytes]:
        return PATH, upstream_body(ask, model, max_output)

    def reader(self, ask: Ask, meter: Meter, model_id: str, served: Model, request_id: str) -> "ChatReader":
        return ChatReader(meter, model_id, wants_usage=ask.wants_usage)

    def refusal(self, problem: Problem, request_id: str) -> dict[str, Any]:
        return error_body(problem)


PATH = "chat/completions"

END = frame(DONE)


@dataclass(slots=True)
class ChatReader(StreamReader):
    """What an upstream answers to a chat: passed on as it is, but for its name of the model and its usage."""

    wants_usage: bool = False
    """The client itself asked for the usage frame of a stream."""

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        self.meter.see_answer(value.get("usage"), shown_bytes(value))
        value["model"] = self.model
        value["usage"] = shown_usage(self.meter)
        complete(value.get("choices"))
        return value

    @staticmethod
    def frame(seen: bytes, /) -> bytes:
        return frame(seen)

    def cut(self, choices: int) -> bytes:
        return b"".join(map(frame, self.cut_frames(choices)))

    def ending(self) -> bytes:
        return frame(self.usage_frame()) if self.wants_usage else b""

    def marker(self) -> bytes:
        return END

    def failed(self, problem: Problem) -> bytes:
        return frame(msgspec.json.encode(error_body(problem)))


def complete(choices: object) -> None:
    """Put in what OpenAI's API always has and many servers leave out."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            choice.setdefault("logprobs", None)
            message = choice.get("message")
            if isinstance(message, dict):
                message.setdefault("refusal", None)
                message.setdefault("annotations", [])


def shown_bytes(answer: dict[str, Any]) -> int:
    """UTF-8 bytes of what a plain answer says, over all choices."""
    choices = answer.get("choices")
    total = 0
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            continue
        for name in SHOWN:
            value = message.get(name)
            if isinstance(value, str):
                total += len(value.encode())
            elif value:
                total += len(msgspec.json.encode(value))
    return total


def _maximum(body: dict[str, Any]) -> int | None:
    old = count(body, "max_tokens", most=MOST_TOKENS)
    new = count(body, "max_completion_tokens", most=MOST_TOKENS)
    if old is not None and new is not None and old != new:
        raise InvalidRequest(
            reason=f"max_tokens is {old} and max_completion_tokens is {new}; send one of them.", param="max_tokens"
        )
    return old if old is not None else new


def wants_usage(options: object, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidRequest(reason="stream_options is not an object.", param="stream_options")
    return flag(options, "include_usage") and stream


def _check_messages(messages: object) -> None:
    """What no server could read, or many answer with a fault of their own, and what refers to files that one keeps.

    The rest of the shape is the bound's to check.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest(reason="messages is not a list with at least one message.", param="messages")
    for message in messages:
        if not isinstance(message, dict):
            raise InvalidRequest(reason="A message is not an object with role and content.", param="messages")
        if not isinstance(message.get("role"), str):
            raise InvalidRequest(reason="A message has no role, such as user or assistant.", param="messages")
        calls = message.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            raise InvalidRequest(reason="tool_calls is not a list of objects.", param="messages")
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            _check_part(part)


def _check_part(part: object) -> None:
    if not isinstance(part, dict):
        return
    if part.get("type") in FILE_PARTS or "file_id" in part:
        raise UnsupportedParameter(reason=f"File ids in messages are not supported: {STATE}.", param="messages")
    if part.get("type") == "image_url":
        image = part.get("image_url")
        if not isinstance(image, str) and not (isinstance(image, dict) and isinstance(image.get("url"), str)):
            raise InvalidRequest(reason="A part of content of type image_url has no image_url.url.", param="messages")
    if part.get("type") == "text" and not isinstance(part.get("text"), str):
        raise InvalidRequest(reason="A part of content of type text has no text.", param="messages")


def _check_tools(tools: object) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise InvalidRequest(reason="tools is not a list.", param="tools")
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind not in OWN_TOOLS:
            named = kind[:60] if isinstance(kind, str) else "without a type"
            raise UnsupportedParameter(
                reason=f"A tool {named} is not supported: only tools of type function or custom, which the caller runs.",
                param="tools",
            )
        inner = tool.get(kind)
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise InvalidRequest(reason=f"A tool of type {kind} has no {kind}.name.", param="tools")


def _check_modalities(modalities: object) -> None:
    if modalities is not None and modalities != ["text"]:
        raise UnsupportedParameter(reason=f"modalities other than text are not supported: {PAID}.", param="modalities")
