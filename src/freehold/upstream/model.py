"""Where models run, as values: what an upstream offers, what is sent to it, what comes back."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from freehold.money import cost_nano_up


class Kind(StrEnum):
    CHAT = "chat"
    EMBEDDING = "embedding"


CHAT = "chat"
SHAPES = (CHAT, "completions", "responses", "messages")
"""The APIs that an upstream's chat model may speak: below its base URL, `chat/completions` and so on."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as one upstream serves it. Sizes in tokens."""

    id: str
    """The name callers use."""
    kind: Kind
    context_tokens: int
    max_output_tokens: int
    upstream_id: str
    """The name that the upstream knows it by."""
    hidden_output: bool = False
    """True when it bills output that it doesn't show (reasoning)."""
    owned_by: str = "freehold"
    image_tokens: int = 0
    """The most input tokens that one image costs; 0 when it takes no images."""
    input_cost_nano: int = 0
    """What the operator pays this upstream for a million input tokens, cached or not; nano-USD."""
    output_cost_nano: int = 0
    """And for a million output tokens."""
    shapes: frozenset[str] = frozenset({CHAT})
    """The APIs that the upstream itself speaks for it; every other one is translated to and from chat."""

    def cost_nano_up(self, *, input_tokens: int, output_tokens: int) -> int:
        """What the operator owes the upstream for a call, rounded up once to 1 nano-USD."""
        return cost_nano_up(((input_tokens, self.input_cost_nano), (output_tokens, self.output_cost_nano)))


@dataclass(frozen=True, slots=True)
class Terms:
    """When and how far an upstream is used."""

    priority: int = 0
    """Lower is asked first; the others only when no upstream of a lower one can take the call."""
    weight: int = 1
    """Its share of the calls among upstreams of one priority."""
    max_concurrency: int | None = None
    """Calls at once, of one worker."""
    failures: int = 5
    """After so many failures in a row its circuit opens: it is asked no more for `open_s`."""
    open_s: float = 10.0
    """Then one call tries it, while the others still go elsewhere."""


class UpstreamCall(Struct, frozen=True):
    """One request to an upstream. `path` is below its base URL, such as `chat/completions`; `body` is JSON."""

    path: str
    model: Model
    body: bytes
    stream: bool
    request_id: str


class UpstreamError(Exception):
    """An upstream failed. `before_first_byte` says that nothing came back at all; the text never holds a secret."""

    def __init__(self, reason: str, *, before_first_byte: bool) -> None:
        super().__init__(reason)
        self.before_first_byte = before_first_byte


class UpstreamUnreachable(UpstreamError):
    """No connection: the call certainly did not run."""


class UpstreamTimedOut(UpstreamError):
    """It took too long; the call may have run."""


class UpstreamBroke(UpstreamError):
    """The connection ended in the middle of the answer."""


class Answer(Protocol):
    """An upstream's response, headers read, body not yet."""

    status: int
    content_type: str
    retry_after_s: int | None
    """What the upstream asked for with its 429 or 503, in whole seconds."""

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises UpstreamBroke, UpstreamTimedOut, and UpstreamBroke above `limit_bytes`."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, unframed. Raises UpstreamBroke, UpstreamTimedOut."""
        ...

    async def close(self) -> None:
        """Stop reading and free the connection. Safe to call twice."""
        ...


class Upstream(Protocol):
    name: str
    models: Mapping[str, Model]
    terms: Terms

    async def send(self, call: UpstreamCall) -> Answer:
        """Send and wait for the response's headers. Raises UpstreamUnreachable, UpstreamTimedOut, UpstreamBroke."""
        ...

    async def close(self) -> None: ...
