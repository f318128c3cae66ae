"""Closing and publishing days in the background, by whichever worker leads."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import asyncpg

from freehold.problems import Problem
from freehold.receipts.publishing import Publisher, Standing
from freehold.receipts.receipts import DayUneven, Receipts

log = logging.getLogger(__name__)

EVERY_S = 5.0
LOOK_EVERY = 12
"""Rounds between two looks at the book, when nothing was closed."""


class Days:
    """Closes every day that is over, and publishes it. `publisher` is asked for once it is needed; None: only closes."""

    def __init__(
        self, receipts: Receipts, publisher: Callable[[], Awaitable[Publisher]] | None, *, every_s: float = EVERY_S
    ) -> None:
        self._receipts = receipts
        self._publisher = publisher
        self._every_s = every_s
        self._behind = 0
        """Days that the book lacked when it was last looked at, so that it is told of once."""

    async def run(self) -> None:
        """Until cancelled. What fails is told of once, and tried again."""
        said = ""
        rounds = 0
        due = True
        while True:
            try:
                due = await self.close_all() > 0 or due or rounds % LOOK_EVERY == 0
                if due:
                    await self.publish()
                due = False
                said = ""
                rounds += 1
            except (DayUneven, Problem, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as reason:
                if str(reason) != said:
                    log.error("the days' receipts can't be closed or published; it is tried again: %s", reason)
                said = str(reason)
            except Exception:
                log.exception("the days' receipts can't be closed or published; it is tried again")
            await asyncio.sleep(self._every_s)

    async def close_all(self) -> int:
        """Close the days that are over, oldest first; how many they were. Raises DayUneven."""
        count = 0
        while await self._receipts.close_next() is not None:
            count += 1
        return count

    async def publish(self) -> Standing | None:
        """Publish what is lacking; how the book stands then. None where nobody publishes here."""
        if self._publisher is None:
            return None
        publisher = await self._publisher()
        standing = await publisher.publish()
        while publisher.writes and standing.behind and not standing.wrong:
            standing = await publisher.publish()
        if standing.behind and standing.behind != self._behind:
            log.error("%d closed days aren't in the book on the chain: %s", standing.behind, _why(publisher, standing))
        self._behind = standing.behind
        return standing


def _why(publisher: Publisher, standing: Standing) -> str:
    if publisher.writes:
        return f"{len(standing.wrong)} days stand there otherwise than they were closed"
    return "this server has no keystore of the book's publisher (FREEHOLD_OPERATOR_KEYSTORE)"
