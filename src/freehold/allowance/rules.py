"""The mid-day rule, from the events alone: what a stake grants on which day. Pure; amounts in DIEM base units.

The vault computes, and each event carries, the resulting allowance of its own day and of every later one:
a stake grants the seconds left of its day at once; a request to unstake takes nothing back from its day; a redirect
begins at the next 00:00. So the newest event of a day says what that day grants, and the newest one before it what it
began with.
"""

from collections.abc import Iterable, Sequence

from freehold.chain.model import AllowanceChanged, Event
from freehold.money import MAX_NANO, diem_to_nano_down


def changes(events: Iterable[Event], operator: str) -> list[AllowanceChanged]:
    """The changes of allowance at one operator, in their order."""
    return [event for event in events if isinstance(event, AllowanceChanged) and event.operator == operator]


def opening(events: Sequence[AllowanceChanged], day: int) -> int:
    """What `day` begins with: the state at the last block before its 00:00."""
    return next((event.onward for event in reversed(events) if event.day < day), 0)


def latest(events: Sequence[AllowanceChanged], day: int) -> AllowanceChanged | None:
    """The newest change of `day` itself."""
    return next((event for event in reversed(events) if event.day == day), None)


def allowance(events: Sequence[AllowanceChanged], day: int) -> int:
    """What `day` grants, as far as `events` (one beneficiary's at one operator, in the chain's order) tell."""
    changed = latest(events, day)
    return changed.today if changed else opening(events, day)


def nano_down(diem: int) -> int:
    """Daily credit of a DIEM amount: floor, and never above what a ledger column holds."""
    return min(diem_to_nano_down(diem), MAX_NANO)
