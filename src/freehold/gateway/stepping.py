"""A hold that grows with its stream, when its client named no maximum and the model hides no output."""

import logging
from typing import TYPE_CHECKING

from freehold.ledger.model import Hold
from freehold.ledger.problems import DayUnopened, InsufficientCredit, KeyLimitReached, RateLimited
from freehold.money import MAX_NANO
from freehold.pricing.model import Price, worst_case_nano_up
from freehold.problems import Problem

if TYPE_CHECKING:
    from freehold.gateway.admission import Admitted
    from freehold.gateway.door import Door

log = logging.getLogger("freehold.gateway")

NEAR = 32
"""Tokens: so close to what is held, more is held."""

LEAST = 16
"""Tokens: when not even so many more can be paid, the stream goes on to what is held, and ends."""


class Steps:
    """What is held for one stream. Tokens are output of all choices together."""

    def __init__(self, door: "Door", admitted: "Admitted") -> None:
        self.hold: Hold = admitted.hold
        self.output = admitted.held_output
        self._most = admitted.max_output * admitted.choices
        self._price: Price = admitted.price
        self._input = admitted.input_bound
        self._door = door
        self._ended = self.output >= self._most
        self._day_unopened_ok = False

    def near(self, output: int) -> bool:
        """Whether it is time for another step, after so much output."""
        return not self._ended and output + NEAR >= self.output

    def spent(self, output: int) -> bool:
        """Whether so much output is more than what is held, and no more can be."""
        return output > self.output and self._ended and self.output < self._most

    async def extend(self) -> None:
        """Hold as much again, or what of it can be paid; when that is next to nothing, this was the last step."""
        more = min(self.output, self._most - self.output)
        while more > 0:
            added_nano = self._worst_nano(self.output + more) - self._worst_nano(self.output)
            try:
                await self._hold_more(added_nano, more)
            except (InsufficientCredit, KeyLimitReached, RateLimited):
                more = more // 2 if more // 2 >= LEAST else 0
            except Problem as refused:
                log.info("a stream goes on to what is held for it: %s", refused)
                break
            except Exception:
                # Whatever it was, what is held is held, and may be delivered.
                log.exception("a stream goes on to what is held for it request_id=req_%s", self.hold.request_id.hex)
                break
            else:
                self.output += more
                self._ended = self.output >= self._most
                return
        self._ended = True

    async def cover(self, cost_nano: int) -> Hold:
        """Hold what the upstream reported beyond what was metered, if it can be paid. The hold to settle.

        Never more than the worst case of the model's maximum: what a report is above that is the operator's.
        """
        if cost_nano > self.hold.amount_nano:
            try:
                await self._hold_more(min(cost_nano, self._worst_nano(self._most)) - self.hold.amount_nano, 0)
            except Problem as refused:
                log.info("what is above the hold stays the operator's: %s", refused)
            except Exception:
                # Whatever it was, the call is settled: its hold would stay open.
                log.exception("what is above the hold stays the operator's request_id=req_%s", self.hold.request_id.hex)
        return self.hold

    async def _hold_more(self, added_nano: int, tokens: int) -> None:
        if added_nano <= 0:
            return
        ledger = self._door.ledger
        try:
            self.hold = await ledger.extend(self.hold, added_nano, tokens=tokens, day_unopened_ok=self._day_unopened_ok)
        except DayUnopened:
            await self._door.allowance.refresh(self.hold.account_id)
            self._day_unopened_ok = True
            self.hold = await ledger.extend(self.hold, added_nano, tokens=tokens, day_unopened_ok=True)

    def _worst_nano(self, output: int) -> int:
        return min(worst_case_nano_up(self._price, input_tokens=self._input, output_tokens=output), MAX_NANO)
