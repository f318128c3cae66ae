"""Who is asked, and who next when that one takes no call.

Another upstream is asked only before the first byte, and only where the last one certainly ran nothing that anybody
waits for: no connection, 429, 5xx, or a refusal that is about the operator's own account there. After silence, or a
connection that ended without an answer, the call may have run, so nobody else is asked.
"""

import math
from collections.abc import Callable, Sequence

from freehold.clock import Clock
from freehold.gateway import refused
from freehold.gateway.problems import NoUpstream
from freehold.ledger.model import Attempt
from freehold.money import MAX_NANO
from freehold.problems import Problem
from freehold.upstream.catalogue import Route, Serving
from freehold.upstream.model import Answer, Kind, Model, UpstreamCall, UpstreamError, UpstreamUnreachable

OPERATORS = (401, 402, 403, 404)
"""Statuses that are about the operator's account at an upstream: another upstream may take the call."""


class Forward:
    """One call's way to an upstream."""

    def __init__(self, serving: Serving, kind: Kind, clock: Clock, *, account_id: int, most: int) -> None:
        """`most`: how many upstreams are asked at most."""
        self.route: Route | None = None
        """Who was asked last."""
        self._serving = serving
        self._kind = kind
        self._clock = clock
        self._account_id = account_id
        self._most = most
        self._answering = False
        self._tried: list[Route] = []
        self._failed: list[Attempt] = []

    async def send(self, call: Callable[[Model], UpstreamCall], gone: Callable[[], bool]) -> Answer:
        """The answer of the first upstream that takes the call, its head read; `call` makes the request for one.

        Raises what the last one failed with: UpstreamError, or Refused when it certainly ran nothing. Nobody else is
        asked for a client who is `gone`.
        """
        failure: UpstreamError | None = None
        while True:
            now_s = self._clock.monotonic()
            route = None if len(self._tried) == self._most else self._serving.next(self._tried, now_s)
            if route is None:
                raise failure or refused.Refused(self._nobody(now_s))
            if failure is not None and gone():
                raise failure
            self._begin(route, now_s)
            try:
                answer = await route.upstream.send(call(route.model))
                if 200 <= answer.status < 300:
                    route.standing.accepted()
                    self._answering = True
                    return answer
                failure = await self._refusal(answer, route)
                outcome, again = f"status {answer.status}", _again(answer.status, failure)
            except UpstreamError as error:
                if isinstance(error, refused.Refused):
                    raise
                failure, outcome, again = error, "unreachable", isinstance(error, UpstreamUnreachable)
                self._fail(connected=not again)
            if not again:
                raise failure
            self._failed.append(Attempt(route.upstream.name, 0, outcome))

    def broke(self) -> None:
        """The answer that `send` gave did not come whole, by its upstream's fault."""
        if self._answering:
            self._fail()

    def end(self, *, whole: bool) -> None:
        """The call is over; `whole`: the answer came to its end."""
        if self.route is not None:
            if whole:
                self.route.standing.answered()
            self.route.standing.end()
            self.route = None

    def attempts(self, outcome: str, input_tokens: int, output_tokens: int) -> Sequence[Attempt]:
        """All tries in order, the last of which came to so many tokens."""
        if not self._tried:
            return ()
        last = self._tried[-1]
        cost_nano = last.model.cost_nano_up(input_tokens=input_tokens, output_tokens=output_tokens)
        return (*self._failed, Attempt(last.upstream.name, min(cost_nano, MAX_NANO), outcome))

    def _fail(self, *, connected: bool = True) -> None:
        if self.route is not None:
            self.route.standing.failed(self._clock.monotonic(), self._account_id if connected else None)

    def _begin(self, route: Route, now_s: float) -> None:
        self.end(whole=False)
        self.route = route
        self._tried.append(route)
        route.standing.begin(now_s)

    async def _refusal(self, answer: Answer, route: Route) -> refused.Refused:
        """What an answer that isn't a success means for the caller, and for the upstream's standing."""
        try:
            problem = await refused.problem_of(answer, route.model, self._kind)
        finally:
            await answer.close()
        if answer.status >= 500 and _fault(problem):
            self._fail()
        elif answer.status not in OPERATORS:
            route.standing.answered()
        return refused.Refused(problem)

    def _nobody(self, now_s: float) -> Problem:
        full = any(route.standing.full() for route in self._serving.routes)
        return NoUpstream(
            model=self._serving.model.id,
            reason="all are busy" if full else "each has failed several times in a row",
            retry_after_s=max(1, math.ceil(self._serving.wait_s(now_s))),
        )


def _again(status: int, failure: refused.Refused) -> bool:
    """Whether another upstream may take the call that this one refused."""
    return status in OPERATORS or status == 429 or (status >= 500 and _fault(failure.problem))


def _fault(problem: Problem) -> bool:
    """It is the upstream's, not the request's: some answer 500 to a prompt that is too long."""
    return problem.status >= 500
