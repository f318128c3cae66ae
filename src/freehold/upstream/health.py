"""A circuit breaker, as values. Times are monotonic seconds."""

from dataclasses import dataclass
from enum import StrEnum

from freehold.upstream.model import Terms

PROBE_S = 600.0
"""A probe of which nothing was heard for this long is given up, and another call tries."""


class State(StrEnum):
    CLOSED = "closed"
    """It is asked."""
    OPEN = "open"
    """It failed too often in a row, and is asked by nobody."""
    HALF_OPEN = "half_open"
    """It may be tried by one call."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one upstream: how it has answered lately."""

    failures: int = 0
    """In a row."""
    open_until_s: float | None = None
    probe_until_s: float | None = None
    """Somebody is trying it."""

    def state(self, now_s: float) -> State:
        if self.open_until_s is None:
            return State.CLOSED
        return State.OPEN if now_s < self.open_until_s else State.HALF_OPEN

    def able(self, now_s: float) -> bool:
        """Whether one more call may be sent."""
        if self.open_until_s is None:
            return True
        return now_s >= self.open_until_s and (self.probe_until_s is None or now_s >= self.probe_until_s)

    def asked(self, now_s: float) -> "Health":
        """A call was sent: with an open circuit, it is the probe."""
        if self.open_until_s is None:
            return self
        return Health(self.failures, self.open_until_s, now_s + PROBE_S)

    def answered(self) -> "Health":
        """It took a call: the circuit closes."""
        return HEALTHY

    def failed(self, now_s: float, terms: Terms) -> "Health":
        """It didn't. A probe's failure, and the last of `terms.failures` in a row, open the circuit anew."""
        failures = self.failures + 1
        if self.open_until_s is None and failures < terms.failures:
            return Health(failures)
        return Health(failures, now_s + terms.open_s)

    def unknown(self) -> "Health":
        """A call ended without a sign of either: a probe may be tried by the next."""
        return self if self.probe_until_s is None else Health(self.failures, self.open_until_s)

    def wait_s(self, now_s: float) -> float:
        """How long until a call may be sent again; 0 when one may now."""
        if self.able(now_s):
            return 0.0
        until = max(self.open_until_s or now_s, self.probe_until_s or now_s)
        return min(until - now_s, 1.0) if self.probe_until_s is not None else until - now_s


HEALTHY = Health()
