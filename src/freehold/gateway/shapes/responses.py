"""`/v1/responses`: reading a request, and saying the same as a chat. Nothing is kept between two requests."""

import json
from typing import Any

import msgspec

from freehold.gateway.asking import (
    FREE_TIERS,
    OTHER_MAXIMUM,
    PAID,
    STATE,
    Ask,
    flag,
    for_upstream,
    lowered,
    may_store,
    model_of,
    read_object,
    too_deep,
)
from freehold.gateway.meter import Meter, StreamReader
from freehold.gateway.shapes import chat
from freehold.gateway.shapes.given import (
    CHOICE,
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
from freehold.gateway.shapes.model import Reader
from freehold.gateway.shapes.responses_native import ResponsesReader
from freehold.gateway.shapes.responses_written import Responder
from freehold.gateway.shapes.translated import FromChat
from freehold.pricing.bounds import text_bound
from freehold.problems import Problem, error_body
from freehold.upstream.model import Kind, Model

NAME = "responses"

FIELDS: dict[str, Check] = {
    "instructions": TEXT,
    "metadata": OBJECT,
    "text": OBJECT,
    "reasoning": OBJECT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "parallel_tool_calls": FLAG,
    "stream": FLAG,
    "store": FLAG,
    "background": FLAG,
    "stream_options": OBJECT,
    "include": TEXTS,
    "max_tool_calls": WHOLE,
    "safety_identifier": TEXT,
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": TEXT,
    "truncation": TEXT,
    "service_tier": TEXT,
    "top_logprobs": WHOLE,
    "user": TEXT,
    "tool_choice": CHOICE,
}

REFUSED: dict[str, str] = {
    **dict.fromkeys(("previous_response_id", "conversation", "background", "prompt", "file_ids", "id_slot"), STATE),
    **dict.fromkeys(
        ("context_management", "audio", "modalities", "web_search_options", "prediction", "plugins", "models", "route", "provider", "speed"),
        PAID,
    ),
    **dict.fromkeys(
        ("n", "best_of", "max_tokens", "max_completion_tokens", "max_new_tokens", "max_length", "n_predict", "n_cmpl",
         "use_beam_search"),
        OTHER_MAXIMUM.replace("max_tokens or max_completion_tokens", "max_output_tokens")
        .replace(", and n for the number of choices", "; there is one choice"),
    ),
}  # fmt: skip
"""Fields that change the price or hold state upstream, and why each is refused. null and false are no request."""

_OWN = frozenset({
    "model", "input", "instructions", "tools", "tool_choice", "text", "reasoning", "max_output_tokens", "include",
    "truncation", "max_tool_calls", "stream_options", "top_logprobs", "store", "service_tier", "freehold", "background",
    "prompt_cache_retention", *REFUSED,
})  # fmt: skip
"""Fields that a chat doesn't have under that name, or that are no chat's business."""

_READ = _OWN | FIELDS.keys()

LOGPROBS = "message.output_text.logprobs"
OWN_TOOLS = ("function", "custom")
MOST_LOGPROBS = 20


class Responses:
    """OpenAI's newer shape: typed items in and out, typed events in a stream."""

    name = NAME

    def read(self, raw: bytes) -> Ask:
        """Raises InvalidRequest, UnsupportedParameter."""
        body = read_object(raw)
        lowered(body, _READ)
        for name, why in REFUSED.items():
            if body.get(name) not in (None, False):
                raise unsupported(name, why)
        if body.get("service_tier") not in FREE_TIERS:
            raise unsupported("service_tier", PAID)
        check_types(body, FIELDS)
        model = model_of(body)
        extra: list[int] = []
        try:
            as_chat = _chat(body, extra)
        except RecursionError:
            raise too_deep() from None
        return Ask(
            kind=Kind.CHAT,
            body=as_chat,
            model=model,
            stream=flag(body, "stream"),
            max_output=maximum(body, "max_output_tokens"),
            store=may_store(body),
            shape=NAME,
            told="input",
            native=body,
            extra_input=sum(extra),
        )

    def upstream(self, ask: Ask, model: Model, max_output: int) -> tuple[str, bytes]:
        """What goes upstream: the request itself where the upstream speaks this shape, else the chat."""
        if NAME not in model.shapes or ask.native is None:
            return chat.PATH, chat.upstream_body(ask, model, max_output)
        sent = for_upstream(ask.native, model.upstream_id)
        sent["max_output_tokens"] = max_output
        sent["store"] = False
        return "responses", msgspec.json.encode(sent)

    def reader(self, ask: Ask, meter: Meter, model_id: str, served: Model, request_id: str) -> Reader:
        asked = ask.native or {}
        writer = Responder(asked, model_id, request_id)
        if NAME in served.shapes:
            return ResponsesReader(meter, model_id, writer)
        return FromChat(StreamReader(meter, model_id), writer)

    def refusal(self, problem: Problem, request_id: str) -> dict[str, Any]:
        return error_body(problem)


def _chat(body: dict[str, Any], extra: list[int]) -> dict[str, Any]:
    """The same request as a chat; to `extra` go the bounds of input that only a native upstream reads."""
    sent = {name: value for name, value in body.items() if name not in _OWN and value is not None}
    sent["model"] = body["model"]
    sent["messages"] = _messages(body, extra)
    tools = _tools(body.get("tools"))
    choice = _tool_choice(body.get("tool_choice"), tools)
    if tools:
        sent["tools"] = [_chat_tool(tool) for tool in _allowed(tools, body.get("tool_choice"))]
        if choice is not None:
            sent["tool_choice"] = choice
    _text(body.get("text"), sent)
    effort = _effort(body.get("reasoning"))
    if effort is not None:
        sent["reasoning_effort"] = effort
    top = body.get("top_logprobs")
    if top is not None and not 0 <= top <= MOST_LOGPROBS:
        raise wrong("top_logprobs", f"is not a whole number from 0 to {MOST_LOGPROBS}")
    if top or LOGPROBS in (body.get("include") or ()):
        sent["logprobs"] = True
        if top:
            sent["top_logprobs"] = top
    if body.get("truncation") is not None:
        one_of(body["truncation"], "truncation", ("auto", "disabled"))
    if "store" in body:
        sent["store"] = False
    if "freehold" in body:
        sent["freehold"] = body["freehold"]
    return sent


def _messages(body: dict[str, Any], extra: list[int]) -> list[dict[str, Any]]:
    given = body.get("input")
    if given is None:
        raise wrong("input", "is missing: send a text, or a list of items")
    found: list[dict[str, Any]] = []
    if body.get("instructions"):
        found.append({"role": "system", "content": body["instructions"]})
    if isinstance(given, str):
        found.append({"role": "user", "content": given})
        return found
    if not isinstance(given, list):
        raise wrong("input", "is neither a text nor a list of items")
    if not given:
        raise wrong("input", "has no items")
    for number, item in enumerate(given):
        where = f"input[{number}]"
        _item(an_object(item, where), where, found, extra)
    if not found:
        raise wrong("input", "has no message")
    return found


def _item(item: dict[str, Any], where: str, found: list[dict[str, Any]], extra: list[int]) -> None:
    """Add one input item to the messages."""
    kind = item.get("type", "message")
    if kind == "message":
        _add(found, _message(item, where))
    elif kind in ("function_call", "custom_tool_call"):
        last = found[-1] if found and found[-1]["role"] == "assistant" else None
        if last is None:
            last = {"role": "assistant", "content": None}
            found.append(last)
        last.setdefault("tool_calls", []).append(_tool_call(item, kind, where))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        call_id = a_name(item.get("call_id"), f"{where}.call_id")
        content = _content(item.get("output"), f"{where}.output")
        found.append({"role": "tool", "tool_call_id": call_id, "content": content})
    elif kind == "reasoning":
        # Opaque to everyone but the upstream that wrote it; a chat has no place for it.
        a_list(item.get("summary", []), f"{where}.summary")
        extra.append(text_bound(json.dumps(item)))
    elif kind == "item_reference":
        raise unsupported(where, f"{STATE} (with store: false clients do so by themselves)")
    else:
        named = kind[:60] if isinstance(kind, str) else "without a type"
        raise unsupported(
            where, f"items of type {named} are not; send messages, function calls, their outputs and reasoning"
        )


def _add(found: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """System messages at the beginning become one: many models' templates take no more."""
    if message["role"] == "system" and len(found) == 1 and found[0]["role"] == "system":
        before, after = found[0]["content"], message["content"]
        if isinstance(before, str) and isinstance(after, str):
            found[0] = {"role": "system", "content": f"{before}\n\n{after}"}
            return
    found.append(message)


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    role = one_of(item.get("role"), f"{where}.role", ("user", "assistant", "system", "developer"))
    content = _content(item.get("content"), f"{where}.content")
    return {"role": "system" if role == "developer" else role, "content": content}


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Text, or the parts of a chat; parts that are all text become one text."""
    if isinstance(content, str):
        return content
    found = [_part(an_object(part, f"{where}[{n}]"), f"{where}[{n}]") for n, part in enumerate(a_list(content, where))]
    if all(part["type"] == "text" for part in found):
        return "".join(part["text"] for part in found)
    return found


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    kind = part.get("type")
    if "file_id" in part and part["file_id"] is not None:
        raise unsupported(f"{where}.file_id", STATE)
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": a_text(part.get("text"), f"{where}.text")}
    if kind == "refusal":
        return {"type": "text", "text": a_text(part.get("refusal"), f"{where}.refusal")}
    if kind == "input_image":
        image: dict[str, Any] = {"url": a_name(part.get("image_url"), f"{where}.image_url")}
        detail = part.get("detail")
        if detail is not None:
            image["detail"] = a_text(detail, f"{where}.detail")
        return {"type": "image_url", "image_url": image}
    named = kind[:60] if isinstance(kind, str) else "without a type"
    raise unsupported(where, f"content of type {named} can't be priced before the call; send input_text or input_image")


def _tool_call(item: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
    call_id = a_name(item.get("call_id"), f"{where}.call_id")
    name = a_name(item.get("name"), f"{where}.name")
    if kind == "custom_tool_call":
        given = a_text(item.get("input"), f"{where}.input")
        return {"id": call_id, "type": "custom", "custom": {"name": name, "input": given}}
    arguments = a_text(item.get("arguments"), f"{where}.arguments")
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tools(tools: Any) -> list[dict[str, Any]]:
    """The request's tools, checked."""
    if tools is None:
        return []
    for number, tool in enumerate(a_list(tools, "tools")):
        where = f"tools[{number}]"
        kind = an_object(tool, where).get("type")
        if kind not in OWN_TOOLS:
            named = kind[:60] if isinstance(kind, str) else "without a type"
            raise unsupported(where, f"a tool {named} isn't one that the caller runs; send type function or custom")
        a_name(tool.get("name"), f"{where}.name")
        check_types(tool, {"description": TEXT, "parameters": OBJECT, "strict": FLAG, "format": OBJECT}, f"{where}.")
    return list(tools)


def _chat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "description", "parameters", "strict") if tool["type"] == "function" else ("name", "description")
    inner = {name: tool[name] for name in names if tool.get(name) is not None}
    if tool["type"] == "custom" and tool.get("format") is not None:
        form = tool["format"]
        grammar = {name: form[name] for name in ("definition", "syntax") if name in form}
        inner["format"] = {"type": "grammar", "grammar": grammar} if form.get("type") == "grammar" else form
    return {"type": tool["type"], tool["type"]: inner}


def _tool_choice(choice: Any, tools: list[dict[str, Any]]) -> Any:
    """As a chat has it."""
    if choice is None:
        return None
    if isinstance(choice, str):
        return one_of(choice, "tool_choice", ("none", "auto", "required"))
    kind = choice.get("type")
    if kind in OWN_TOOLS:
        name = a_name(choice.get("name"), "tool_choice.name")
        if all(tool["name"] != name for tool in tools):
            raise wrong("tool_choice.name", "is not the name of one of tools")
        return {"type": kind, kind: {"name": name}}
    if kind == "allowed_tools":
        a_list(choice.get("tools"), "tool_choice.tools")
        return one_of(choice.get("mode", "auto"), "tool_choice.mode", ("none", "auto", "required"))
    raise unsupported("tool_choice", "it names a tool that the caller doesn't run")


def _allowed(tools: list[dict[str, Any]], choice: Any) -> list[dict[str, Any]]:
    """The tools that `allowed_tools` leaves."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools
    names = {
        a_name(an_object(tool, f"tool_choice.tools[{n}]").get("name"), f"tool_choice.tools[{n}].name")
        for n, tool in enumerate(choice["tools"])
    }
    left = [tool for tool in tools if tool["name"] in names]
    if not left:
        raise wrong("tool_choice.tools", "names none of tools")
    return left


def _text(text: Any, sent: dict[str, Any]) -> None:
    """The form of the answer."""
    if text is None:
        return
    verbosity, form = text.get("verbosity"), text.get("format")
    if verbosity is not None:
        sent["verbosity"] = a_text(verbosity, "text.verbosity")
    if form is None:
        return
    kind = one_of(
        an_object(form, "text.format").get("type"), "text.format.type", ("text", "json_object", "json_schema")
    )
    if kind == "json_object":
        sent["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        schema = {"name": a_name(form.get("name"), "text.format.name")}
        check_types(form, {"schema": OBJECT, "description": TEXT, "strict": FLAG}, "text.format.")
        schema |= {name: form[name] for name in ("description", "schema", "strict") if form.get(name) is not None}
        sent["response_format"] = {"type": "json_schema", "json_schema": schema}


def _effort(reasoning: Any) -> str | None:
    if reasoning is None:
        return None
    check_types(reasoning, {"effort": TEXT, "summary": TEXT, "generate_summary": TEXT}, "reasoning.")
    effort: str | None = reasoning.get("effort")
    return effort
