"""How bad it can be: spreads, CVaR, and the size that minds it. Pure.

CVaR_α is the mean of the dearest 1 − α of the outcomes: Rockafellar and Uryasev, "Optimization of Conditional
Value-at-Risk" (2000); for outcomes with atoms, the fractional split of Acerbi and Tasche, "On the Coherence of
Expected Shortfall" (2002).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from freehold.planner.model import Floats, Spread

LEVEL = 0.95
_GOLDEN = (math.sqrt(5) - 1) / 2


def cvar(costs: Floats, level: float = LEVEL) -> float:
    """Mean of the dearest 1 − level of equally likely costs; the outcome on the boundary counts in part."""
    tail = (1 - level) * len(costs)
    whole = min(int(tail + 1e-9), len(costs) - 1)
    ranked = np.partition(costs, len(costs) - whole - 1)
    boundary = float(ranked[len(costs) - whole - 1])
    dearest = float(ranked[len(costs) - whole :].sum()) if whole else 0.0
    return (dearest + (tail - whole) * boundary) / tail


def cvar_of(costs: Any, level: float = LEVEL) -> float:
    """CVaR of a continuous distribution with `ppf` (scipy.stats, frozen): 1/(1−α) ∫_α^1 ppf(u) du."""
    from scipy.integrate import quad

    return float(quad(costs.ppf, level, 1.0, limit=200)[0]) / (1 - level)


def gaussian_cvar(mean: float, deviation: float, level: float = LEVEL) -> float:
    """μ + σ φ(z_α)/(1 − α): CVaR of a normal cost (Rockafellar and Uryasev 2000, proposition 1)."""
    from scipy.stats import norm

    return mean + deviation * float(norm.pdf(norm.ppf(level))) / (1 - level)


def spread(costs: Floats) -> Spread:
    """Mean, P10, P50, P90 and CVaR95 of equally likely costs."""
    p10, p50, p90 = (float(each) for each in np.quantile(costs, [0.1, 0.5, 0.9]))
    return Spread(mean=float(costs.mean()), p10=p10, p50=p50, p90=p90, cvar95=cvar(costs))


def mean_and_cvar(costs: Floats, weight: float, level: float = LEVEL) -> float:
    """mean + λ·CVaR_level."""
    return float(costs.mean()) + (weight * cvar(costs, level) if weight else 0.0)


def least_risk_size(
    costs: Callable[[float], Floats], most: float, weight: float, *, level: float = LEVEL, tolerance: float = 1e-6
) -> float:
    """The N in 0 … most that minimises mean + λ·CVaR of `costs(N)`, one cost per path.

    Each path's cost is convex in N, and mean + λ·CVaR is convex and monotone in the costs, so the sum is convex in N
    and golden-section search ends within `tolerance · most` of a minimum: the same as the linear programme of
    Rockafellar and Uryasev, whose size would be paths × days. Where 0 is as good, 0.
    """

    def value(size: float) -> float:
        return mean_and_cvar(costs(size), weight, level)

    low, high = 0.0, most
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > tolerance * most:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(right)
    best = (low + high) / 2
    ends = sorted([(value(0.0), 0.0), (value(best), best), (value(most), most)])
    return ends[0][1]
