"""What the scripted upstream says, and how each API says it. Deterministic, and told by nothing but the request.

Words: it repeats the last user's text. Tools: it calls one when the request demands it, or when the text has a word of
its name ("weather" for `get_weather`) and no result is there yet; arguments are a sample of the tool's schema. A JSON
schema is answered with a sample of it. A request that asks for reasoning gets a little of it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CREATED = 1_700_000_000
IMAGE_TOKENS = 85
"""What one image is counted as."""

THOUGHTS = ("Let", " me", " think.")
PIECE = 12
"""Characters of a piece of JSON."""

DEEP = 6
"""A sample of a schema that refers to itself ends here."""


class SpeechError(ValueError):
    """A request that can't be answered; the text says why."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    schema: Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as every API means it."""

    said: str
    """The last user's text, or the prompt."""
    bytes: int
    """Of all text."""
    images: int = 0
    tools: Sequence[Tool] = ()
    choice: str = "auto"
    """auto, none, required, or `tool:` and its name."""
    called: Sequence[str] = ()
    """The tools that were called before."""
    answered: bool = False
    """The last turn is a tool's result."""
    schema: Any = None
    thinks: bool = False
    limit: int | None = None

    def prompt_tokens(self) -> int:
        return max(1, -(-self.bytes // 4) + self.images * IMAGE_TOKENS)


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of a reply; each is one token."""

    kind: str
    """thought, text, refusal or call."""
    text: str
    call: int = 0
    begins: "Called | None" = None
    """With this piece a tool's call begins."""


@dataclass(frozen=True, slots=True)
class Called:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Said:
    """A reply, worked out before its first byte."""

    id: str
    model: str
    steps: Sequence[Step]
    finish: str
    """As a chat calls it."""
    prompt_tokens: int
    completion_tokens: int
    reported: Any
    """What to report as used, as a chat does: "reported" for the truth, "missing" for nothing, or as it stands."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields put over a chat's message."""

    def joined(self, kind: str) -> str:
        return "".join(step.text for step in self.steps if step.kind == kind)

    def calls(self) -> list[tuple[Called, str]]:
        """Each call and its arguments."""
        begun = [(step.call, step.begins) for step in self.steps if step.begins is not None]
        return [
            (called, "".join(step.text for step in self.steps if step.kind == "call" and step.call == number))
            for number, called in begun
        ]

    def thoughts(self) -> int:
        return sum(step.kind == "thought" for step in self.steps)

    def usage(self, choices: int = 1) -> Any:
        """As a chat reports it."""
        if self.reported != "reported":
            return self.reported
        output = self.completion_tokens * choices
        found: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": output,
            "total_tokens": self.prompt_tokens + output,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        if self.thoughts():
            found["completion_tokens_details"] = {"reasoning_tokens": self.thoughts() * choices}
        return found


def steps_of(asked: Asked) -> list[Step]:
    """What is said to a request that has no script."""
    thoughts = [Step("thought", text) for text in THOUGHTS] if asked.thinks else []
    tool = _tool(asked)
    if tool is not None:
        called = Called("call_" + _digest(tool.name, asked.said), tool.name)
        return [*thoughts, *call_steps(0, called, json.dumps(sample(tool.schema)))]
    if asked.schema is not None:
        pieces = cut_up(json.dumps(sample(asked.schema)))
    else:
        pieces = list(words(f"You said: {asked.said}"))
    return [*thoughts, *(Step("text", piece) for piece in pieces)]


def call_steps(number: int, called: Called, arguments: str) -> list[Step]:
    pieces = cut_up(arguments) or [""]
    return [Step("call", piece, number, called if first == 0 else None) for first, piece in enumerate(pieces)]


def steps_of_message(message: Mapping[str, Any]) -> list[Step]:
    """What a script's `message` says, for the APIs that have no such message."""
    found = []
    for name, kind in (("reasoning_content", "thought"), ("content", "text"), ("refusal", "refusal")):
        if isinstance(message.get(name), str) and message[name]:
            found.append(Step(kind, message[name]))
    calls = message.get("tool_calls")
    for number, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function", {})
        called = Called(str(call.get("id")), str(function.get("name")))
        found += call_steps(number, called, str(function.get("arguments", "")))
    return found


def words(text: str) -> Iterator[str]:
    for number, word in enumerate(text.split(" ")):
        yield word if number == 0 else f" {word}"


def cut_up(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _tool(asked: Asked) -> Tool | None:
    """The tool that is called."""
    if not asked.tools or asked.choice == "none":
        return None
    if asked.choice.startswith("tool:"):
        name = asked.choice.removeprefix("tool:")
        return next((tool for tool in asked.tools if tool.name == name), None)
    named = [tool for tool in asked.tools if _named(tool.name, asked.said)]
    if asked.choice == "required":
        fresh = [tool for tool in [*named, *asked.tools] if tool.name not in asked.called]
        return (fresh or asked.tools[-1:])[0]
    return named[0] if named and not asked.answered else None


def _named(name: str, text: str) -> bool:
    parts = re.findall(r"[A-Z]?[a-z]{3,}", name)
    return any(part.lower() in text.lower() for part in parts if part.lower() not in ("get", "the", "and"))


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value that a JSON schema allows."""
    if not isinstance(schema, Mapping) or depth > DEEP:
        return None
    root = schema if root is None else root
    if isinstance(schema.get("$ref"), str):
        found: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found.get(name) if isinstance(found, Mapping) else None
        return sample(found, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        options = schema.get(name)
        if isinstance(options, list) and options:
            real = [option for option in options if isinstance(option, Mapping) and option.get("type") != "null"]
            return sample((real or options)[0], root, depth + 1)
    return _sample_of_type(schema, root, depth)


def _sample_of_type(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), None)
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties")
        given = properties if isinstance(properties, Mapping) else {}
        return {str(name): sample(inner, root, depth + 1) for name, inner in given.items()}
    if kind == "array":
        return [sample(schema.get("items", {}), root, depth + 1)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return least + 1 if type(least) is int else 1
    if kind == "boolean":
        return True
    return "sample" if kind == "string" else None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:24]


# What is asked


def texts(value: Any) -> Iterator[str]:
    """The text of content, in any API's parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, Mapping):
        for name in ("text", "content", "output", "refusal", "arguments"):
            yield from texts(value.get(name))


def images(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(images, value))
    if not isinstance(value, Mapping):
        return 0
    if value.get("type") in ("image_url", "input_image", "image"):
        return 1
    return images(value.get("content"))


def _size(said: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in said)


def whole_number(request: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = request.get(name)
        if value is not None:
            if type(value) is not int or value < 0:
                raise SpeechError(f"{name} is not a whole number of tokens.")
            return int(value)
    return None


def _objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise SpeechError(f"{name} is not a list with at least one object.")
    return value


def _last_said(turns: Sequence[Mapping[str, Any]]) -> str:
    last: Mapping[str, Any] = next((turn for turn in reversed(turns) if turn.get("role") == "user"), {})
    return "".join(texts(last.get("content")))


def _tools(tools: Any, inner: str | None, schema: str) -> list[Tool]:
    found = []
    for tool in tools if isinstance(tools, list) else ():
        given = tool.get(inner) if inner and isinstance(tool, Mapping) else tool
        if isinstance(given, Mapping) and isinstance(given.get("name"), str):
            found.append(Tool(given["name"], given.get(schema) or {"type": "object"}))
    return found


def asked_of_chat(request: Mapping[str, Any]) -> Asked:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise SpeechError("messages is not a list with at least one message.")
    turns = [message for message in messages if isinstance(message, Mapping)]
    called = [
        str(call.get("function", {}).get("name"))
        for turn in turns
        for call in (turn.get("tool_calls") or ())
        if isinstance(call, Mapping) and isinstance(call.get("function", {}), Mapping)
    ]
    choice = request.get("tool_choice", "auto")
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = f"tool:{function.get('name')}" if isinstance(function, Mapping) else "auto"
    form = request.get("response_format")
    schema = None
    if isinstance(form, Mapping) and form.get("type") == "json_schema":
        wrapped = form.get("json_schema")
        schema = wrapped.get("schema", {}) if isinstance(wrapped, Mapping) else {}
    elif isinstance(form, Mapping) and form.get("type") == "json_object":
        schema = {"type": "object", "properties": {"said": {"type": "string"}}}
    return Asked(
        said=_last_said(turns),
        bytes=_size(text for turn in turns for text in texts(turn.get("content"))),
        images=sum(images(turn.get("content")) for turn in turns),
        tools=_tools(request.get("tools"), "function", "parameters"),
        choice=str(choice),
        called=called,
        answered=bool(turns) and turns[-1].get("role") == "tool",
        schema=schema,
        thinks=request.get("reasoning_effort") not in (None, "none"),
        limit=whole_number(request, "max_completion_tokens", "max_tokens"),
    )


def asked_of_responses(request: Mapping[str, Any]) -> Asked:
    given = request.get("input")
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else _objects(given, "input")
    choice = request.get("tool_choice", "auto")
    if isinstance(choice, Mapping):
        choice = f"tool:{choice.get('name')}" if choice.get("type") == "function" else "auto"
    text = request.get("text")
    form = text.get("format") if isinstance(text, Mapping) else None
    schema = form.get("schema", {}) if isinstance(form, Mapping) and form.get("type") == "json_schema" else None
    reasoning = request.get("reasoning")
    said = [*texts(request.get("instructions")), *texts(list(turns))]
    return Asked(
        said=_last_said(turns),
        bytes=_size(said),
        images=sum(images(turn.get("content")) for turn in turns),
        tools=_tools(request.get("tools"), None, "parameters"),
        choice=str(choice),
        called=[str(turn.get("name")) for turn in turns if turn.get("type") == "function_call"],
        answered=turns[-1].get("type") == "function_call_output",
        schema=schema,
        thinks=isinstance(reasoning, Mapping) and reasoning.get("effort") not in (None, "none"),
        limit=whole_number(request, "max_output_tokens"),
    )


def asked_of_messages(request: Mapping[str, Any]) -> Asked:
    turns = _objects(request.get("messages"), "messages")
    blocks = [
        block
        for turn in turns
        if isinstance(turn.get("content"), list)
        for block in turn["content"]
        if isinstance(block, Mapping)
    ]
    last = turns[-1].get("content")
    choice = request.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else "auto"
    config = request.get("output_config")
    form = config.get("format") if isinstance(config, Mapping) else None
    thinking = request.get("thinking")
    said = [*texts(request.get("system")), *(text for turn in turns for text in texts(turn.get("content")))]
    return Asked(
        said=_last_said(turns),
        bytes=_size(said),
        images=images(blocks),
        tools=_tools(request.get("tools"), None, "input_schema"),
        choice={"any": "required", "tool": f"tool:{choice.get('name') if choice else ''}"}.get(str(kind), str(kind)),
        called=[str(block.get("name")) for block in blocks if block.get("type") == "tool_use"],
        answered=isinstance(last, list)
        and any(isinstance(block, Mapping) and block.get("type") == "tool_result" for block in last),
        schema=form.get("schema", {}) if isinstance(form, Mapping) else None,
        thinks=isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive"),
        limit=whole_number(request, "max_tokens"),
    )


def prompts(request: Mapping[str, Any]) -> list[str]:
    """The prompts of a completion, as text."""
    given = request.get("prompt")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not given:
        raise SpeechError("prompt is not text, and not a list with at least one item.")
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in given]
