"""Run as a process of its own: 32 callers hold and settle 10 nano-USD each; prints how many could.

With `forever` they go on until the process is killed.
"""

import asyncio
import sys
from uuid import uuid4

from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import HoldRequest, Settlement
from freehold.ledger.problems import InsufficientCredit, KeyLimitReached, RateLimited


async def drain(url: str, account_id: int, forever: bool) -> int:
    database = await Database.connect(url)
    async with Ledger(database) as ledger:

        async def call() -> bool:
            try:
                hold = await ledger.hold(HoldRequest(account_id, 1, uuid4(), 10, 10, price_version=0, key_version=1))
            except (InsufficientCredit, KeyLimitReached, RateLimited):
                return False
            await ledger.settle(hold, Settlement(7 if forever else 10, "small", {}))
            return True

        admitted = 0
        while True:
            admitted += sum(await asyncio.gather(*(call() for _ in range(32))))
            if not forever:
                break
    await database.close()
    return admitted


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(drain(sys.argv[1], int(sys.argv[2]), "forever" in sys.argv))))
