"""`/v1/responses`, written from what a chat says: the response object, and the events of its stream."""

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from freehold.gateway.meter import BadFrame, Meter
from freehold.gateway.shapes import used
from freehold.gateway.shapes.said import Call, Part, Refusal, Text, Thought, parts
from freehold.gateway.shapes.translated import event
from freehold.gateway.sse import DONE, frame
from freehold.pricing.model import Usage
from freehold.problems import Problem

END = frame(DONE)

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of a chat that was not answered to its end, and what this shape calls them."""


@dataclass(slots=True)
class Item:
    """An output item while it is written."""

    kind: str
    """thought, message, function_call or custom_tool_call."""
    id: str
    index: int
    parts: list[list[str]] = field(default_factory=list)
    """The pieces of each part of its content; of a call, of its arguments."""
    refusals: set[int] = field(default_factory=set)
    """Which parts are refusals."""
    logprobs: list[Any] = field(default_factory=list)
    call_index: int | None = None
    call_id: str = ""
    name: str = ""
    done: bool = False

    def text(self, part: int = -1) -> str:
        return "".join(self.parts[part]) if self.parts else ""

    def content(self) -> list[dict[str, Any]]:
        return [self.part(number) for number in range(len(self.parts))]

    def part(self, number: int) -> dict[str, Any]:
        text = self.text(number)
        if self.kind == "thought":
            return {"type": "summary_text", "text": text}
        if number in self.refusals:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}

    def value(self, status: str) -> dict[str, Any]:
        """As the response shows it."""
        if self.kind == "thought":
            return {"type": "reasoning", "id": self.id, "summary": self.content()}
        if self.kind == "message":
            return {
                "type": "message",
                "id": self.id,
                "status": status,
                "role": "assistant",
                "content": self.content(),
            }
        said = {"input" if self.kind == "custom_tool_call" else "arguments": self.text()}
        return {"type": self.kind, "id": self.id, "call_id": self.call_id, "name": self.name, **said, "status": status}


class Responder:
    """Writes one response."""

    def __init__(self, asked: dict[str, Any], model_id: str, request_id: str) -> None:
        """`asked` is the client's request, much of which the response repeats."""
        self._asked = asked
        self._model = model_id
        self._id = request_id.removeprefix("req_")
        self._created_s = int(time.time())
        self._items: list[Item] = []
        self._reason: str | None = None
        """The chat's finish reason."""
        self._out: list[bytes] = []
        self._number = 0
        """Of the next event."""
        self._begun = False

    # whole answers

    def whole(self, answer: dict[str, Any], meter: Meter) -> dict[str, Any]:
        self._head(answer)
        choice = answer["choices"][0]
        for part in parts(choice, choice.get("message")):
            self._take(part)
        self._reason = _reason(choice)
        self._out.clear()
        return self.response(meter.reading()[0])

    def response(self, usage: Usage | None, *, status: str | None = None, error: Any = None) -> dict[str, Any]:
        """The response object; without `usage` it is still under way."""
        cut = INCOMPLETE.get(self._reason or "")
        if status is None:
            status = "incomplete" if cut else "completed"
        finished = status == "completed"
        asked = self._asked
        return {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": self._created_s,
            "completed_at": int(time.time()) if finished else None,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": {"reason": cut} if status == "incomplete" else None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": asked.get("max_tool_calls"),
            "model": self._model,
            "output": [] if status == "in_progress" else [self._value(item, cut) for item in self._items],
            "parallel_tool_calls": _or(asked.get("parallel_tool_calls"), True),
            "previous_response_id": None,
            "prompt_cache_key": asked.get("prompt_cache_key"),
            "reasoning": _reasoning(asked.get("reasoning")),
            "safety_identifier": asked.get("safety_identifier"),
            "service_tier": "default",
            "store": False,
            "temperature": _or(asked.get("temperature"), 1.0),
            "text": _text(asked.get("text")),
            "tool_choice": _or(asked.get("tool_choice"), "auto"),
            "tools": [_tool(tool) for tool in asked.get("tools") or ()],
            "top_logprobs": _or(asked.get("top_logprobs"), 0),
            "top_p": _or(asked.get("top_p"), 1.0),
            "presence_penalty": _or(asked.get("presence_penalty"), 0.0),
            "frequency_penalty": _or(asked.get("frequency_penalty"), 0.0),
            "truncation": _or(asked.get("truncation"), "disabled"),
            "usage": None if usage is None else used.of_responses(usage),
            "user": asked.get("user"),
            "metadata": _or(asked.get("metadata"), {}),
        }

    def _value(self, item: Item, cut: str | None) -> dict[str, Any]:
        """A cut-off answer ends in its last item."""
        return item.value("incomplete" if cut and item is self._items[-1] else "completed")

    # streams

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        self._begin(chunk)
        for choice in chunk.get("choices") or ():
            if self._reason is not None:
                break
            for part in parts(choice, choice.get("delta")):
                self._take(part)
            self._reason = _reason(choice)
        if self._reason is not None:
            self._close()
        return self.flush()

    def cut(self, choices: int) -> bytes:
        self._begin({})
        if self._reason is None:
            self._reason = "length"
        return b""

    def ending(self, meter: Meter) -> bytes:
        self._begin({})
        self._close()
        return self.flush()

    def marker(self, meter: Meter) -> bytes:
        response = self.response(meter.reading()[0])
        self.event(f"response.{response['status']}", response=response)
        return self.flush() + END

    def failed(self, problem: Problem) -> bytes:
        """OpenAI's SDKs raise at the first of these events; the second ends the stream as the shape wants it."""
        self._begin({})
        said = {"code": problem.code, "message": problem.message, "param": problem.param}
        self.event("error", **said, error={"type": problem.type, **said})
        error = {"code": "server_error", "message": problem.message}
        self.event("response.failed", response=self.response(None, status="failed", error=error))
        return self.flush()

    def event(self, kind: str, **fields: Any) -> None:
        """Write one event."""
        value = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        self._out.append(event(kind, msgspec.json.encode(value)))

    def follow(self, number: int) -> None:
        """The next event comes after one of this number, which somebody else wrote."""
        self._begun = True
        self._number = max(self._number, number + 1)

    def flush(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _head(self, chat: dict[str, Any]) -> None:
        created_s = chat.get("created")
        if type(created_s) is int:
            self._created_s = created_s

    def _begin(self, chat: dict[str, Any]) -> None:
        if self._begun:
            return
        self._begun = True
        self._head(chat)
        self.event("response.created", response=self.response(None, status="in_progress"))
        self.event("response.in_progress", response=self.response(None, status="in_progress"))

    # parts

    def _take(self, part: Part) -> None:
        if isinstance(part, Thought):
            self._thought(part)
        elif isinstance(part, Text):
            self._said(part.text, part.logprobs, refusal=False)
        elif isinstance(part, Refusal):
            self._said(part.text, None, refusal=True)
        else:
            self._call(part)

    def _thought(self, part: Thought) -> None:
        item = self._current("thought")
        at = {"item_id": item.id, "output_index": item.index, "summary_index": 0}
        if not item.parts:
            item.parts.append([])
            self.event("response.reasoning_summary_part.added", **at, part={"type": "summary_text", "text": ""})
        item.parts[0].append(part.text)
        self.event("response.reasoning_summary_text.delta", **at, delta=part.text)

    def _said(self, text: str, logprobs: list[Any] | None, *, refusal: bool) -> None:
        item = self._current("message")
        number = len(item.parts) - 1
        if number < 0 or (number in item.refusals) is not refusal:
            if number >= 0:
                self._part_done(item, number)
            number += 1
            item.parts.append([])
            if refusal:
                item.refusals.add(number)
            self.event(
                "response.content_part.added",
                item_id=item.id,
                output_index=item.index,
                content_index=number,
                part=item.part(number),
            )
        item.parts[number].append(text)
        at = {"item_id": item.id, "output_index": item.index, "content_index": number}
        if refusal:
            self.event("response.refusal.delta", **at, delta=text)
            return
        item.logprobs += logprobs or []
        self.event("response.output_text.delta", **at, delta=text, logprobs=logprobs or [])

    def _call(self, part: Call) -> None:
        last = self._items[-1] if self._items else None
        index = part.index
        if last is None or last.call_index is None or last.done or (index is not None and index != last.call_index):
            if any(item.call_index == index for item in self._items if item.call_index is not None):
                raise BadFrame("it went back to a tool call that it had ended")
            if part.name is None:
                raise BadFrame("it sent a tool call without a name")
            last = self._add("custom_tool_call" if part.custom else "function_call")
            last.call_index = 0 if index is None else index
            last.call_id, last.name = part.id or f"call_{self._id}{last.index:02x}", part.name
            last.parts.append([])
            self._added(last)
        if part.arguments:
            last.parts[0].append(part.arguments)
            kind = "custom_tool_call_input" if part.custom or last.kind == "custom_tool_call" else None
            self.event(
                f"response.{kind or 'function_call_arguments'}.delta",
                item_id=last.id,
                output_index=last.index,
                delta=part.arguments,
            )

    def _current(self, kind: str) -> Item:
        """The last item if it is of this kind and open, else a new one."""
        if self._items and self._items[-1].kind == kind and not self._items[-1].done:
            return self._items[-1]
        item = self._add(kind)
        self._added(item)
        return item

    def _add(self, kind: str) -> Item:
        self._close()
        prefix = {"thought": "rs", "message": "msg", "function_call": "fc"}.get(kind, "ctc")
        index = len(self._items)
        item = Item(kind, f"{prefix}_{self._id}{index:02x}", index)
        self._items.append(item)
        return item

    def _added(self, item: Item) -> None:
        self.event("response.output_item.added", output_index=item.index, item=item.value("in_progress"))

    def _close(self) -> None:
        """End the last item."""
        if not self._items or self._items[-1].done:
            return
        item = self._items[-1]
        item.done = True
        if item.kind == "thought":
            at = {"item_id": item.id, "output_index": item.index, "summary_index": 0}
            self.event("response.reasoning_summary_text.done", **at, text=item.text())
            self.event("response.reasoning_summary_part.done", **at, part=item.part(0))
        elif item.kind == "message":
            self._part_done(item, len(item.parts) - 1)
        elif item.kind == "function_call":
            self.event(
                "response.function_call_arguments.done",
                item_id=item.id,
                output_index=item.index,
                name=item.name,
                arguments=item.text(),
            )
        else:
            self.event(
                "response.custom_tool_call_input.done", item_id=item.id, output_index=item.index, input=item.text()
            )
        cut = INCOMPLETE.get(self._reason or "")
        self.event("response.output_item.done", output_index=item.index, item=self._value(item, cut))

    def _part_done(self, item: Item, number: int) -> None:
        at = {"item_id": item.id, "output_index": item.index, "content_index": number}
        if number in item.refusals:
            self.event("response.refusal.done", **at, refusal=item.text(number))
        else:
            self.event("response.output_text.done", **at, text=item.text(number), logprobs=item.logprobs)
        self.event("response.content_part.done", **at, part=item.part(number))


def _reason(choice: dict[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return None if reason is None else str(reason)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _reasoning(asked: Any) -> dict[str, Any]:
    asked = asked or {}
    return {"effort": asked.get("effort"), "summary": asked.get("summary")}


def _text(asked: Any) -> dict[str, Any]:
    asked = asked or {}
    form = asked.get("format") or {"type": "text"}
    if form.get("type") == "json_schema":
        form = {**form, "description": form.get("description"), "strict": _or(form.get("strict"), False)}
    found = {"format": form}
    if asked.get("verbosity") is not None:
        found["verbosity"] = asked["verbosity"]
    return found


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    return {
        "type": "function",
        "name": tool["name"],
        "description": tool.get("description"),
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict"),
    }
