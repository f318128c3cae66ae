"""The mid-day rule, from the events alone: what stakes and strips grant on which day. Pure; amounts in DIEM base units.

The vault computes, and each event carries, the resulting allowance of its own day and of every later one:
a stake grants the seconds left of its day at once; a request to unstake takes nothing back from its day; a redirect
begins at the next 00:00. So the newest event of a day says what that day grants, and the newest one before it what it
began with. Activated strips grant by the same rule, but for their month alone, and an event may come before its month.
"""

from collections.abc import Iterable, Sequence

from freehold.chain.model import AllowanceChanged, Event
from freehold.clock import Day
from freehold.money import MAX_NANO, diem_to_nano_down


def changes(events: Iterable[Event], operator: str, *, strips: bool = False) -> list[AllowanceChanged]:
    """The changes of allowance at one operator by stakes, or by strips, in their order."""
    return [
        event
        for event in events
        if isinstance(event, AllowanceChanged) and event.operator == operator and event.strips == strips
    ]


def opening(events: Sequence[AllowanceChanged], day: int) -> int:
    """What `day` begins with: the state at the last block before its 00:00."""
    found = next((event for event in reversed(events) if _speaks_of(event, day) and _came_on(event) < day), None)
    return _of(found, day)


def latest(events: Sequence[AllowanceChanged], day: int) -> AllowanceChanged | None:
    """The newest change of `day` on that day itself."""
    return next((event for event in reversed(events) if event.day == day == _came_on(event)), None)


def allowance(events: Sequence[AllowanceChanged], day: int) -> int:
    """What `day` grants, as far as `events` (one beneficiary's at one operator, in the chain's order) tell."""
    return _of(next((event for event in reversed(events) if _speaks_of(event, day)), None), day)


def _of(event: AllowanceChanged | None, day: int) -> int:
    """What the newest event that speaks of `day` says that it grants."""
    if event is None:
        return 0
    return event.today if event.day == day else event.onward


def _speaks_of(event: AllowanceChanged, day: int) -> bool:
    return event.day <= day and (not event.strips or Day(event.day).month == Day(day).month)


def _came_on(event: AllowanceChanged) -> int:
    """The day of its block. Stakes' events are always of that day."""
    return Day.of(event.place.block_time_s).number if event.strips else event.day


def nano_down(diem: int) -> int:
    """Daily credit of a DIEM amount: floor, and never above what a ledger column holds."""
    return min(diem_to_nano_down(diem), MAX_NANO)
