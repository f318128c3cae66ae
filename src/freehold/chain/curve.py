"""The mint curve as a table for `Staking.setCurve`: straight lines that stay within 1e-4 of the formula.

The rate at a supply of S DIEM is 90 · exp(2 · (S / 38,000)³) HOLD for 1 DIEM, from 0 to 50,000 DIEM. No float takes
part, so every machine computes the same table.
"""

from decimal import ROUND_CEILING, Decimal, localcontext
from fractions import Fraction

WEI = 10**18
BASE_RATE = 90
SCALE_DIEM = 38_000
END_DIEM = 50_000
MAX_POINTS = 256

TOLERANCE = Decimal("0.0000999")
"""The most that a segment may be off, relative to the formula; under 1e-4, so that rates rounded to wei stay under it."""


def points() -> list[tuple[int, int]]:
    """The table: (supply in wei of DIEM, rate in wei of HOLD for 1 DIEM), from supply 0 on, at most 256 of them.

    Supplies are whole DIEM and rates even numbers of wei, so each segment costs a whole number of wei, which the
    contract requires. Each segment is as long as `error_bound` lets it be: few points where the curve is straight.
    """
    supplies = [0]
    while supplies[-1] < END_DIEM:
        supplies.append(_next(supplies[-1]))
    if len(supplies) > MAX_POINTS:
        raise ValueError(f"the curve needs {len(supplies)} points, and the contract takes {MAX_POINTS}")
    return [(supply * WEI, _rate_up(supply)) for supply in supplies]


def rate(supply_diem: Fraction | int) -> Decimal:
    """The formula itself, in HOLD for 1 DIEM, to 50 digits."""
    with localcontext(prec=60):
        exponent = _exponent(Fraction(supply_diem))
        value = BASE_RATE * (Decimal(exponent.numerator) / exponent.denominator).exp()
    with localcontext(prec=50):
        return +value


def error_bound(start_diem: int, end_diem: int) -> Decimal:
    """How far a straight line from `start_diem` to `end_diem` can be above the formula, relative to it.

    A chord of width h over a convex r is off by at most h²/8 · max r''. Here r'' = r · (f'² + f'') rises with the
    supply, f being the exponent, so that over r(start) it is at most h²/8 · (f'² + f'')(end) · exp(f(end) − f(start)).
    """
    cube = SCALE_DIEM**3
    slope = Fraction(6 * end_diem**2, cube)
    bend = slope**2 + Fraction(12 * end_diem, cube)
    rise = _exponent(Fraction(end_diem)) - _exponent(Fraction(start_diem))
    factor = Fraction((end_diem - start_diem) ** 2, 8) * bend
    with localcontext(prec=40):
        return (
            Decimal(factor.numerator)
            / Decimal(factor.denominator)
            * (Decimal(rise.numerator) / Decimal(rise.denominator)).exp()
        )


def _next(start: int) -> int:
    """The farthest whole supply to which a segment from `start` keeps within the tolerance, by bisection."""
    near, far = start + 1, END_DIEM
    while near < far:
        middle = (near + far + 1) // 2
        if error_bound(start, middle) <= TOLERANCE:
            near = middle
        else:
            far = middle - 1
    return near


def _rate_up(supply: int) -> int:
    """The formula in wei, rounded up to an even number: in favour of the contract."""
    with localcontext(prec=60):
        half = (rate(supply) * WEI / 2).to_integral_value(rounding=ROUND_CEILING)
    return 2 * int(half)


def _exponent(supply: Fraction) -> Fraction:
    return 2 * (supply / SCALE_DIEM) ** 3
