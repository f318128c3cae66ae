"""Where models run, as values: what an upstream offers, what is sent to it, what comes back."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    CHAT = "chat"
    EMBEDDING = "embedding"


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


@dataclass(frozen=True, slots=True)
class UpstreamCall:
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

    async def send(self, call: UpstreamCall) -> Answer:
        """Send and wait for the response's headers. Raises UpstreamUnreachable, UpstreamTimedOut, UpstreamBroke."""
        ...

    async def close(self) -> None: ...
