"""What the inference door is told about where it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Sizes in bytes or tokens, times in seconds."""

    default_output_tokens: int = 4_096
    """Most output of a call that names no maximum."""
    least_output_tokens: int = 256
    """A call that names no maximum is refused when not even this much can be paid."""
    body_limit_bytes: int = 16 * 1024 * 1024
    answer_limit_bytes: int = 64 * 1024 * 1024
    """Most of a plain answer that is read from an upstream."""
    body_patience_s: float = 30.0
    """A client that sends no part of its body for this long is refused."""
    send_patience_s: float = 30.0
    """A client that accepts no byte for this long has left."""
    read_on_s: float = 2.0
    """How long an upstream is read on for its usage after the client has left."""
    most_attempts: int = 3
    """How many upstreams are asked for one call."""
    settle_patience_s: float = 5.0
    """How long an answer waits for its settlement to be durable."""
    deadline_s: float = 600.0
    """The longest a call may hold credit; then the worker itself ends it."""
