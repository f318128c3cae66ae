"""`/v1/messages`, Anthropic's shape: reading a request, and saying the same as a chat."""

import json
from typing import Any

import msgspec

from freehold.gateway.asking import (
    OTHER_MAXIMUM,
    PAID,
    STATE,
    Ask,
    check_fields,
    flag,
    lowered,
    may_store,
    model_of,
    read_object,
    too_deep,
)
from freehold.gateway.meter import Meter, StreamReader
from freehold.gateway.shapes import chat
from freehold.gateway.shapes.given import (
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    TEXTS,
    WHOLE,
    Check,
    a_list,
    a_name,
    a_text,
    an_object,
    check_types,
    maximum,
    one_of,
    unsupported,
    wrong,
)
from freehold.gateway.shapes.messages_native import MessagesReader
from freehold.gateway.shapes.messages_written import Messenger, error_of
from freehold.gateway.shapes.model import Reader
from freehold.gateway.shapes.translated import FromChat
from freehold.problems import InvalidRequest, Problem
from freehold.upstream.model import Kind, Model

NAME = "messages"
PATH = "messages"

FIELDS: dict[str, Check] = {
    "metadata": OBJECT,
    "output_config": OBJECT,
    "output_format": OBJECT,
    "cache_control": OBJECT,
    "stop_sequences": TEXTS,
    "stream": FLAG,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": WHOLE,
    "thinking": OBJECT,
    "tool_choice": OBJECT,
    "service_tier": TEXT,
}

REFUSED: dict[str, str] = {
    **dict.fromkeys(("container", "previous_response_id", "conversation", "background", "file_ids", "id_slot"), STATE),
    **dict.fromkeys(("mcp_servers", "inference_geo", "speed", "fallbacks", "context_management", "prediction", "plugins",
                     "models", "route", "provider", "audio", "modalities", "web_search_options"), PAID),
    **dict.fromkeys(
        ("n", "best_of", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_length", "n_predict",
         "n_cmpl", "use_beam_search"),
        OTHER_MAXIMUM.replace(" or max_completion_tokens", "").replace(
            ", and n for the number of choices", "; there is one choice"
        ),
    ),
}  # fmt: skip
"""Fields that change the price or hold state upstream, and why each is refused. null and false are no request."""

FREE_TIERS = (None, "auto", "standard_only")

_OWN = frozenset({
    "model", "messages", "system", "max_tokens", "metadata", "output_config", "output_format", "cache_control",
    "stop_sequences", "thinking", "tools", "tool_choice", "service_tier", "freehold", *REFUSED,
})  # fmt: skip
"""Fields that a chat doesn't have under that name, or that are no chat's business."""

_READ = _OWN | FIELDS.keys() | {"stream"}

EFFORTS = ((4_096, "low"), (16_384, "medium"))
"""Below so many tokens for thinking, so much effort; above, high."""


class Messages:
    """Anthropic's shape: blocks in and out, blocks in a stream."""

    name = NAME

    def read(self, raw: bytes) -> Ask:
        """Raises InvalidRequest, UnsupportedParameter."""
        body = read_object(raw)
        limit = maximum(body, "max_tokens")
        ask = read_messages(body)
        if limit is None:
            raise wrong("max_tokens", "is missing: say how many tokens the answer may have")
        return Ask(
            kind=Kind.CHAT,
            body=ask,
            model=body["model"],
            stream=flag(body, "stream"),
            max_output=limit,
            store=may_store(body),
            shape=NAME,
            native=body,
        )

    def upstream(self, ask: Ask, model: Model, max_output: int) -> tuple[str, bytes]:
        """What goes upstream: the request itself where the upstream speaks this shape, else the chat."""
        if NAME not in model.shapes or ask.native is None:
            return chat.PATH, chat.upstream_body(ask, model, max_output)
        return PATH, native_body(ask.native, model, max_tokens=max_output)

    def reader(self, ask: Ask, meter: Meter, model_id: str, served: Model, request_id: str) -> Reader:
        writer = Messenger(model_id, request_id, (ask.native or {}).get("stop_sequences") or ())
        if NAME in served.shapes:
            return MessagesReader(meter, model_id, writer)
        return FromChat(StreamReader(meter, model_id), writer)

    def refusal(self, problem: Problem, request_id: str) -> dict[str, Any]:
        return error_of(problem, request_id)


def native_body(native: dict[str, Any], model: Model, **fields: Any) -> bytes:
    """The request under the upstream's name of the model."""
    sent = {**native, "model": model.upstream_id, **fields}
    sent.pop("service_tier", None)
    sent.pop("freehold", None)
    return msgspec.json.encode(sent)


def read_messages(body: dict[str, Any]) -> dict[str, Any]:
    """A request's checks, and the same as a chat. Raises InvalidRequest, UnsupportedParameter."""
    try:
        return _chat(body)
    except RecursionError:
        raise too_deep() from None


def _chat(body: dict[str, Any]) -> dict[str, Any]:
    lowered(body, _READ)
    for name, why in REFUSED.items():
        if body.get(name) not in (None, False):
            raise unsupported(name, why)
    if body.get("service_tier") not in FREE_TIERS:
        raise unsupported("service_tier", PAID)
    check_types(body, FIELDS)
    sent = {name: value for name, value in body.items() if name not in _OWN and value is not None}
    sent["model"] = model_of(body)
    sent["messages"] = _messages(body)
    tools = _tools(body.get("tools"))
    if tools:
        sent["tools"] = tools
        _tool_choice(body.get("tool_choice"), sent)
    if body.get("stop_sequences"):
        sent["stop"] = body["stop_sequences"]
    _metadata(body.get("metadata"), sent)
    _thinking(body, sent)
    if "freehold" in body:
        sent["freehold"] = body["freehold"]
    check_fields(sent)  # what passes as it is must not be a chat's own way to state or price
    return sent


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = a_list(body.get("messages"), "messages") if body.get("messages") is not None else []
    if not given:
        raise wrong("messages", "is not a list with at least one message")
    found: list[dict[str, Any]] = []
    system = body.get("system")
    if system is not None:
        text = _plain(system, "system")
        if text:
            found.append({"role": "system", "content": text})
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        role = one_of(an_object(message, where).get("role"), f"{where}.role", ("user", "assistant", "system"))
        _message(role, message.get("content"), f"{where}.content", found)
    return found


def _message(role: str, content: Any, where: str, found: list[dict[str, Any]]) -> None:
    """Add what one message says: results of tools are messages of their own in a chat."""
    if isinstance(content, str):
        found.append({"role": role, "content": content})
        return
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(a_list(content, where)):
        at = f"{where}[{number}]"
        kind = an_object(block, at).get("type")
        if kind == "tool_use":
            calls.append(_tool_use(block, at))
        elif kind == "tool_result":
            call_id = a_name(block.get("tool_use_id"), f"{at}.tool_use_id")
            result = block.get("content")
            said = "" if result is None else _joined(_parts(result, f"{at}.content"))
            found.append({"role": "tool", "tool_call_id": call_id, "content": said})
        elif kind not in ("thinking", "redacted_thinking"):
            parts += _block(block, at)
        elif kind == "thinking":
            # For the upstream that wrote it; a chat has no place for it.
            a_text(block.get("thinking", ""), f"{at}.thinking")
    if calls:
        found.append({"role": "assistant", "content": _joined(parts) if parts else None, "tool_calls": calls})
    elif parts or not content:
        found.append({"role": role, "content": _joined(parts)})


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts that are all text become one text."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    found: list[dict[str, Any]] = []
    for number, block in enumerate(a_list(content, where)):
        found += _block(an_object(block, f"{where}[{number}]"), f"{where}[{number}]")
    return found


def _plain(content: Any, where: str) -> str:
    """Blocks of text alone."""
    parts = _parts(content, where)
    if any(part["type"] != "text" for part in parts):
        raise wrong(where, "holds more than text")
    return "\n".join(part["text"] for part in parts)


def _block(block: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """A block of content as the parts of a chat."""
    kind = block.get("type")
    if kind == "text":
        return [{"type": "text", "text": a_text(block.get("text"), f"{where}.text")}]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _image(block.get("source"), f"{where}.source")}}]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        head = f"{a_text(block.get('title'), f'{where}.title')}\n{a_text(block.get('source'), f'{where}.source')}"
        return [{"type": "text", "text": head}, *_parts(block.get("content"), f"{where}.content")]
    named = kind[:60] if isinstance(kind, str) else "without a type"
    raise unsupported(where, f"content of type {named} can't be priced before the call; send text or images")


def _image(source: Any, where: str) -> str:
    kind = an_object(source, where).get("type")
    if kind == "base64":
        media = a_name(source.get("media_type"), f"{where}.media_type")
        return f"data:{media};base64,{a_name(source.get('data'), f'{where}.data')}"
    if kind == "url":
        return a_name(source.get("url"), f"{where}.url")
    if kind == "file":
        raise unsupported(where, STATE)
    raise wrong(f"{where}.type", "is neither base64 nor url")


def _document(block: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """A document of text; of any other the tokens can't be told from its bytes."""
    source = an_object(block.get("source"), f"{where}.source")
    kind = source.get("type")
    if kind == "file":
        raise unsupported(f"{where}.source", STATE)
    check_types(block, {"title": TEXT, "context": TEXT}, f"{where}.")
    head = [{"type": "text", "text": block[name]} for name in ("title", "context") if block.get(name)]
    if kind == "text":
        return [*head, {"type": "text", "text": a_text(source.get("data"), f"{where}.source.data")}]
    if kind == "content":
        return [*head, *_parts(source.get("content"), f"{where}.source.content")]
    raise unsupported(f"{where}.source", "only documents of type text or content can be priced before the call")


def _tool_use(block: dict[str, Any], where: str) -> dict[str, Any]:
    name = a_name(block.get("name"), f"{where}.name")
    given = an_object(block.get("input"), f"{where}.input")
    function = {"name": name, "arguments": json.dumps(given, ensure_ascii=False)}
    return {"id": a_name(block.get("id"), f"{where}.id"), "type": "function", "function": function}


def _tools(tools: Any) -> list[dict[str, Any]]:
    """As a chat has them."""
    found = []
    for number, tool in enumerate(a_list(tools, "tools") if tools is not None else ()):
        where = f"tools[{number}]"
        kind = an_object(tool, where).get("type")
        if kind not in (None, "custom"):
            named = kind[:60] if isinstance(kind, str) else "of no such type"
            raise unsupported(where, f"a tool {named} isn't one that the caller defines; send type custom")
        check_types(tool, {"description": TEXT, "strict": FLAG}, f"{where}.")
        function: dict[str, Any] = {"name": a_name(tool.get("name"), f"{where}.name")}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
        function["parameters"] = an_object(tool.get("input_schema"), f"{where}.input_schema")
        found.append({"type": "function", "function": function})
    return found


def _tool_choice(choice: dict[str, Any] | None, sent: dict[str, Any]) -> None:
    if choice is None:
        return
    kind = one_of(choice.get("type"), "tool_choice.type", ("auto", "any", "tool", "none"))
    check_types(choice, {"disable_parallel_tool_use": FLAG}, "tool_choice.")
    if choice.get("disable_parallel_tool_use"):
        sent["parallel_tool_calls"] = False
    if kind != "tool":
        sent["tool_choice"] = "required" if kind == "any" else kind
        return
    name = a_name(choice.get("name"), "tool_choice.name")
    if all(tool["function"]["name"] != name for tool in sent["tools"]):
        raise wrong("tool_choice.name", "is not the name of one of tools")
    sent["tool_choice"] = {"type": "function", "function": {"name": name}}


def _metadata(metadata: dict[str, Any] | None, sent: dict[str, Any]) -> None:
    if metadata is None:
        return
    check_types(metadata, {"user_id": TEXT}, "metadata.")
    if metadata.get("user_id") is not None:
        sent["user"] = metadata["user_id"]
    others = {name: value for name, value in metadata.items() if name != "user_id"}
    if others:
        sent["metadata"] = others


def _thinking(body: dict[str, Any], sent: dict[str, Any]) -> None:
    """How much to think, and the form of the answer."""
    thinking, config = body.get("thinking"), body.get("output_config") or {}
    effort = config.get("effort")
    if effort is not None:
        sent["reasoning_effort"] = a_text(effort, "output_config.effort")
    if thinking is not None:
        kind = one_of(thinking.get("type"), "thinking.type", ("enabled", "disabled", "adaptive"))
        if kind == "enabled":
            budget = thinking.get("budget_tokens")
            if type(budget) is not int or budget < 1:
                raise wrong("thinking.budget_tokens", "is not a whole number from 1")
            if effort is None:
                sent["reasoning_effort"] = next((named for below, named in EFFORTS if budget < below), "high")
    form = config.get("format") or body.get("output_format")
    if form is None:
        return
    where = "output_config.format" if config.get("format") else "output_format"
    one_of(an_object(form, where).get("type"), f"{where}.type", ("json_schema",))
    schema = an_object(form.get("schema"), f"{where}.schema")
    sent["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": schema, "strict": True},
    }


def read_count(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request to count tokens, and the same as a chat. Raises InvalidRequest, UnsupportedParameter."""
    body = read_object(raw)
    for name in ("stream", "max_tokens"):
        if body.get(name) is not None:
            raise InvalidRequest(reason=f"{name} is not a parameter of counting tokens.", param=name)
    return body, read_messages(body)
