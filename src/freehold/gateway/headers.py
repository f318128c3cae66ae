"""What a call cost, as response headers and as the comment that ends a stream."""

from functools import lru_cache

from freehold.clock import Day, rfc3339
from freehold.ledger.model import Charge, RateState, Source
from freehold.money import format_usd

Headers = list[tuple[bytes, bytes]]

STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

NO_PURSE = "none"
"""Shown as the purse of a call that cost nothing."""

_REMAINING = ((b"x-freehold-allowance-remaining", Source.ALLOWANCE), (b"x-freehold-prepaid-remaining", Source.PREPAID))

FREE: Headers = [(b"x-freehold-cost", format_usd(0).encode()), (b"x-freehold-purse", NO_PURSE.encode())]
"""Of an answer that was not charged."""


def of_charge(charge: Charge) -> Headers:
    """Cost, who paid, what is left, and when the allowance is renewed."""
    found: Headers = [
        (b"x-freehold-cost", format_usd(charge.cost_nano).encode()),
        (b"x-freehold-purse", purse(charge).encode()),
        *of_day(charge.day),
    ]
    if charge.remaining:
        for name, source in _REMAINING:
            found.append((name, format_usd(charge.remaining.get(source, 0)).encode()))
    return found


def of_day(day: int) -> Headers:
    """When the allowance of a ledger day is renewed."""
    return [(b"x-freehold-allowance-reset", _end_of(day))]


@lru_cache(maxsize=8)
def _end_of(day: int) -> bytes:
    return rfc3339(Day(day).end_s).encode()


def of_rate(rate: RateState | None) -> Headers:
    """The key's limits per minute, as OpenAI names them; nothing for a limit that it doesn't have."""
    if rate is None:
        return []
    found: Headers = []
    for unit, limit, remaining, reset_s in (
        ("requests", rate.requests_limit, rate.requests_remaining, rate.requests_reset_s),
        ("tokens", rate.tokens_limit, rate.tokens_remaining, rate.tokens_reset_s),
    ):
        if limit is not None:
            found += [
                (f"x-ratelimit-limit-{unit}".encode(), str(limit).encode()),
                (f"x-ratelimit-remaining-{unit}".encode(), str(remaining).encode()),
                (f"x-ratelimit-reset-{unit}".encode(), f"{reset_s}s".encode()),
            ]
    return found


def purse(charge: Charge) -> str:
    """What each purse paid, USD, in the order drawn: `allowance=0.0012,prepaid=0.0003`."""
    paid: dict[Source, int] = {}
    for leg in charge.legs:
        paid[leg.source] = paid.get(leg.source, 0) + leg.amount_nano
    return ",".join(f"{source}={format_usd(nano)}" for source, nano in paid.items() if nano) or NO_PURSE


def note(charge: Charge | None) -> str:
    """The comment before a stream's end."""
    if charge is None:
        return f"freehold cost={format_usd(0)} purse={NO_PURSE}"
    return f"freehold cost={format_usd(charge.cost_nano)} purse={purse(charge)}"
