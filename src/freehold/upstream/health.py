"""A circuit breaker, as values. Times are monotonic seconds.

A request may be what an upstream stumbles over, so one account's requests alone never close an upstream to others:
the circuit opens only when failures have come from two accounts, or without any request, when there was no connection.
"""

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
    blaming: frozenset[int | None] = frozenset()
    """The accounts whose calls have failed since it last answered or was left alone, two at most; None: there was no
    connection, which is nobody's request's fault."""

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
        return Health(self.failures, self.open_until_s, now_s + PROBE_S, self.blaming)

    def answered(self) -> "Health":
        """It took a call: the circuit closes."""
        return HEALTHY

    def failed(self, now_s: float, terms: Terms, account_id: int | None) -> "Health":
        """It didn't take a call of this account; None: there was no connection.

        The last of `terms.failures` in a row opens the circuit, and a probe's failure opens it anew; unless all of them
        are one account's, when the next call may try.
        """
        failures = self.failures + 1
        blaming = self.blaming if len(self.blaming) > 1 else self.blaming | {account_id}
        proven = len(blaming) > 1 or None in blaming
        if not proven or (self.open_until_s is None and failures < terms.failures):
            return Health(failures, self.open_until_s, blaming=blaming)
        return Health(failures, now_s + terms.open_s)

    def unknown(self) -> "Health":
        """A call ended without a sign of either: a probe may be tried by the next."""
        if self.probe_until_s is None:
            return self
        return Health(self.failures, self.open_until_s, blaming=self.blaming)

    def wait_s(self, now_s: float) -> float:
        """How long until a call may be sent again; 0 when one may now."""
        if self.able(now_s):
            return 0.0
        until = max(self.open_until_s or now_s, self.probe_until_s or now_s)
        return min(until - now_s, 1.0) if self.probe_until_s is not None else until - now_s


HEALTHY = Health()
