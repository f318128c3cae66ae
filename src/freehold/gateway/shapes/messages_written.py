"""`/v1/messages`, written from what a chat says: the message, the events of its stream, and errors."""

import re
from collections.abc import Collection
from typing import Any

import msgspec

from freehold.gateway.meter import BadFrame, Meter
from freehold.gateway.shapes import used
from freehold.gateway.shapes.said import Call, Part, Refusal, Text, Thought, parts
from freehold.gateway.shapes.translated import event
from freehold.pricing.model import INPUT, OUTPUT
from freehold.problems import Problem

REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""What a chat's finish reasons are called here."""

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's types of errors by status; every other one is an api_error."""

_NOT_OF_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")

STOP = event("message_stop", b'{"type":"message_stop"}')
PING = event("ping", b'{"type":"ping"}')


def error_of(problem: Problem, request_id: str | None = None) -> dict[str, Any]:
    """Anthropic's error body. `code` and `param` are ours: the same as everywhere on this server."""
    said = {
        "type": ERRORS.get(problem.status, "api_error"),
        "message": problem.message,
        "code": problem.code,
        "param": problem.param,
    }
    return {"type": "error", "error": said, "request_id": request_id}


class Messenger:
    """Writes one message."""

    def __init__(self, model_id: str, request_id: str, stops: Collection[str] = ()) -> None:
        self._model = model_id
        self._request_id = request_id
        self._stops = stops
        self._blocks: list[dict[str, Any]] = []
        self._open: int | str | None = None
        """What the last block is while it isn't ended: thinking, text, or the index of a call."""
        self._ended: set[int] = set()
        """The calls that were ended."""
        self._reason: str | None = None
        self._stop: str | None = None
        """The client's own sequence that stopped the answer."""
        self._refused: list[str] = []
        self._out: list[bytes] = []
        self._begun = False

    # whole answers

    def whole(self, answer: dict[str, Any], meter: Meter) -> dict[str, Any]:
        choice = answer["choices"][0]
        content: list[dict[str, Any]] = []
        for part in parts(choice, choice.get("message")):
            if isinstance(part, Call):
                content.append(self._tool_use(part, len(content), _object(part.arguments)))
            elif isinstance(part, Thought):
                content.append({"type": "thinking", "thinking": part.text, "signature": ""})
            else:
                if isinstance(part, Refusal):
                    self._refused.append(part.text)
                content.append({"type": "text", "text": part.text, "citations": []})
        self._finish(choice)
        return {**self._message(used.of_messages(meter.reading()[0]), content), **self._end()}

    def _message(self, usage: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"msg_{self._request_id.removeprefix('req_')}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": usage,
        }

    def _finish(self, choice: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if reason is None:
            return
        self._reason = REASONS.get(str(reason), "end_turn")
        stop = choice.get("stop_reason")
        if self._reason == "end_turn" and isinstance(stop, str) and stop in self._stops:
            self._reason, self._stop = "stop_sequence", stop

    def _end(self) -> dict[str, Any]:
        reason = self._reason or "end_turn"
        if self._refused and reason == "end_turn":
            reason = "refusal"
        details = None
        if reason == "refusal":
            details = {"type": "refusal", "category": None, "explanation": "".join(self._refused) or None}
        return {"stop_reason": reason, "stop_sequence": self._stop, "stop_details": details}

    # streams

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        self._begin()
        for choice in chunk.get("choices") or ():
            if self._reason is not None:
                break
            for part in parts(choice, choice.get("delta")):
                self._take(part)
            self._finish(choice)
        if self._reason is not None:
            self._close()
        return self.flush()

    def cut(self, choices: int) -> bytes:
        self._begin()
        if self._reason is None:
            self._reason = "max_tokens"
        return b""

    def ending(self, meter: Meter) -> bytes:
        self._begin()
        self._close()
        self._write("message_delta", delta={**self._end(), "container": None}, usage=_last(meter))
        return self.flush()

    def marker(self, meter: Meter) -> bytes:
        return STOP

    def failed(self, problem: Problem) -> bytes:
        return event("error", msgspec.json.encode(error_of(problem, self._request_id)))

    def flush(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _write(self, kind: str, **fields: Any) -> None:
        self._out.append(event(kind, msgspec.json.encode({"type": kind, **fields})))

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        # What the input came to is known at the end: `message_delta` says it.
        usage = used.of_messages({INPUT: 0, OUTPUT: 0})
        self._write("message_start", message=self._message(usage, []))
        self._out.append(PING)

    def _take(self, part: Part) -> None:
        if isinstance(part, Call):
            self._call(part)
        elif isinstance(part, Thought):
            self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._delta({"type": "thinking_delta", "thinking": part.text})
        else:
            if isinstance(part, Refusal):
                self._refused.append(part.text)
            if isinstance(part, Text) and not part.text:
                return
            self._start("text", {"type": "text", "text": "", "citations": []})
            self._delta({"type": "text_delta", "text": part.text})

    def _call(self, part: Call) -> None:
        index = part.index if part.index is not None else self._open if isinstance(self._open, int) else 0
        if self._open != index:
            if index in self._ended:
                raise BadFrame("it went back to a tool call that it had ended")
            if part.name is None:
                raise BadFrame("it sent a tool call without a name")
            self._start(index, self._tool_use(part, len(self._blocks), {}))
        if part.arguments:
            self._delta({"type": "input_json_delta", "partial_json": part.arguments})

    def _tool_use(self, part: Call, number: int, given: dict[str, Any]) -> dict[str, Any]:
        if part.name is None:
            raise BadFrame("it sent a tool call without a name")
        call_id = part.id or f"toolu_{self._request_id.removeprefix('req_')}{number:02x}"
        return {
            "type": "tool_use",
            "id": _NOT_OF_AN_ID.sub("_", call_id),
            "name": part.name,
            "input": given,
            "caller": {"type": "direct"},
        }

    def _start(self, what: int | str, block: dict[str, Any]) -> None:
        """Begin a block, unless the last one is this one."""
        if self._open == what:
            return
        self._close()
        self._open = what
        self._write("content_block_start", index=len(self._blocks), content_block=block)
        self._blocks.append(block)

    def _delta(self, delta: dict[str, Any]) -> None:
        self._write("content_block_delta", index=len(self._blocks) - 1, delta=delta)

    def _close(self) -> None:
        if self._open is None:
            return
        if self._open == "thinking":
            self._delta({"type": "signature_delta", "signature": ""})
        if isinstance(self._open, int):
            self._ended.add(self._open)
        self._open = None
        self._write("content_block_stop", index=len(self._blocks) - 1)


def _last(meter: Meter) -> dict[str, Any]:
    """The usage of `message_delta`."""
    found = used.of_messages(meter.reading()[0])
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
             "output_tokens_details", "server_tool_use")  # fmt: skip
    return {name: found[name] for name in names}


def _object(arguments: str) -> dict[str, Any]:
    """A call's arguments, which ought to be a JSON object. What isn't one is given whole, under `arguments`."""
    try:
        value = msgspec.json.decode(arguments) if arguments else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}
