"""A ledger whose days pass, with receipts over it."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from msgspec.structs import replace

from freehold.clock import Day
from freehold.db import Database
from freehold.ledger import jobs as ledger_jobs
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Charge, Hold, HoldRequest, KeyLimits, Settlement, Source
from freehold.receipts.model import Domain
from freehold.receipts.receipts import Receipts
from freehold.receipts.signing import ReceiptKey

FIRST = Day(20_833)
"""2027-01-15."""
DOMAIN = Domain(402_031, "0x" + "22" * 20, "0x" + "33" * 20)
KEY = ReceiptKey(bytes(31) + b"\x07")


def address_of(account_id: int) -> str:
    """All digits, so it is its own checksum."""
    return f"0x{account_id:040d}"


@dataclass
class Till:
    """A ledger, and shorthands."""

    database: Database
    ledger: Ledger
    receipts: Receipts

    async def account(self, *, prepaid: int = 0, promo: int = 0, allowance: int = 0, day: Day = FIRST) -> int:
        """An account with key 1 and so much credit, nano-USD."""
        async with self.database.transaction() as conn:
            account_id = await self.ledger.create_account(conn)
            await self.ledger.put_key(conn, KeyLimits(account_id=account_id, key_id=1, version=1))
        for source, amount in ((Source.PREPAID, prepaid), (Source.PROMO, promo)):
            if amount:
                await self.ledger.grant(
                    account_id, source, amount, f"test:{source}", starts_at_s=0, expires_at_s=FOREVER_S
                )
        await self.open(account_id, allowance, day)
        return account_id

    async def open(self, account_id: int, allowance: int, day: Day) -> None:
        name = f"day:{day.number}:allowance:open"
        await self.ledger.open_day(account_id, day.number, Source.ALLOWANCE, allowance, name)

    async def hold(self, account_id: int, amount: int, request_id: UUID | None = None) -> Hold:
        request = HoldRequest(
            account_id, 1, request_id or uuid4(), amount, amount, price_version=0, key_version=1, day_unopened_ok=True
        )
        return await self.ledger.hold(request)

    async def settle(self, hold: Hold, cost: int) -> Charge:
        usage = {"input": 3, "cached_input": 2, "output": 5}
        charge = await self.ledger.settle(hold, Settlement(cost_nano=cost, model="small", usage=usage))
        return replace(charge, remaining={})

    async def charge(self, account_id: int, cost: int) -> Charge:
        return await self.settle(await self.hold(account_id, cost), cost)

    async def until(self, day: Day, *, seconds: int = 0) -> None:
        """Ledger time goes on to so many seconds into the day, confirmed; what is due is done."""
        await self.ledger.set_time(day.start_s + seconds, opened_day=day.number)
        await ledger_jobs.once(self.ledger)

    async def close_all(self) -> int:
        count = 0
        while await self.receipts.close_next() is not None:
            count += 1
        return count


def receipts_of(database: Database, domain: Domain = DOMAIN, key: ReceiptKey | None = KEY) -> Receipts:
    async def address(account_id: int) -> str:
        return address_of(account_id)

    return Receipts(database, domain, address_of=address, key=key)
