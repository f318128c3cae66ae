"""How a plan's numbers are written: in its own unit, in the currency asked for, in few digits."""

import math
from dataclasses import dataclass

from freehold.planner.model import Plan, Unit


@dataclass(frozen=True, slots=True)
class Amounts:
    """Writes amounts of one plan. Relative plans have no currency: their unit is the mean day's use."""

    unit: Unit
    currency: str = "USD"
    per_usd: float = 1.0

    @classmethod
    def of(cls, plan: Plan) -> "Amounts":
        given = plan.assumptions
        return cls(plan.unit, given.currency, given.currency_per_usd)

    @property
    def name(self) -> str:
        """The unit of `money`."""
        return self.currency if self.unit is Unit.USD else str(self.unit)

    def scaled(self, amount: float) -> float:
        """USD in the currency asked for; other units stay."""
        return amount * self.per_usd if self.unit is Unit.USD else amount

    def money(self, amount: float) -> str:
        """With its unit: `1,234.50 USD`."""
        return f"{self.bare(amount)} {self.name}" if math.isfinite(amount) else "without bound"

    def bare(self, amount: float) -> str:
        """Without its unit, for tables whose heading has it."""
        return number(self.scaled(amount))

    def diem(self, size: float) -> str:
        """A size: DIEM, or of a relative plan what they serve."""
        return f"{number(size)} DIEM" if self.unit is Unit.USD else f"DIEM for {number(size)} {self.unit}"


def number(value: float) -> str:
    """Two decimals from 10 on, more below; thousands with commas; no minus before zero."""
    if not math.isfinite(value):
        return "without bound"
    size = abs(value)
    if size >= 100_000:
        text = f"{value:,.0f}"
    elif size >= 10 or size == 0:
        text = f"{value:,.2f}"
    else:
        text = f"{value:.3g}" if size < 0.0001 else f"{value:,.4f}".rstrip("0").rstrip(".")
    return text.removeprefix("-") if not text.strip("-0.,") else text.replace("-", "−", 1) if value < 0 else text


def share(value: float) -> str:
    """0.123 as `12.3 %`."""
    return f"{number_of_share(value * 100)} %" if math.isfinite(value) else "without bound"


def number_of_share(value: float) -> str:
    text = f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text.replace("-", "−", 1)


def days(value: float | None) -> str:
    """A number of days; None is never."""
    if value is None or not math.isfinite(value):
        return "never"
    return f"{value:,.0f} days" if value >= 10 else f"{value:,.1f} days"


def of_unit(value: float | int | None, unit: str, amounts: Amounts) -> str:
    """A threshold's or an assumption's value in its own unit."""
    if value is None:
        return "none"
    if unit == "share":
        return share(value)
    if unit == "USD":
        return amounts.money(value)
    if unit == "a year":
        return f"{share(value)} a year"
    figure = f"{value:,}" if isinstance(value, int) else number(value)
    return f"{figure} {unit}".strip()
