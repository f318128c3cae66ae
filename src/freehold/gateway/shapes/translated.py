"""An upstream's chat, read for a client of another shape."""

from dataclasses import dataclass
from typing import Any, Protocol

from freehold.gateway.meter import BadFrame, Meter, Pass, StreamReader
from freehold.gateway.shapes.chat import shown_bytes
from freehold.problems import Problem


class Writer(Protocol):
    """Writes one shape's answer from what a chat says."""

    def whole(self, answer: dict[str, Any], meter: Meter) -> dict[str, Any]:
        """A plain answer. Raises BadFrame."""
        ...

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """The frames for one chunk of a stream, the head before the first. Raises BadFrame."""
        ...

    def cut(self, choices: int) -> bytes:
        """The frames that end a stream for want of credit."""
        ...

    def ending(self, meter: Meter) -> bytes:
        """The last frames before the cost."""
        ...

    def marker(self, meter: Meter) -> bytes:
        """The frames after the cost."""
        ...

    def failed(self, problem: Problem) -> bytes:
        """The frames that tell of a failure."""
        ...


@dataclass(slots=True)
class FromChat:
    """Meters as a chat, and leaves the words to `writer`."""

    chat: StreamReader
    writer: Writer

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        self.chat.meter.see_answer(value.get("usage"), shown_bytes(value))
        choices = value.get("choices")
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
            raise BadFrame("its answer has no choices")
        return self.writer.whole(value, self.chat.meter)

    def see(self, data: bytes, *, counted: bool) -> tuple[Any, Pass]:
        _, leave = self.chat.see(data, counted=counted)
        return self.chat.chunk, leave

    def frame(self, seen: Any, /) -> bytes:
        try:
            return self.writer.chunk(seen)
        except RecursionError:
            raise BadFrame("it sent a frame that is nested too deeply") from None

    def cut(self, choices: int) -> bytes:
        return self.writer.cut(choices)

    def ending(self) -> bytes:
        return self.writer.ending(self.chat.meter)

    def marker(self) -> bytes:
        return self.writer.marker(self.chat.meter)

    def failed(self, problem: Problem) -> bytes:
        return self.writer.failed(problem)


def event(name: str, data: bytes) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
