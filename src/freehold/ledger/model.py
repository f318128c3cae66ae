"""The ledger's values. Amounts are nano-USD, times are unix seconds of ledger time unless a name says otherwise.

What each call makes anew is a frozen msgspec.Struct: it is made in a tenth of a frozen dataclass's time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import msgspec
from msgspec import Struct

from freehold.clock import Day, Month

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


class Leg(Struct, frozen=True):
    """The part of a hold, or of a charge, that one grant bears."""

    grant_id: int
    source: Source
    amount_nano: int


class HoldRequest(Struct, frozen=True):
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
    tokens: int = 0
    """What the call may take at most of the key's tokens per minute; counted at once, corrected by its settlement."""
    idempotency_key: str | None = None
    """Claimed for this call together with its hold; free again when the hold is released or swept."""
    body_digest: bytes | None = None
    """Of the request's body, to tell a repeat from another call; needed with `idempotency_key`."""
    step: ClassVar[int] = 0
    base_nano: ClassVar[int] = 0
    """A new hold grows none."""


@dataclass(frozen=True, slots=True)
class RateState:
    """A key's limits per minute right after a decision. None = no limit. `reset` counts seconds until all is free again."""

    requests_limit: int | None
    requests_remaining: int | None
    requests_reset_s: int | None
    tokens_limit: int | None
    tokens_remaining: int | None
    tokens_reset_s: int | None


class Hold(Struct, frozen=True, eq=False):
    request_id: UUID
    account_id: int
    key_id: int
    amount_nano: int
    legs: tuple[Leg, ...]
    price_version: int
    day: int
    """Number of the ledger day that it was opened in, and is charged to."""
    step: int = 0
    """How often it was extended."""
    idempotency_key: str | None = None
    rate: RateState | None = None
    """None where the key has no limit per minute, and on a hold that was found again. It makes no hold another one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hold) and self._itself() == other._itself()

    def __hash__(self) -> int:
        return hash(self._itself())

    def _itself(self) -> tuple[object, ...]:
        return (self.request_id, self.account_id, self.key_id, self.amount_nano, self.legs, self.price_version, self.day,
                self.step, self.idempotency_key)  # fmt: skip


class Attempt(Struct, frozen=True):
    """One try at one upstream, and what the operator owes for it."""

    upstream: str
    cost_nano: int
    outcome: str = "complete"
    """Opaque: how it ended."""


class Settlement(Struct, frozen=True):
    """What a call came to. What `cost_nano` is above the hold is absorbed, never billed."""

    cost_nano: int
    model: str
    usage: Mapping[str, int]
    outcome: str = "complete"
    """complete | disconnected | upstream_died | deadline"""
    estimated: bool = False
    """True when the upstream reported no usable usage and the stated rule was applied."""
    attempts: tuple[Attempt, ...] = ()
    """In order. Booked `cost:upstream:<name>` against `payable:upstream:<name>`; never a part of the account's cost."""
    tokens: int | None = None
    """What the call really took of the key's tokens per minute; None leaves what its hold counted."""
    answer: bytes | None = None
    """Kept for repeats of the call's idempotency key; opaque, so encrypt it first."""
    answer_follows: bool = False
    """The answer comes by `store_answer`; until then, for at most 30 s, repeats are told to wait."""


class Charge(Struct, frozen=True):
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
    attempts: tuple[Attempt, ...] = ()
    remaining: Mapping[Source, int] = msgspec.field(default_factory=dict)
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
    month_cap_nano: int | None = None
    """Per calendar month, UTC, of ledger time."""
    rpm: int | None = None
    """Requests in any 60 seconds of the database's clock."""
    tpm: int | None = None
    """Tokens in any 60 seconds of the database's clock."""


@dataclass(frozen=True, slots=True)
class KeySpend:
    """What a key has used and holds, of today, of this month and in all."""

    key_id: int
    day: int
    day_used_nano: int
    day_held_nano: int
    total_used_nano: int
    total_held_nano: int
    month: Month
    month_used_nano: int
    month_held_nano: int


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


@dataclass(frozen=True, slots=True)
class PurseBill:
    """A purse's month: `opening + granted - used - expired - reversed = closing`, all nano-USD."""

    source: Source
    opening_nano: int
    granted_nano: int
    """Issued, or paid in."""
    used_nano: int
    expired_nano: int
    reversed_nano: int
    """Taken back after a reorg of the chain."""
    closing_nano: int
    """What the entries up to the month's end say, read by itself."""


@dataclass(frozen=True, slots=True)
class TopUp:
    """Credit that was paid for."""

    at_s: int
    external_id: str
    amount_nano: int


@dataclass(frozen=True, slots=True)
class BillLine:
    """The charges of one day, model, key and purse. A call that two purses paid is in two lines."""

    day: int
    model: str
    key_id: int
    source: Source | None
    """None: calls that cost the account nothing."""
    calls: int
    """Calls of which this is the first purse, so that the lines' sum counts each call once."""
    cost_nano: int


@dataclass(frozen=True, slots=True)
class BillGroup:
    """Lines summed over a day (`2026-11-23`), a model, a key's id or a purse."""

    group: str
    calls: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Bill:
    """A calendar month (UTC) of one account. A charge belongs to its hold's day; everything else to when it was posted."""

    account_id: int
    month: Month
    final: bool
    """Whether the month is over and nothing held in it is still open."""
    purses: tuple[PurseBill, ...]
    top_ups: tuple[TopUp, ...]
    lines: tuple[BillLine, ...]
    absorbed: Mapping[str, int] = field(default_factory=dict)
    """nano-USD that the operator bore, by cause (overage, unsettled, reorg): not billed, and in no other figure."""

    @property
    def opening_nano(self) -> int:
        return sum(purse.opening_nano for purse in self.purses)

    @property
    def closing_nano(self) -> int:
        return sum(purse.closing_nano for purse in self.purses)

    @property
    def used_nano(self) -> int:
        return sum(line.cost_nano for line in self.lines)

    @property
    def calls(self) -> int:
        return sum(line.calls for line in self.lines)

    def by_day(self) -> tuple[BillGroup, ...]:
        return _summed((str(Day(line.day)), line) for line in self.lines)

    def by_model(self) -> tuple[BillGroup, ...]:
        return _summed((line.model, line) for line in self.lines)

    def by_key(self) -> tuple[BillGroup, ...]:
        return _summed((str(line.key_id), line) for line in self.lines)

    def by_purse(self) -> tuple[BillGroup, ...]:
        return _summed((line.source.value, line) for line in self.lines if line.source is not None)

    def differences(self) -> tuple[str, ...]:
        """What doesn't add up to the nano-USD; empty for right books."""
        found = []
        paid = {group.group: group.cost_nano for group in self.by_purse()}
        for purse in self.purses:
            moved = purse.granted_nano - purse.used_nano - purse.expired_nano - purse.reversed_nano
            if purse.opening_nano + moved != purse.closing_nano:
                found.append(f"{purse.source}: {purse.opening_nano} and {moved} is not {purse.closing_nano}")
            if purse.used_nano != paid.get(purse.source.value, 0):
                found.append(f"{purse.source}: {purse.used_nano} used, lines of {paid.get(purse.source.value, 0)}")
        prepaid = sum(purse.granted_nano for purse in self.purses if purse.source is Source.PREPAID)
        if prepaid != sum(top_up.amount_nano for top_up in self.top_ups):
            found.append(f"top-ups don't sum to {prepaid}")
        return tuple(found)


def _summed(lines: Iterable[tuple[str, BillLine]]) -> tuple[BillGroup, ...]:
    sums: dict[str, tuple[int, int]] = {}
    for group, line in lines:
        calls, cost = sums.get(group, (0, 0))
        sums[group] = (calls + line.calls, cost + line.cost_nano)
    return tuple(BillGroup(group, *sums[group]) for group in sorted(sums))
