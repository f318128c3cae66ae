"""What a chat says, in parts, whole or as it streams: what the other shapes are written from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from freehold.gateway.meter import BadFrame


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    logprobs: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool's call, or a further piece of its arguments."""

    index: int | None
    id: str | None
    name: str | None
    arguments: str
    custom: bool = False
    """A tool that takes text instead of JSON."""


Part = Text | Thought | Refusal | Call


def parts(choice: dict[str, Any], message: object) -> Iterator[Part]:
    """The parts of a choice's message or delta. Raises BadFrame for what no chat says."""
    if not isinstance(message, dict):
        return
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        yield Thought(thought)
    text = _text(message.get("content"))
    logprobs = choice.get("logprobs")
    found = logprobs.get("content") if isinstance(logprobs, dict) else None
    if text or found:
        yield Text(text, found if isinstance(found, list) else None)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        yield Refusal(refusal)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        for number, call in enumerate(calls):
            yield _call(call, number)
    old = message.get("function_call")
    if isinstance(old, dict):
        yield _call({"index": 0, "function": old}, 0)


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _call(call: object, number: int) -> Call:
    if not isinstance(call, dict):
        raise BadFrame("it sent a tool call that is not an object")
    custom = call.get("type") == "custom"
    inner = call.get("custom" if custom else "function")
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise BadFrame("it sent a tool call without a function")
    given = inner.get("input" if custom else "arguments")
    if given is None:
        given = ""
    if not isinstance(given, str):
        given = msgspec.json.encode(given).decode()
    index, call_id, name = call.get("index", number), call.get("id"), inner.get("name")
    return Call(
        index if isinstance(index, int) else None,
        call_id if isinstance(call_id, str) and call_id else None,
        name if isinstance(name, str) and name else None,
        given,
        custom,
    )
