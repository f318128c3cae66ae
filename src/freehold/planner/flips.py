"""The values at which the decision flips. Pure."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from freehold.planner import sizing
from freehold.planner.model import YEAR_DAYS, Assumptions, Floats, Threshold

_FIRST = 1e-6
"""The first DIEM, as a share of the mean day: for the threshold of someone who is advised to hold nothing."""


def thresholds(size: float, demand: Floats, given: Assumptions, unit: str) -> tuple[Threshold, ...]:
    """Utilisation, DIEM price, list-price cut and hazard at which holding `size` costs what paying by the call does.

    At size 0 it is the first DIEM that is asked about; the words follow whether that would pay.
    """
    asked = size if size > 0 else _FIRST * (float(demand.mean()) or 1.0)
    over = sizing.weights(given)
    holds = gain(asked, demand, given) > 0
    return (
        _utilisation(asked, size, demand, given, over, holds),
        _price(asked, demand, given, over, holds),
        _list_price(asked, demand, given, over, holds),
        _hazard(asked, demand, given, holds),
    )


def nearest(found: tuple[Threshold, ...], given: Assumptions) -> Threshold:
    """The one whose value has to move least, relative to itself; a hazard by the chance of surviving the horizon."""

    def distance(each: Threshold) -> float:
        if each.flips_at is None:
            return math.inf
        if each.name == "hazard":
            years = given.horizon_days / YEAR_DAYS
            return abs(math.exp(-each.now * years) - math.exp(-each.flips_at * years))
        if each.name == "list_price_cut":
            return abs(each.flips_at)
        return abs(each.flips_at / each.now - 1) if each.now > 0 else math.inf

    return min(found, key=distance)


def gain(size: float, demand: Floats, given: Assumptions) -> float:
    """What `size` DIEM save against paying for everything by the call, USD over the horizon."""
    costs = sizing.hold_many(np.array([0.0, size]), demand, given)
    return float(costs[0] - costs[1])


def _utilisation(
    asked: float, size: float, demand: Floats, given: Assumptions, over: sizing.Weights, holds: bool
) -> Threshold:
    now = sizing.utilisation(size, demand, over)
    at = sizing.critical_ratio(sizing.carry(given, over), given.lease, given.overflow_price)
    flips = at if 0 <= at <= 1 else None
    if flips is None:
        told = "Holding pays at any utilisation." if at < 0 else "Holding pays at no utilisation."
    elif holds:
        told = f"Holding pays while more than {at:.0%} of the allowance is used; {now:.0%} is."
    else:
        told = (
            f"Holding would pay if more than {at:.0%} of the allowance were used; of the first DIEM {now:.0%} would be."
        )
    return Threshold("utilisation", "Share of the allowance that is used", now, flips, "share", told)


def _price(asked: float, demand: Floats, given: Assumptions, over: sizing.Weights, holds: bool) -> Threshold:
    """hold(N) is a straight line in P_0: the gain is what it serves, less N times what a DIEM loses."""
    lost = asked * sizing.lost_per_diem(given, over)
    served = gain(asked, demand, given) + lost
    flips = given.diem_price * served / lost if lost > 0 and served > 0 else None
    if flips is None:
        told = "Holding pays at any price of DIEM." if lost <= 0 else "Holding pays at no price of DIEM."
    elif holds:
        told = f"Holding pays while a DIEM costs less than {flips:,.2f}; it costs {given.diem_price:,.2f}."
    else:
        told = f"Holding would pay if a DIEM cost less than {flips:,.2f}; it costs {given.diem_price:,.2f}."
    return Threshold("diem_price", "Price of a DIEM", given.diem_price, flips, "USD", told)


def _list_price(asked: float, demand: Floats, given: Assumptions, over: sizing.Weights, holds: bool) -> Threshold:
    """A cut of list prices on day one: the same work costs fewer dollars, and DIEM bought for it lie idle."""

    def at(cut: float) -> float:
        return gain(asked, demand * (1 - cut), given)

    flips = _root(at, 0.0, 1.0) if holds else None
    if flips is not None:
        told = f"Holding this many DIEM pays unless list prices fall by more than {flips:.0%} at once."
    else:
        told = "No cut of list prices changes the decision."
    return Threshold("list_price_cut", "Cut of list prices, at once", 0.0, flips, "share", told)


def _hazard(asked: float, demand: Floats, given: Assumptions, holds: bool) -> Threshold:
    """The gain falls as the hazard rises: fewer days served, and less to sell at the end."""

    def at(hazard: float) -> float:
        return gain(asked, demand, replace(given, hazard=hazard))

    if holds:
        high = max(1.0, 2 * given.hazard)
        while at(high) > 0 and high < 1e9:
            high *= 4
        flips = _root(at, given.hazard, min(high, 1e9))
        told = (
            f"Holding pays while the hazard is below {flips:.2f} a year; {given.hazard:.2f} is assumed."
            if flips is not None
            else "Holding pays whatever the hazard."
        )
    else:
        flips = _root(at, 0.0, given.hazard) if given.hazard > 0 else None
        told = (
            f"Holding would pay if the hazard were below {flips:.2f} a year; {given.hazard:.2f} is assumed."
            if flips is not None
            else "Holding pays at no hazard, not even none."
        )
    return Threshold("hazard", "Rate at which the platform may end", given.hazard, flips, "a year", told)


def _root(function: Callable[[float], float], low: float, high: float) -> float | None:
    """Where a monotone function crosses 0 between `low` and `high`; None when it doesn't."""
    from scipy.optimize import brentq

    at_low, at_high = function(low), function(high)
    if at_low == 0:
        return low
    if at_low * at_high > 0:
        return None
    return float(brentq(function, low, high, xtol=1e-12, rtol=1e-12))
