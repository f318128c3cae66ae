"""Publishing closed days in the operator's book on the chain, in order, and seeing what stands there."""

import logging
from dataclasses import dataclass

from freehold.chain.abi import Contract
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import Wallet, read
from freehold.clock import Day
from freehold.receipts.model import PURSES, ClosedDay
from freehold.receipts.receipts import Receipts

log = logging.getLogger(__name__)

MOST_AT_ONCE = 50
"""Days that are published, or looked at, in one go."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the book stands."""

    next_day: int
    """The day that it takes next; 0 before the first."""
    behind: int
    """Closed days that aren't in it yet."""
    wrong: tuple[int, ...]
    """Days whose entry isn't what was closed here."""


class Publisher:
    """One operator's book, written by the wallet that it names as its publisher; without one it is only looked at."""

    def __init__(self, receipts: Receipts, book: Contract, wallet: Wallet | None, *, rpc: Rpc | None = None) -> None:
        """`rpc`: the node to ask, where there is no wallet."""
        node = wallet.rpc if wallet is not None else rpc
        if node is None:
            raise ValueError("a publisher needs a wallet or a node")
        self._receipts = receipts
        self._book = book
        self._wallet = wallet
        self._rpc = node

    @property
    def writes(self) -> bool:
        return self._wallet is not None

    async def publish(self) -> Standing:
        """Publish every closed day that the book lacks, oldest first; how it stands then.

        Raises Reverted, NotMined, NodeUnavailable. A day that was sent by a process that then died is found there.
        """
        if self._wallet is None:
            return await self.look()
        next_day = await self._next_day()
        for closed in await self._lacking(next_day):
            totals = tuple(closed.totals[purse].row() for purse in PURSES)
            what = f"Publishing {Day(closed.day)}"
            await self._wallet.send(self._book, "publish", closed.day, closed.root, totals, what=what)
            log.info("day %s is published: root 0x%s", Day(closed.day), closed.root.hex())
        return await self.look()

    async def look(self) -> Standing:
        """Read what the book says of the newest closed days."""
        next_day = await self._next_day()
        await self._receipts.forget_from(next_day)
        wrong = []
        closed_days = await self._receipts.days(limit=MOST_AT_ONCE)
        for closed in closed_days:
            if closed.day >= next_day:
                continue
            root = await read(self._rpc, self._book, "rootOf", closed.day)
            totals_hash = await read(self._rpc, self._book, "totalsHashOf", closed.day)
            await self._receipts.saw(closed.day, root, totals_hash)
            if (root, totals_hash) != (closed.root, closed.totals_hash()):
                wrong.append(closed.day)
                log.error(
                    "day %s stands in the book with root 0x%s, not 0x%s", Day(closed.day), root.hex(), closed.root.hex()
                )
        behind = sum(closed.day >= next_day for closed in closed_days)
        return Standing(next_day, behind, tuple(sorted(wrong)))

    async def _next_day(self) -> int:
        return int(await read(self._rpc, self._book, "nextDay"))

    async def _lacking(self, next_day: int) -> list[ClosedDay]:
        """The next days to publish, oldest first."""
        newest = await self._receipts.days(limit=1)
        if not newest or newest[0].day < next_day:
            return []
        found = []
        before: int | None = None
        while page := await self._receipts.days(before=before, limit=366):
            found += [closed for closed in page if closed.day >= next_day]
            before = page[-1].day
            if before < next_day:
                break
        return sorted(found, key=lambda closed: closed.day)[:MOST_AT_ONCE]
