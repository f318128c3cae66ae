"""What a shape is: one API's way to ask a model and to be answered. A call is one piece of code for all of them."""

from typing import TYPE_CHECKING, Any, Protocol

from freehold.gateway.meter import Meter, Pass
from freehold.problems import Problem
from freehold.upstream.model import Model

if TYPE_CHECKING:
    from freehold.gateway.asking import Ask


class Reader(Protocol):
    """Reads one upstream's answer for the meter, and makes of it what the client gets."""

    def whole(self, value: dict[str, Any]) -> dict[str, Any]:
        """A plain answer: metered, and as the client sees it. Raises BadFrame."""
        ...

    def see(self, data: bytes, *, counted: bool) -> tuple[Any, Pass]:
        """The data of one of a stream's frames: metered; `counted` says that the client is still there.

        What comes back is for `frame`, or is dropped when it can't be paid. Raises BadFrame.
        """
        ...

    def frame(self, seen: Any, /) -> bytes:
        """What `see` gave, as the client's frames."""
        ...

    def cut(self, choices: int) -> bytes:
        """What ends a stream that is cut off for want of credit."""
        ...

    def ending(self) -> bytes:
        """The last frames before the cost: asked for once, after everything was seen. Raises BadFrame."""
        ...

    def marker(self) -> bytes:
        """What says that the stream is whole, after the cost."""
        ...

    def failed(self, problem: Problem) -> bytes:
        """What tells of a failure in a stream that has begun."""
        ...


class Shape(Protocol):
    """One API."""

    name: str
    """As upstreams' `shapes` name it."""

    def read(self, raw: bytes) -> "Ask":
        """A request. Raises InvalidRequest, UnsupportedParameter, RequestTooLarge."""
        ...

    def upstream(self, ask: "Ask", model: Model, max_output: int) -> tuple[str, bytes]:
        """Path, below an upstream's base URL, and body of what `model`'s upstream is sent. Raises Problem."""
        ...

    def reader(self, ask: "Ask", meter: Meter, model_id: str, served: Model, request_id: str) -> Reader:
        """For the answer of the upstream that serves the model as `served`; callers know it as `model_id`."""
        ...

    def refusal(self, problem: Problem, request_id: str) -> dict[str, Any]:
        """The body of a refusal."""
        ...
