"""What a call came to: the upstream's usage where it can be believed, else the stated rule.

The rule: input = a quarter of the request's text in bytes, rounded up, never above the bound that was held; output =
the content deltas received before the client left or the upstream died, or, of a whole answer, a quarter of its
bytes; never above the maximum that was held.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import msgspec

from freehold.pricing.model import INPUT, OUTPUT, Usage, input_tokens, output_tokens
from freehold.pricing.usage import usage_of

_decode = msgspec.json.Decoder().decode

SHOWN = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "audio")
"""The fields of a message or a delta that carry output."""


class BadFrame(Exception):
    """A frame that isn't a chunk of a chat: the text says what it is."""


class Pass(Enum):
    """When a frame may leave."""

    NOW = "now"
    SETTLED = "settled"
    """Once the settlement is durable: it tells the client that the answer is whole."""
    END = "end"
    """It was the last: the reader's marker says so after the settlement."""
    NEVER = "never"


class Meter:
    """Counts one call."""

    def __init__(self, *, estimated_input: Callable[[], int], bound: int, most_output: int, embedding: bool) -> None:
        """`bound` and `most_output` are the tokens that were held; `estimated_input` is asked only when needed."""
        self.deltas = 0
        """Content deltas received while the client was there."""
        self.reported: Any = None
        """The last usage object that the upstream sent, as it stands."""
        self.characters = 0
        """Of the text in those."""
        self.finished = False
        """The upstream said that a choice is complete."""
        self._shown_bytes = 0
        self._read: tuple[Any, Usage | None] | None = None
        """What was reported when it was last asked about, and what it was read as."""
        self._estimated_input = estimated_input
        self._bound = bound
        self._most_output = most_output
        self.read_as: Callable[[object], Usage | None] = partial(usage_of, embedding=True) if embedding else usage_of
        """How `reported` is read: by the shape that the upstream speaks."""

    def delivered(self) -> bool:
        """Whether anything that costs came back."""
        return self.deltas > 0 or self.usage() is not None

    def usage(self) -> Usage | None:
        """What the upstream reported; None when it reported nothing that can be believed."""
        if self._read is None or self._read[0] is not self.reported:
            self._read = (self.reported, self.read_as(self.reported))
        return self._read[1]

    def seen_output(self) -> int:
        """Output tokens so far, as far as can be told from a stream: some servers put several into one frame."""
        return max(self.deltas, self.characters // 4)

    def reading(self) -> tuple[Usage, bool]:
        """The usage to charge, and whether it is estimated."""
        usage = self.usage()
        if usage is not None:
            return usage, False
        output = max(self.deltas, -(-self._shown_bytes // 4))
        found = {INPUT: min(self._estimated_input(), self._bound), OUTPUT: min(output, self._most_output)}
        return found, True

    def see_answer(self, reported: object, shown_bytes: int) -> None:
        """A whole answer."""
        self.reported = reported
        self._shown_bytes = shown_bytes


@dataclass(slots=True)
class StreamReader:
    """Reads a stream's frames for the meter and makes of each what the client may see.

    The upstream's name of the model becomes the public one, and usage is taken out: it leaves at the end, and only to
    a client that asked.
    """

    meter: Meter
    model: str
    head: dict[str, Any] | None = None
    """id, object, created and model of this stream's frames."""
    complete: set[int] = field(default_factory=set)
    """The choices that the upstream has finished."""
    chunk: dict[str, Any] = field(default_factory=dict)
    """The last frame, read."""

    def see(self, data: bytes, *, counted: bool) -> tuple[bytes, Pass]:
        """One frame; `counted` says that the client is still there. Raises BadFrame."""
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadFrame("it sent a frame that is not JSON") from None
        if not isinstance(chunk, dict):
            raise BadFrame("it sent a frame that is not an object")
        if chunk.get("error") is not None:
            raise BadFrame("it reported an error in its stream")
        self.chunk = chunk
        changed = b"\n" in data
        if "usage" in chunk:
            reported = chunk.pop("usage")
            changed = True
            if reported is not None:
                self.meter.reported = reported
        if "model" in chunk and chunk["model"] != self.model:
            chunk["model"] = self.model
            changed = True
        if self.head is None:
            self.head = {name: chunk[name] for name in ("id", "object", "created", "model") if name in chunk}
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return b"", Pass.NEVER
        finishing = self._read(choices, counted)
        try:
            shown = msgspec.json.encode(chunk) if changed else data
        except RecursionError:
            raise BadFrame("it sent a frame that is nested too deeply") from None
        return shown, Pass.SETTLED if finishing else Pass.NOW

    def usage_frame(self) -> bytes:
        """The usage frame of a client that asked: what is charged."""
        shown = shown_usage(self.meter)
        return msgspec.json.encode({**(self.head or {}), "choices": [], "usage": shown})

    def cut_frames(self, choices: int) -> list[bytes]:
        """What ends each choice that is cut off for want of credit."""
        return [
            msgspec.json.encode(
                {**(self.head or {}), "choices": [{"index": index, "delta": {}, "finish_reason": "length"}]}
            )
            for index in range(choices)
            if index not in self.complete
        ]

    def _read(self, choices: list[Any], counted: bool) -> bool:
        finishing = False
        for choice in choices:
            if not isinstance(choice, dict):
                raise BadFrame("it sent a choice that is not an object")
            delta = choice.get("delta")
            if counted and isinstance(delta, dict):
                said = [value for value in map(delta.get, SHOWN) if value]
                if said:
                    self.meter.deltas += 1
                    self.meter.characters += sum(len(value) for value in said if isinstance(value, str))
            if choice.get("finish_reason") is not None:
                finishing = self.meter.finished = True
                index = choice.get("index")
                if isinstance(index, int):
                    self.complete.add(index)
        return finishing


def shown_usage(meter: Meter) -> Any:
    """The usage object of an answer: the upstream's own, or in its shape what the rule came to."""
    usage, estimated = meter.reading()
    if not estimated:
        return meter.reported
    prompt, output = input_tokens(usage), output_tokens(usage)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
