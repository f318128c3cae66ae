"""Morpho Blue's arithmetic as rules of values: shares, interest, what may be borrowed, what a liquidation takes.

After morpho-blue's SharesMathLib, MathLib and Morpho.sol: the same integers, rounded the same ways, so that what is said
here before a transaction is what the contract then finds. Amounts are base units; rates and LLTVs have 18 decimals; a price
is what 10^36 base units of collateral are worth in base units of the loan.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

WAD = 10**18
PRICE_SCALE = 10**36
YEAR_S = 365 * 86_400
_VIRTUAL_SHARES = 10**6
_VIRTUAL_ASSETS = 1
_CURSOR = 3 * 10**17
_MAX_INCENTIVE = 115 * 10**16


def mul_div_down(a: int, b: int, by: int) -> int:
    return a * b // by


def mul_div_up(a: int, b: int, by: int) -> int:
    return -(-a * b // by)


@dataclass(frozen=True, slots=True)
class Book:
    """A market's totals."""

    supply_assets: int
    supply_shares: int
    borrow_assets: int
    borrow_shares: int
    updated_s: int
    fee: int
    """The part of the interest that the market's owner takes."""
    rate: int = 0
    """What a borrower pays a second, as the rate model says for these totals."""

    def at(self, now_s: int) -> "Book":
        """With the interest until then."""
        elapsed = max(0, now_s - self.updated_s)
        interest = mul_div_down(self.borrow_assets, compounded(self.rate, elapsed), WAD)
        supply = self.supply_assets + interest
        taken = mul_div_down(interest, self.fee, WAD)
        shares = mul_div_down(taken, self.supply_shares + _VIRTUAL_SHARES, supply - taken + _VIRTUAL_ASSETS)
        return replace(
            self,
            supply_assets=supply,
            supply_shares=self.supply_shares + shares,
            borrow_assets=self.borrow_assets + interest,
            updated_s=max(now_s, self.updated_s),
        )

    @property
    def liquid(self) -> int:
        """What can be borrowed, or withdrawn, by all together."""
        return self.supply_assets - self.borrow_assets

    @property
    def borrow_yearly(self) -> Fraction:
        """What a debt grows by in a year, compounded."""
        return Fraction(compounded(self.rate, YEAR_S), WAD)

    @property
    def supply_yearly(self) -> Fraction:
        """What lenders get in a year: the borrowers' interest, spread over all that is supplied, after the fee."""
        if not self.supply_assets:
            return Fraction(0)
        used = Fraction(self.borrow_assets, self.supply_assets)
        return self.borrow_yearly * used * Fraction(WAD - self.fee, WAD)

    def supplied_down(self, shares: int) -> int:
        return mul_div_down(shares, self.supply_assets + _VIRTUAL_ASSETS, self.supply_shares + _VIRTUAL_SHARES)

    def debt_up(self, shares: int) -> int:
        return mul_div_up(shares, self.borrow_assets + _VIRTUAL_ASSETS, self.borrow_shares + _VIRTUAL_SHARES)

    def debt_down(self, shares: int) -> int:
        return mul_div_down(shares, self.borrow_assets + _VIRTUAL_ASSETS, self.borrow_shares + _VIRTUAL_SHARES)

    def debt_shares_down(self, assets: int) -> int:
        return mul_div_down(assets, self.borrow_shares + _VIRTUAL_SHARES, self.borrow_assets + _VIRTUAL_ASSETS)

    def debt_shares_up(self, assets: int) -> int:
        return mul_div_up(assets, self.borrow_shares + _VIRTUAL_SHARES, self.borrow_assets + _VIRTUAL_ASSETS)


def compounded(rate: int, seconds: int) -> int:
    """e^(rate·seconds) − 1 by the first three terms of its series, as Morpho reckons it."""
    first = rate * seconds
    second = mul_div_down(first, first, 2 * WAD)
    return first + second + mul_div_down(second, first, 3 * WAD)


@dataclass(frozen=True, slots=True)
class Health:
    """A debt against its collateral."""

    collateral: int
    debt: int
    """Rounded up, as Morpho does."""
    price: int
    lltv: int

    @property
    def worth(self) -> int:
        """The collateral's, in base units of the loan."""
        return mul_div_down(self.collateral, self.price, PRICE_SCALE)

    @property
    def most(self) -> int:
        """The highest debt that the collateral allows."""
        return mul_div_down(self.worth, self.lltv, WAD)

    @property
    def spare(self) -> int:
        """What could be borrowed still."""
        return max(0, self.most - self.debt)

    @property
    def healthy(self) -> bool:
        return self.debt <= self.most

    @property
    def ltv(self) -> Fraction | None:
        """Debt for worth; None for a debt against nothing."""
        if not self.debt:
            return Fraction(0)
        return Fraction(self.debt, self.worth) if self.worth else None

    @property
    def liquidation_price(self) -> int | None:
        """The lowest price at which it is healthy; None without a debt, or without collateral."""
        if not self.debt or not self.collateral:
            return None
        return mul_div_up(self._worth_needed, PRICE_SCALE, self.collateral)

    @property
    def distance(self) -> Fraction | None:
        """By how much of itself the price may fall; negative when it has fallen too far already."""
        if self.liquidation_price is None or not self.price:
            return None
        return 1 - Fraction(self.liquidation_price, self.price)

    @property
    def free_collateral(self) -> int:
        """What could be taken out."""
        if not self.debt:
            return self.collateral
        if not self.price:
            return 0
        return max(0, self.collateral - mul_div_up(self._worth_needed, PRICE_SCALE, self.price))

    @property
    def _worth_needed(self) -> int:
        return mul_div_up(self.debt, WAD, self.lltv)


@dataclass(frozen=True, slots=True)
class Liquidation:
    """What a liquidator pays, and gets."""

    shares: int
    """Of the debt that is repaid; 0 when all of the collateral is named instead."""
    seized: int
    repaid: int
    unpaid: int
    """Debt that no collateral is left for: the lenders bear it."""


def incentive(lltv: int) -> int:
    """What a liquidator gets for 1 repaid: min(1.15, 1 / (1 − 0.3·(1 − LLTV)))."""
    return min(_MAX_INCENTIVE, mul_div_down(WAD, WAD, WAD - mul_div_down(_CURSOR, WAD - lltv, WAD)))


def liquidation(book: Book, health: Health, shares: int, *, most: int | None = None) -> Liquidation:
    """Of a debt of `shares`: all of it, or as much as `most` pays for, or as the collateral is worth. Health unchecked."""
    factor = incentive(health.lltv)
    wanted = shares if most is None else min(shares, book.debt_shares_down(most))
    paid_for = mul_div_down(book.debt_down(wanted), factor, WAD)
    seized = mul_div_down(paid_for, PRICE_SCALE, health.price)
    if seized <= health.collateral:
        left = health.collateral - seized
        unpaid = 0 if left else book.debt_up(shares - wanted)
        return Liquidation(wanted, seized, book.debt_up(wanted), unpaid)
    quoted = mul_div_up(health.collateral, health.price, PRICE_SCALE)
    repaid = book.debt_shares_up(mul_div_up(quoted, WAD, factor))
    return Liquidation(0, health.collateral, book.debt_up(repaid), book.debt_up(max(0, shares - repaid)))
