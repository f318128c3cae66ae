"""`/v1/responses` of an upstream that speaks it: passed on as it is, but for names, usage and the end."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from freehold.gateway.meter import BadFrame, Meter, Pass
from freehold.gateway.shapes import used
from freehold.gateway.shapes.responses_written import END, Responder
from freehold.gateway.shapes.translated import event
from freehold.pricing.usage import usage_of_responses
from freehold.problems import Problem

TERMINAL = ("response.completed", "response.incomplete", "response.failed")

_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class ResponsesReader:
    """Meters typed events. `writer` writes what the upstream doesn't: failures, and the end of a stream that is cut."""

    meter: Meter
    model: str
    writer: Responder
    last: dict[str, Any] | None = None
    """The terminal event."""
    begun: dict[str, Any] | None = None
    """The response as it began."""
    items: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Output items as they began or ended, by their index."""
    said: dict[int, list[str]] = field(default_factory=dict)
    """What the items under way have said."""
    is_cut: bool = False

    def __post_init__(self) -> None:
        self.meter.read_as = usage_of_responses

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("status") == "failed":
            raise BadFrame("it reported that the response failed")
        self.meter.see_answer(value.get("usage"), _shown_bytes(value.get("output")))
        return self._shown(value)

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
        number = value.get("sequence_number")
        if type(number) is int:
            self.writer.follow(number)
        response = value.get("response")
        if kind in TERMINAL:
            if not isinstance(response, dict):
                raise BadFrame("it ended without a response")
            if kind != "response.failed" or self.meter.deltas:  # what delivered nothing costs nothing
                self.meter.reported = response.get("usage")
            if kind == "response.failed":
                raise BadFrame("it reported that the response failed")
            self.meter.finished = True
            self.last = value
            return value, Pass.END
        if isinstance(response, dict):
            self.begun = response
            value["response"] = self._named(response)
        elif kind.endswith(".delta"):
            delta = value.get("delta")
            if counted and isinstance(delta, str) and delta:
                self.meter.deltas += 1
                self.meter.characters += len(delta)
        elif kind in ("response.output_item.added", "response.output_item.done"):
            index, item = value.get("output_index"), value.get("item")
            if type(index) is not int or not isinstance(item, dict):
                raise BadFrame("it sent an output item without its place")
        return value, Pass.NOW

    def frame(self, seen: Any, /) -> bytes:
        index = seen.get("output_index")
        if type(index) is int:
            if "item" in seen:
                self.items[index] = seen["item"]
                self.said[index] = []
            elif seen["type"] in ("response.output_text.delta", "response.function_call_arguments.delta"):
                self.said.setdefault(index, []).append(str(seen.get("delta")))
        try:
            return event(seen["type"], msgspec.json.encode(seen))
        except RecursionError:
            raise BadFrame("it sent a frame that is nested too deeply") from None

    def cut(self, choices: int) -> bytes:
        self.is_cut = True
        return b""

    def ending(self) -> bytes:
        if not self.is_cut:
            if self.last is None:
                raise BadFrame("its stream ended without its last event")
            return b""
        for index, item in self.items.items():
            if item.get("status") == "in_progress":
                self._end(index, item)
        return self.writer.flush()

    def marker(self) -> bytes:
        if self.last is not None and not self.is_cut:
            return self.frame({**self.last, "response": self._shown(self.last["response"])}) + END
        # Cut off: what had begun is as much as there will be.
        begun = self.begun or {}
        response: dict[str, Any] = {
            **self.writer.response(self.meter.reading()[0], status="incomplete"),
            **{name: begun[name] for name in ("id", "created_at") if name in begun},
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [self.items[index] for index in sorted(self.items)],
        }
        self.writer.event("response.incomplete", response=response)
        return self.writer.flush() + END

    def failed(self, problem: Problem) -> bytes:
        return self.writer.failed(problem)

    def _end(self, index: int, item: dict[str, Any]) -> None:
        """End an output item that is cut off."""
        text = "".join(self.said.get(index, ()))
        at = {"item_id": item.get("id"), "output_index": index}
        ended = {**item, "status": "incomplete"}
        if item.get("type") == "message":
            part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            ended["content"] = [part]
            self.writer.event("response.output_text.done", **at, content_index=0, text=text, logprobs=[])
            self.writer.event("response.content_part.done", **at, content_index=0, part=part)
        elif item.get("type") == "function_call":
            ended["arguments"] = text
            self.writer.event("response.function_call_arguments.done", **at, name=item.get("name"), arguments=text)
        self.items[index] = ended
        self.writer.event("response.output_item.done", output_index=index, item=ended)

    def _named(self, response: dict[str, Any]) -> dict[str, Any]:
        return {**response, "model": self.model}

    def _shown(self, response: dict[str, Any]) -> dict[str, Any]:
        """With the public name of the model, and the usage that is charged."""
        usage, estimated = self.meter.reading()
        return {**self._named(response), "usage": used.of_responses(usage) if estimated else self.meter.reported}


def _shown_bytes(output: object) -> int:
    """UTF-8 bytes of what a plain response says."""
    total = 0
    for item in output if isinstance(output, list) else ():
        if not isinstance(item, dict):
            continue
        for name in ("content", "summary"):
            parts = item.get(name)
            for part in parts if isinstance(parts, list) else ():
                texts = [part.get("text"), part.get("refusal")] if isinstance(part, dict) else []
                total += sum(len(text.encode()) for text in texts if isinstance(text, str))
        for name in ("arguments", "input"):
            if isinstance(item.get(name), str):
                total += len(item[name].encode())
    return total
