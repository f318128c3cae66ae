"""The ledger's values. Amounts are nano-USD, times are unix seconds of ledger time unless a name says otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

FOREVER_S = 253_402_300_799
"""9999-12-31T23:59:59Z: the end of a grant that doesn't expire."""


class Source(StrEnum):
    """Where a grant's credit comes from; a purse is all grants of one source."""

    ALLOWANCE = "allowance"
    STRIP = "strip"
    PROMO = "promo"
    PREPAID = "prepaid"


PRIORITY: Mapping[Source, int] = {Source.STRIP: 10, Source.ALLOWANCE: 10, Source.PROMO: 20, Source.PREPAID: 30}
"""Lower is drawn first; then the grant that expires sooner, then the one that started sooner, then its id."""


@dataclass(frozen=True, slots=True)
class Leg:
    """The part of a hold, or of a charge, that one grant bears."""

    grant_id: int
    source: Source
    amount_nano: int


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Reserve a call's worst case. `least_nano == amount_nano` asks for exactly that, or a refusal.

    Otherwise the hold is max(least, min(amount, an eighth of what is left)).
    `day_unopened_ok` goes on with the other purses although today's allowance was not issued yet.
    """

    account_id: int
    key_id: int
    request_id: UUID
    amount_nano: int
    least_nano: int
    price_version: int
    key_version: int
    deadline_s: float = 600.0
    day_unopened_ok: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    request_id: UUID
    account_id: int
    key_id: int
    amount_nano: int
    legs: tuple[Leg, ...]
    price_version: int
    day: int
    """Number of the ledger day that it was opened in, and is charged to."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call came to. `cost_nano` above the hold takes what is there; the rest is absorbed, never billed."""

    cost_nano: int
    model: str
    usage: Mapping[str, int]
    outcome: str = "complete"
    """complete | disconnected | upstream_died | deadline"""
    estimated: bool = False
    """True when the upstream reported no usable usage and the stated rule was applied."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One settled call: what a receipt is made from."""

    request_id: UUID
    account_id: int
    key_id: int
    model: str
    usage: Mapping[str, int]
    price_version: int
    held_nano: int
    cost_nano: int
    """What the account paid: the sum of the legs."""
    absorbed_nano: int
    """What the operator bears: cost above the hold, or the estimate of a call whose worker died."""
    legs: tuple[Leg, ...]
    outcome: str
    """As settled; `unsettled` where the worker died and the hold was swept."""
    estimated: bool
    day: int
    at_s: float
    """Ledger time of the settlement."""
    remaining: Mapping[Source, int] = field(default_factory=dict)
    """Available per purse right after the settlement; empty when read back later."""


@dataclass(frozen=True, slots=True)
class Grant:
    id: int
    account_id: int
    source: Source
    amount_nano: int
    available_nano: int
    held_nano: int
    starts_at_s: int
    expires_at_s: int
    priority: int
    external_id: str


@dataclass(frozen=True, slots=True)
class Purse:
    source: Source
    granted_nano: int
    available_nano: int
    held_nano: int
    used_nano: int
    """Of the grants that are live now."""


@dataclass(frozen=True, slots=True)
class Balance:
    account_id: int
    at_s: float
    provisional: bool
    day: int
    purses: tuple[Purse, ...]
    reset_at_s: int
    """The next 00:00 UTC."""

    def available_nano(self) -> int:
        return sum(purse.available_nano for purse in self.purses)


@dataclass(frozen=True, slots=True)
class LedgerTime:
    at_s: int
    provisional: bool
    """True when the chain has stalled for over 120 s and the wall clock carries it on."""
    opened_day: int
    """Newest day whose first block has enough confirmations, so that its allowance may be issued."""


class KeyState(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """A key as the ledger knows it: its caps and whether it may spend. None = no cap, no end."""

    account_id: int
    key_id: int
    version: int
    """Raised by each change of the key, so that a worker's cached copy is found stale at the next hold."""
    state: KeyState = KeyState.ACTIVE
    expires_at_s: int | None = None
    day_cap_nano: int | None = None
    total_cap_nano: int | None = None


@dataclass(frozen=True, slots=True)
class KeySpend:
    """What a key has used and holds, of today and in all."""

    key_id: int
    day: int
    day_used_nano: int
    day_held_nano: int
    total_used_nano: int
    total_held_nano: int


@dataclass(frozen=True, slots=True)
class ChargePage:
    """Charges, newest first."""

    charges: tuple[Charge, ...]
    next: str | None
    """What to pass as `after` for the next page; None when this is the last."""


class GroupBy(StrEnum):
    DAY = "day"
    HOUR = "hour"
    MODEL = "model"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Charges summed over one group."""

    group: str
    """An RFC 3339 UTC time for day and hour, the model's name, or the key's id."""
    calls: int
    usage: Mapping[str, int]
    cost_nano: int
    by_source: Mapping[Source, int]
    """Which purse bore how much of `cost_nano`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that `books check` found: what the entries say and what stands elsewhere."""

    law: str
    account_id: int | None
    subject: str
    expected: str
    found: str
