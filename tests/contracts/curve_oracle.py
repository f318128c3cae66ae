"""The curve as exact fractions: an independent reckoning of what Staking computes in integers."""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil

WEI = 10**18


class CurveOracle:
    """Straight lines between points of (supply in wei of DIEM, rate in wei of HOLD for 1 DIEM)."""

    def __init__(self, points: Sequence[tuple[int, int]]) -> None:
        self._points = list(points)
        self._supplies = [supply for supply, _ in points]
        self._areas = [Fraction(0)]
        for (supply0, rate0), (supply1, rate1) in pairwise(points):
            self._areas.append(self._areas[-1] + Fraction(rate0 + rate1, 2) * (supply1 - supply0) / WEI)

    @property
    def end(self) -> int:
        return self._supplies[-1]

    def rate(self, supply: Fraction | int) -> Fraction:
        """HOLD in wei for 1 DIEM at `supply` wei."""
        index = min(bisect_right(self._supplies, supply), len(self._points) - 1)
        (supply0, rate0), (supply1, rate1) = self._points[index - 1 : index + 1]
        return rate0 + Fraction(rate1 - rate0) * (supply - supply0) / (supply1 - supply0)

    def area(self, supply: int) -> Fraction:
        """The exact integral of the rate from 0 to `supply` wei, in wei of HOLD."""
        index = min(bisect_right(self._supplies, supply), len(self._points) - 1) - 1
        width = supply - self._supplies[index]
        return self._areas[index] + (self._points[index][1] + self.rate(supply)) / 2 * width / WEI

    def cost(self, supply: int) -> int:
        """C(supply): the integral, rounded up to 1 wei."""
        return ceil(self.area(supply))

    def supply_for(self, target: int) -> int:
        """The largest supply whose cost is at most `target`, by bisection."""
        low, high = 0, self.end
        while low < high:
            middle = (low + high + 1) // 2
            if self.area(middle) <= target:
                low = middle
            else:
                high = middle - 1
        return low
