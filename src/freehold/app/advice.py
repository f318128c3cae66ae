"""What the account API asks the planner: the plan of an account's own usage, made beside the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from freehold.gateway.account.services import PlanAsked
from freehold.planner.live import crossing, usage_of_days
from freehold.planner.model import Assumptions
from freehold.planner.planner import plan
from freehold.planner.report.document import document, with_version
from freehold.problems import InvalidRequest

PATHS = 2_000
"""Scenario paths of a plan on the server: a fifth of the command line's, for a fifth of the time."""


class Advice:
    """Plans one at a time, in a thread: a plan takes a second or less of a core."""

    def __init__(self, price: Callable[[], Awaitable[tuple[float, str] | None]] | None = None) -> None:
        """`price` reads from the chain's market what one DIEM costs, USD, and says where; None where there is no market."""
        self._price = price
        self._one = asyncio.Lock()

    async def __call__(self, asked: PlanAsked) -> Mapping[str, Any]:
        """The plan's document. Raises InvalidRequest without a price, InvalidAssumption, InvalidUsage."""
        given = dict(asked.given)
        price, sources = given.pop("diem_price", None), {}
        if price is None and self._price is not None:
            read = await self._price()
            if read is not None:
                price, sources = read[0], {"diem_price": read[1]}
        if price is None:
            raise InvalidRequest(
                reason="This chain has no DIEM market to read a price from; say what one DIEM costs: ?price=183.",
                param="price",
            )
        async with self._one:
            return await asyncio.to_thread(_planned, asked, price, given, sources)


def _planned(asked: PlanAsked, price: float, given: Mapping[str, float], sources: Mapping[str, str]) -> dict[str, Any]:
    assumptions = Assumptions(diem_price=price, paths=PATHS, **given)  # type: ignore[arg-type]
    if not any(day < asked.today for day, _ in asked.spent):
        raise InvalidRequest(
            reason="This account has no day of usage that has ended; ask again tomorrow.", param="days"
        )
    usage = usage_of_days(asked.spent, until=asked.today, calls=asked.calls)
    made = plan(usage, assumptions, stated={"diem_price", *given}, sources=sources)
    turned = crossing(usage, assumptions)
    note = None if turned is None else {**document(turned), "sentence": turned.sentence}
    return {**with_version(made), "crossing": note}
