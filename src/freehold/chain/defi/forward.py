"""The forward curve of compute: what the pools say of each month's strips and principals, against DIEM's own price.

A strip of a month is 1 USD of inference a day in it, so its price over its days is what a dollar of credit costs now. DIEM is
1 USD a day for ever: at a price of P its yield is 1/P a day, and at that yield a dollar t days ahead is worth exp(−t/P); a
strip that begins and ends b and e days ahead P·(exp(−b/P) − exp(−e/P)); a principal that turns into DIEM after m days
P·exp(−m/P). All of a split's parts are then worth a DIEM together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from freehold.chain.defi.pools import State, principal_month, strip_month
from freehold.clock import DAY_S, Month

_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Strip:
    """One month's strip. Prices are USD for one, which is for 1 USD a day."""

    symbol: str
    month: Month
    usd: Decimal
    begins: Decimal
    ends: Decimal
    """Days ahead."""
    fair: Decimal
    """What it would cost at DIEM's yield."""

    @property
    def days(self) -> Decimal:
        """That are left of it: the USD of credit that one gives."""
        return self.ends - self.begins

    @property
    def per_credit(self) -> Decimal:
        """USD for a dollar of credit in that month."""
        with localcontext(prec=_DIGITS):
            return self.usd / self.days


@dataclass(frozen=True, slots=True)
class Principal:
    """What is a DIEM after a month."""

    symbol: str
    month: Month
    usd: Decimal
    matures: Decimal
    """Days ahead."""
    fair: Decimal


@dataclass(frozen=True, slots=True)
class Parts:
    """A DIEM taken apart: the strips from this month to one, and the principal of that."""

    principal: str
    usd: Decimal
    """What all of them cost together."""


@dataclass(frozen=True, slots=True)
class Curve:
    at_s: int
    diem: Decimal
    """Price of one, now."""
    strips: tuple[Strip, ...]
    """By month; those that are over are left out."""
    principals: tuple[Principal, ...]
    parts: tuple[Parts, ...]
    """Of each principal whose strips have pools, all of them."""

    @property
    def yield_per_day(self) -> Decimal:
        """Of a DIEM, in shares of its price."""
        with localcontext(prec=_DIGITS):
            return 1 / self.diem

    def dollar(self, days: Decimal) -> Decimal:
        """What a dollar of credit in so many days is worth at DIEM's yield."""
        return discount(days, self.diem)


def discount(days: Decimal, diem: Decimal) -> Decimal:
    with localcontext(prec=_DIGITS):
        return (-days / diem).exp()


def curve(states: Sequence[State]) -> Curve:
    """The curve of pools that were read together, DIEM's among them."""
    spot = next(state for state in states if state.symbol == "DIEM")
    at_s, diem = spot.at_s, spot.price
    strips, principals = [], []
    for state in states:
        month = strip_month(state.symbol)
        if month is not None and month.end_s > at_s:
            begins, ends = _ahead(month.start_s, at_s), _ahead(month.end_s, at_s)
            fair = diem * (discount(begins, diem) - discount(ends, diem))
            strips.append(Strip(state.symbol, month, state.price, begins, ends, fair))
        month = principal_month(state.symbol)
        if month is not None:
            matures = _ahead(month.end_s, at_s)
            fair = diem * discount(matures, diem)
            principals.append(Principal(state.symbol, month, state.price, matures, fair))
    strips.sort(key=lambda each: each.month.number)
    principals.sort(key=lambda each: each.month.number)
    return Curve(at_s, diem, tuple(strips), tuple(principals), tuple(_parts(at_s, strips, principals)))


def _ahead(then_s: int, now_s: int) -> Decimal:
    """Days until then; none when it is over."""
    with localcontext(prec=_DIGITS):
        return Decimal(max(0, then_s - now_s)) / DAY_S


def _parts(at_s: int, strips: Sequence[Strip], principals: Sequence[Principal]) -> list[Parts]:
    known = {each.month.number: each.usd for each in strips}
    found = []
    for each in principals:
        needed = range(Month.of(at_s).number, each.month.number + 1)
        if all(number in known for number in needed):
            found.append(Parts(each.symbol, each.usd + sum((known[number] for number in needed), Decimal(0))))
    return found
