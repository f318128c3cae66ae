"""All that one address has, as values and rules: each part with its face value, market value, daily credit and yield.

Face value is what a thing is good for by the contracts alone: DIEM, HOLD or USDC that it is or becomes, or for strips the USD
of inference that they pay until their month's end. Market value is at the pools' present prices, in cents, rounded to the
nearest; no pool, no market value. Daily credit is USD of inference a day, from the next 00:00 on. Yields are for a year, of
the market value (sHOLD: of itself, in HOLD), each from one source.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from freehold.chain.defi.lending import Account
from freehold.chain.series import Dated
from freehold.chain.verbs import Positions
from freehold.clock import DAY_S, Day, Month

ONE = 10**18
USD = 10**6
YEAR_DAYS = 365
_LOCKED_FIFTHS = 4
"""Of the emission, what a locked share earns."""
_LEAST_WAIT_S = 7 * DAY_S
"""A discount on what comes sooner says nothing of a year."""
_LEAST_AGE_S = DAY_S
"""Fees of less than a day say nothing of a year's."""


class Kind(StrEnum):
    """Where a part is."""

    WALLET = "wallet"
    STAKED = "staked"
    EARNED = "earned"
    UNBONDING = "unbonding"
    STRIPS = "strips"
    ACTIVATED = "activated"
    PRINCIPAL = "principal"
    POOLED = "pooled"
    SUPPLIED = "supplied"
    PLEDGED = "pledged"
    BORROWED = "borrowed"


class Source(StrEnum):
    """Where a yield comes from."""

    INFERENCE = "inference"
    EMISSION = "emission"
    DISCOUNT = "discount"
    FEES = "fees"
    INTEREST = "interest"


MEANINGS: Mapping[Source, str] = {
    Source.INFERENCE: "1 USD of inference a day for each DIEM, for its price",
    Source.EMISSION: "HOLD emitted to stakes by the second, as a part of the stake",
    Source.DISCOUNT: "costs less now than what it pays (credit) or becomes (DIEM)",
    Source.FEES: "what swaps in the pool have paid since it was opened or last collected",
    Source.INTEREST: "what borrowers pay to lenders, as things stand",
}


@dataclass(frozen=True, slots=True)
class Pooled:
    """One token of a Uniswap v3 position."""

    id: int
    token: str
    amount: int
    """What taking all of it out would give, base units."""
    fees: int
    """Of swaps, not collected yet."""
    since_s: int
    """From when on they were earned; 0 where a part of it isn't fees."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read."""

    now_s: int
    positions: Positions
    dated: Dated
    earned: int
    """HOLD that could be claimed."""
    emission_per_second: int
    total_staked: int
    prices: Mapping[str, Fraction]
    """USD of 1 token by symbol; USDC is 1. A token that isn't named has no market."""
    pooled: tuple[Pooled, ...] = ()
    accounts: tuple[Account, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a position. A debt is told by its kind: its amounts count against the sum."""

    kind: Kind
    token: str
    amount: int
    """Base units: USDC 10^-6, others 10^-18."""
    face: int
    """Base units of `face_unit`."""
    face_unit: str
    """DIEM, HOLD, USDC, or USD for inference."""
    market_cents: int | None
    daily: int = 0
    """USD a day, 18 decimals."""
    yearly: float | None = None
    source: Source | None = None
    id: int | None = None
    """Of a request, or of a position in a pool."""
    ready_at_s: int | None = None
    """When it can be taken out, or is redeemed, or ends."""
    beneficiary: str | None = None
    """Who gets the daily credit."""

    @property
    def owed(self) -> bool:
        return self.kind is Kind.BORROWED


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over parts, debts taken off."""

    market_cents: int
    """Of the parts that have a market value."""
    without_market: tuple[str, ...]
    """Tokens that have none."""
    daily: int
    daily_of_others: int
    """Of it, what goes to beneficiaries that aren't the owner."""
    face: Mapping[str, int]
    """By unit."""


def totals(parts: Iterable[Part], owner: str) -> Totals:
    listed = list(parts)
    face: defaultdict[str, int] = defaultdict(int)
    for part in listed:
        face[part.face_unit] += -part.face if part.owed else part.face
    return Totals(
        market_cents=sum(
            -part.market_cents if part.owed else part.market_cents for part in listed if part.market_cents is not None
        ),
        without_market=tuple(dict.fromkeys(_unmarketed(part) for part in listed if part.market_cents is None)),
        daily=sum(part.daily for part in listed),
        daily_of_others=sum(part.daily for part in listed if part.beneficiary not in (None, owner)),
        face=dict(face),
    )


def _unmarketed(part: Part) -> str:
    if part.kind is Kind.ACTIVATED:
        return f"activated {part.token}"
    return "HOLD" if part.face_unit == "HOLD" else part.token


def parts(facts: Facts) -> list[Part]:
    """Every part that isn't nothing, in the order of `Kind`."""
    found = [*_wallet(facts), *_staked(facts), *_unbonding(facts), *_dated(facts), *_pooled(facts), *_credit(facts)]
    order = list(Kind)
    return sorted((part for part in found if part.amount), key=lambda part: order.index(part.kind))


def market_cents_nearest(facts: Facts, token: str, amount: int) -> int | None:
    """None without a market. HOLD that is staked is HOLD."""
    price = facts.prices.get(token)
    return None if price is None else round(Fraction(amount, units_of(token)) * price * 100)


def units_of(token: str) -> int:
    """Base units in 1 token."""
    return USD if token == "USDC" else ONE  # noqa: S105 - a token's symbol


# --- kinds ------------------------------------------------------------------------------------------------------------


def _wallet(facts: Facts) -> list[Part]:
    has = facts.positions
    amounts = (("HOLD", has.hold), ("DIEM", has.diem), ("USDC", has.usdc))
    return [
        Part(Kind.WALLET, token, amount, amount, token, market_cents_nearest(facts, token, amount))
        for token, amount in amounts
    ]


def _staked(facts: Facts) -> list[Part]:
    has = facts.positions
    emitted = (
        facts.emission_per_second * YEAR_DAYS * DAY_S / facts.total_staked if facts.total_staked else 0.0
    )  # HOLD a year on 1 sHOLD that isn't locked
    hold = [
        Part(
            Kind.STAKED,
            name,
            amount,
            amount,
            "HOLD",
            market_cents_nearest(facts, "HOLD", amount),
            yearly=emitted * share,
            source=Source.EMISSION,
        )
        for name, amount, share in (
            ("sHOLD", has.staked_hold - has.locked_hold, 1.0),
            ("sHOLD locked", has.locked_hold, _LOCKED_FIFTHS / 5),
        )
    ]
    price = facts.prices.get("DIEM")
    diem = [
        Part(
            Kind.STAKED,
            "DIEM",
            stake.amount,
            stake.amount,
            "DIEM",
            market_cents_nearest(facts, "DIEM", stake.amount),
            daily=stake.amount,
            yearly=float(YEAR_DAYS / price) if price else None,
            source=Source.INFERENCE,
            beneficiary=stake.beneficiary,
        )
        for stake in has.stakes
    ]
    earned = Part(
        Kind.EARNED, "HOLD", facts.earned, facts.earned, "HOLD", market_cents_nearest(facts, "HOLD", facts.earned)
    )
    return [*hold, *diem, earned]


def _unbonding(facts: Facts) -> list[Part]:
    return [
        Part(
            Kind.UNBONDING,
            request.token,
            request.amount,
            request.amount,
            request.token,
            market_cents_nearest(facts, request.token, request.amount),
            id=request.id,
            ready_at_s=request.ready_at_s,
        )
        for request in facts.positions.requests
    ]


def _dated(facts: Facts) -> list[Part]:
    found = []
    for series in facts.dated.series:
        found.append(_strip(facts, Kind.STRIPS, series.month, series.strips))
        found.append(_principal(facts, Kind.PRINCIPAL, series.month, series.principal))
    today = Day.of(facts.now_s)
    for activated in facts.dated.activated:
        month = activated.month
        if month.end_s <= facts.now_s:
            continue
        # Tomorrow's: on the month's last day nothing is granted from the next 00:00 on.
        running = month.first.number <= today.number + 1 < month.next().first.number
        found.append(
            Part(
                Kind.ACTIVATED,
                f"DIEM-{month}",
                activated.amount,
                _inference_down(activated.amount, month, facts.now_s),
                "USD",
                None,
                daily=activated.amount if running else 0,
                source=Source.INFERENCE,
                ready_at_s=month.end_s,
                beneficiary=activated.beneficiary,
            )
        )
    return found


def _strip(facts: Facts, kind: Kind, month: Month, amount: int) -> Part:
    token, face = f"DIEM-{month}", _inference_down(amount, month, facts.now_s)
    over = month.end_s <= facts.now_s
    market = 0 if over else market_cents_nearest(facts, token, amount)
    middle_s = (max(month.start_s, facts.now_s) + month.end_s) / 2 - facts.now_s
    return Part(
        kind,
        token,
        amount,
        face,
        "USD",
        market,
        yearly=None if over else _discount(Fraction(face, ONE), market, middle_s),
        source=None if over else Source.DISCOUNT,
        ready_at_s=month.end_s,
    )


def _principal(facts: Facts, kind: Kind, month: Month, amount: int) -> Part:
    token = f"pDIEM-{month}"
    worth = facts.prices.get("DIEM")
    over = month.end_s <= facts.now_s  # it can be redeemed now, so that it is DIEM
    market = market_cents_nearest(facts, "DIEM" if over else token, amount)
    becomes = Fraction(amount, ONE) * worth if worth is not None else None
    return Part(
        kind,
        token,
        amount,
        amount,
        "DIEM",
        market,
        yearly=None if becomes is None or over else _discount(becomes, market, month.end_s - facts.now_s),
        source=None if over else Source.DISCOUNT,
        ready_at_s=month.end_s,
    )


def _pooled(facts: Facts) -> list[Part]:
    """Each token of each position, fees included; a position's fees are its yield, on both of its tokens alike."""
    by_id: defaultdict[int, list[Pooled]] = defaultdict(list)
    for each in facts.pooled:
        by_id[each.id].append(each)
    found = []
    for id, sides in by_id.items():
        yearly = _fees_yearly(facts, sides)
        for side in sides:
            whole = _token_part(facts, Kind.POOLED, side.token, side.amount + side.fees)
            found.append(_with(whole, yearly=yearly, source=Source.FEES, id=id))
    return found


def _credit(facts: Facts) -> list[Part]:
    found = []
    for account in facts.accounts:
        book, pledged, owed = account.book, account.health.collateral, account.health.debt
        lent = _token_part(facts, Kind.SUPPLIED, "USDC", account.supplied)
        found.append(_with(lent, yearly=float(book.supply_yearly), source=Source.INTEREST))
        found.append(_token_part(facts, Kind.PLEDGED, account.symbol, pledged))
        debt = _token_part(facts, Kind.BORROWED, "USDC", owed)
        found.append(_with(debt, yearly=-float(book.borrow_yearly), source=Source.INTEREST))
    return found


# --- parts of parts ---------------------------------------------------------------------------------------------------


def _token_part(facts: Facts, kind: Kind, token: str, amount: int) -> Part:
    """A token that is somewhere, by its symbol."""
    dated = token.partition("DIEM-")
    if dated[2]:
        month = Month.parse(dated[2])
        return (_principal if dated[0] else _strip)(facts, kind, month, amount)
    return Part(kind, token, amount, amount, token, market_cents_nearest(facts, token, amount))


def _with(part: Part, *, yearly: float | None, source: Source, id: int | None = None) -> Part:
    return replace(part, yearly=yearly, source=source, id=id)


def _inference_down(amount: int, month: Month, now_s: int) -> int:
    """USD that strips would pay if they were activated now: the rest of today pro rata, and each later day."""
    return amount * max(0, month.end_s - max(month.start_s, now_s)) // DAY_S


def _discount(becomes: Fraction, market_cents: int | None, in_s: float) -> float | None:
    """The yield of a year that takes `market_cents` to `becomes` USD in so many seconds; None within a week."""
    if not market_cents or not becomes or in_s < _LEAST_WAIT_S:
        return None
    grows: float = float(becomes * 100 / market_cents) ** (YEAR_DAYS * DAY_S / in_s)
    return grows - 1


def _fees_yearly(facts: Facts, sides: list[Pooled]) -> float | None:
    age_s = facts.now_s - sides[0].since_s
    prices = [facts.prices.get(side.token) for side in sides]
    if not sides[0].since_s or age_s < _LEAST_AGE_S or None in prices:
        return None
    worth, fees = (
        sum(
            Fraction(amount, units_of(side.token)) * (price or 0)
            for amount, side, price in zip(each, sides, prices, strict=True)
        )
        for each in ([side.amount for side in sides], [side.fees for side in sides])
    )
    return float(fees / worth) * YEAR_DAYS * DAY_S / age_s if worth else None
