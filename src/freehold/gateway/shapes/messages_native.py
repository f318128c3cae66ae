"""`/v1/messages` of an upstream that speaks it: passed on as it is, but for names, usage and the end."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from freehold.gateway.meter import BadFrame, Meter, Pass
from freehold.gateway.shapes import used
from freehold.gateway.shapes.messages_written import STOP, Messenger
from freehold.gateway.shapes.translated import event
from freehold.pricing.usage import usage_of_messages
from freehold.problems import Problem

DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""The deltas that carry output, and where they have it."""

_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class MessagesReader:
    """Meters the events of a message. `writer` writes failures."""

    meter: Meter
    model: str
    writer: Messenger
    begun: dict[str, Any] = field(default_factory=dict)
    """The usage that `message_start` told of, but for the output."""
    told: Any = None
    """The usage that the last `message_delta` told of."""
    end: dict[str, Any] = field(default_factory=dict)
    """The last `message_delta`."""
    open: list[int] = field(default_factory=list)
    """Blocks that have begun and not ended."""

    def __post_init__(self) -> None:
        self.meter.read_as = usage_of_messages

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("type") == "error":
            raise BadFrame("its answer is not what was asked for")
        self.meter.see_answer(value.get("usage"), _shown_bytes(value.get("content")))
        return {**value, "model": self.model, "usage": self._usage(self.meter.reported)}

    def see(self, data: bytes, *, counted: bool) -> tuple[Any, Pass]:
        try:
            value = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadFrame("it sent a frame that is not JSON") from None
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or "\n" in kind or "\r" in kind:
            raise BadFrame("it sent a frame that is not an event")
        if kind == "error":
            raise BadFrame("it reported an error in its stream")
        if kind == "message_stop":
            self.meter.finished = True
            return None, Pass.END
        if kind == "message_start":
            message = value.get("message")
            if not isinstance(message, dict):
                raise BadFrame("it began without a message")
            usage = message.get("usage")
            # What it tells of the output is only that it has begun.
            self.begun = {n: v for n, v in usage.items() if n != "output_tokens"} if isinstance(usage, dict) else {}
            value["message"] = {**message, "model": self.model}
        elif kind == "content_block_delta":
            delta = value.get("delta")
            said = delta.get(DELTAS.get(str(delta.get("type")), "")) if isinstance(delta, dict) else None
            if counted and isinstance(said, str) and said:
                self.meter.deltas += 1
                self.meter.characters += len(said)
        elif kind == "message_delta":
            self.told = value.get("usage")
            if isinstance(self.told, dict):
                # It tells the whole so far, but some servers leave out what the beginning told of the input.
                self.meter.reported = self.begun | {n: v for n, v in self.told.items() if v is not None}
            else:
                self.meter.reported = self.told
            self.end = value
            self.meter.finished = True
            return None, Pass.NEVER
        return value, Pass.NOW

    def frame(self, seen: Any, /) -> bytes:
        kind, index = seen["type"], seen.get("index")
        if kind == "content_block_start" and type(index) is int:
            self.open.append(index)
        elif kind == "content_block_stop" and index in self.open:
            self.open.remove(index)
        try:
            return event(kind, msgspec.json.encode(seen))
        except RecursionError:
            raise BadFrame("it sent a frame that is nested too deeply") from None

    def cut(self, choices: int) -> bytes:
        self.end = {"delta": {"stop_reason": "max_tokens", "stop_sequence": None}}
        return b""

    def ending(self) -> bytes:
        if not self.end:
            raise BadFrame("its stream ended without its last event")
        stops = [self.frame({"type": "content_block_stop", "index": index}) for index in list(self.open)]
        ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, **self.end}
        return b"".join(stops) + self.frame({**ended, "usage": self._usage(self.told)})

    def marker(self) -> bytes:
        return STOP

    def failed(self, problem: Problem) -> bytes:
        return self.writer.failed(problem)

    def _usage(self, told: Any) -> Any:
        """The upstream's own, if it is what is charged."""
        usage, estimated = self.meter.reading()
        return used.of_messages(usage) if estimated or told is None else told


def _shown_bytes(content: object) -> int:
    """UTF-8 bytes of what a plain message says."""
    total = 0
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        total += sum(len(text.encode()) for text in (block.get("text"), block.get("thinking")) if isinstance(text, str))
        if block.get("input") is not None:
            total += len(msgspec.json.encode(block["input"]))
    return total
