"""What the account API is given, and what it knows of siblings through a narrow door."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from freehold.chain.model import Deployment
from freehold.clock import Day
from freehold.db import Database
from freehold.gateway.x402.payments import Payments
from freehold.identity.identity import Identity
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Difference
from freehold.pricing.book import Prices
from freehold.receipts.receipts import Receipts
from freehold.upstream.catalogue import Catalogue


class Allowance(Protocol):
    """What the chain has promised to an account."""

    async def refresh(self, account_id: int) -> object:
        """Issue or raise today's allowance and post deposits that aren't in the ledger yet."""
        ...

    async def next_days(self, account_id: int, n: int) -> Sequence[tuple[int, int]]:
        """(day number, nano-USD) of the `n` days after today, as the chain stands."""
        ...

    async def check(self) -> Sequence[Difference]:
        """Where what was granted isn't what the chain grants."""
        ...


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How this server is. Block numbers are None before the reader's first poll."""

    version: str
    started_at_s: float
    workers: int
    reader_alive: bool
    """True while some worker reads the chain and its last poll worked."""
    head: int | None = None
    confirmed: int | None = None


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """`rpc_url` is told to callers only on a dev chain."""

    public_url: str = "http://127.0.0.1:8402"
    rpc_url: str | None = None
    body_limit_bytes: int = 64 * 1024
    next_days: int = 7
    """How many days ahead a balance shows."""


@dataclass(frozen=True, slots=True)
class PlanAsked:
    """What an account asks the planner."""

    today: Day
    """The day that runs, by ledger time; it isn't counted."""
    spent: Sequence[tuple[Day, int]]
    """Nano-USD charged on each day that has calls."""
    calls: int
    given: Mapping[str, float]
    """Assumptions by their names; the others are defaults."""


@dataclass(frozen=True, slots=True)
class AccountServices:
    """The domains below. `status` tells how the server is."""

    database: Database
    ledger: Ledger
    identity: Identity
    prices: Prices
    catalogue: Catalogue
    allowance: Allowance
    deployment: Deployment
    status: Callable[[], Awaitable[ServerStatus]]
    settings: AccountSettings = AccountSettings()
    reload: Callable[[], Awaitable[str]] | None = None
    """Reads the configuration again; says in a sentence what came of it, or raises what refuses it."""
    plan: Callable[[PlanAsked], Awaitable[Mapping[str, Any]]] | None = None
    """Plans, and gives the plan's document. Raises Problem for what can't be planned."""
    payments: Payments | None = None
    """What takes payments by x402; None: nothing does."""
    receipts: Receipts | None = None
    """Makes and signs receipts; None where no book for them is deployed."""
    metrics: Path | None = None
    """Folder of this server's workers' numbers."""
