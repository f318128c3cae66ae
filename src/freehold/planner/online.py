"""Rules for demand that nobody knows: when to stop renting and buy. Pure.

Sources: ski rental, Karlin, Manasse, Rudolph and Sleator, "Competitive Snoopy Caching" (1988), randomised by Karlin,
Manasse, McGeoch and Owicki (1990); reservation of instances level by level, Wang, Liang and Li, "To Reserve or Not to
Reserve: Optimal Online Multi-Instance Acquisition in IaaS Clouds" (ICAC 2013); the forecast-trusting rule, Purohit,
Svitkina and Kumar, "Improving Online Algorithms via ML Predictions" (NeurIPS 2018).

Demand is cut into levels: level x is used on the days with demand above x. Each level is a ski rental of its own: pay
per day of use, or once. Costs are in units of a day's use of the level by the call, unless said otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from freehold.planner.model import Floats

WANG_LIANG_LI = "Wang, Liang and Li, ICAC 2013"
PUROHIT = "Purohit, Svitkina and Kumar, NeurIPS 2018"


# --- ski rental, in whole days ----------------------------------------------------------------------------------------


def ski_rental_cost(days: int, bought_on: int | None, buy: int) -> int:
    """Rent 1 a day until the day `bought_on` (from 1), then pay `buy` once; skiing ends after `days`."""
    return days if bought_on is None or days < bought_on else bought_on - 1 + buy


def ski_rental_ratio(buy: int) -> float:
    """Worst cost over the clairvoyant's of buying on day `buy`, found by trying every end of skiing: 2 − 1/B."""
    return max(ski_rental_cost(days, buy, buy) / min(days, buy) for days in range(1, 2 * buy + 1))


def ski_rental_days(buy: int) -> Floats:
    """Probabilities of buying on day 1 … B under the randomised rule: ∝ (1 − 1/B)^{B−i}."""
    shares = (1 - 1 / buy) ** (buy - np.arange(1, buy + 1, dtype=np.float64))
    result: Floats = shares / shares.sum()
    return result


def randomised_ski_rental_ratio(buy: int) -> float:
    """Worst expected cost over the clairvoyant's of drawing the day from `ski_rental_days`: 1/(1 − (1 − 1/B)^B)."""
    chances = ski_rental_days(buy)
    return max(
        sum(float(p) * ski_rental_cost(days, day, buy) for day, p in enumerate(chances, 1)) / min(days, buy)
        for days in range(1, buy + 1)
    )


# --- one level, continuous --------------------------------------------------------------------------------------------
# The fee of a level is 1; by the call a use costs 1, and after buying it costs α. Spend is what was paid by the call.


def break_even_spend(alpha: float) -> float:
    """1/(1 − α): spend at which buying at the start would have cost the same."""
    return math.inf if alpha >= 1 else 1 / (1 - alpha)


def level_cost(spend: float, threshold: float, alpha: float) -> float:
    """Cost of a level whose whole use would cost `spend` by the call, bought when that reaches `threshold`."""
    return spend if spend < threshold else threshold + 1 + alpha * (spend - threshold)


def clairvoyant_cost(spend: float, alpha: float) -> float:
    """min(x, 1 + αx)."""
    return min(spend, 1 + alpha * spend)


def deterministic_ratio(alpha: float = 0.0) -> float:
    """2 − α: the worst of buying at the break-even spend, met by use that ends right after buying."""
    at = break_even_spend(alpha)
    return 1.0 if math.isinf(at) else level_cost(at, at, alpha) / clairvoyant_cost(at, alpha)


def randomised_ratio(alpha: float = 0.0) -> float:
    """e/(e − 1 + α): the expected cost over the clairvoyant's of drawing the threshold from `threshold_density`."""
    return math.e / (math.e - 1 + alpha)


def threshold_density(threshold: float, alpha: float = 0.0) -> float:
    """(1−α) e^{(1−α)z}/(e − 1 + α) on [0, 1/(1−α)); the rest of the mass never buys."""
    if not 0 <= threshold < break_even_spend(alpha):
        return 0.0
    return (1 - alpha) * math.exp((1 - alpha) * threshold) / (math.e - 1 + alpha)


def threshold_mass(threshold: float, alpha: float = 0.0) -> float:
    """Chance of a threshold of at most this: (e^{(1−α)z} − 1)/(e − 1 + α), the density's integral."""
    at = min(max(threshold, 0.0), break_even_spend(alpha))
    return math.expm1((1 - alpha) * at) / (math.e - 1 + alpha)


def never_buy_mass(alpha: float = 0.0) -> float:
    """α/(e − 1 + α)."""
    return alpha / (math.e - 1 + alpha)


def random_threshold(chance: float, alpha: float = 0.0) -> float:
    """The threshold at `chance` in [0, 1) of its distribution: the density's inverse, infinite for *never buy*."""
    if chance >= 1 - never_buy_mass(alpha):
        return math.inf
    return math.log1p(chance * (math.e - 1 + alpha)) / (1 - alpha)


def trusting_threshold(forecast: float, trust: float, fee: float = 1.0) -> float:
    """λ·fee when the forecast spend is at least the fee, fee/λ when not; λ = `trust` in (0, 1]."""
    return trust * fee if forecast >= fee else fee / trust


def trusting_ratio_if_right(trust: float) -> float:
    """1 + λ: at most, when the forecast comes true."""
    return 1 + trust


def trusting_ratio(trust: float) -> float:
    """1 + 1/λ: at most, whatever comes."""
    return 1 + 1 / trust


# --- a series of days, level by level ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Demand cut at each distinct value: level i is `width[i]` wide and used on the days where `used[i]` is true."""

    top: Floats
    """The upper edge of each level."""
    width: Floats
    used: np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def levels(demand: Floats, also: Floats | None = None) -> Levels:
    """Cut a series of days into levels, lowest first; with `also`, at its values too.

    Exact: between two distinct demands nothing differs.
    """
    edges = np.unique(demand if also is None else np.concatenate([demand, also]))
    edges = edges[edges > 0]
    return Levels(edges, np.diff(edges, prepend=0.0), demand[None, :] >= edges[:, None])


@dataclass(frozen=True, slots=True)
class _Same:
    """The same threshold for all levels."""

    threshold: float

    def __call__(self, cut: Levels) -> Floats:
        return np.full(len(cut.width), self.threshold)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A rule played over a series of days."""

    cost: float
    held: Floats
    """DIEM held on each day."""


def play(
    demand: Floats,
    thresholds: Callable[[Levels], Floats],
    *,
    fee: float,
    also: Floats | None = None,
    price: float = 1.0,
    lease: float = 0.0,
    window: int | None = None,
) -> Run:
    """Rent each level while its spend in the last `window` days (None: ever) stays within its threshold, then buy it.

    `fee`: of a DIEM for the rest of the series; `price`: of demand by the call; `lease`: what idle credit fetches.
    Levels are cut at `also`, too. A level is bought for the first use that would take its spend above the threshold,
    and serves that use already.
    """
    cut = levels(demand, also)
    spent = np.cumsum(cut.used * price, axis=1)
    if window is not None and window < spent.shape[1]:
        spent[:, window:] -= spent[:, :-window].copy()
    due = cut.used & (spent > thresholds(cut)[:, None] + 1e-9 * fee)
    bought = np.logical_or.accumulate(due, axis=1)
    rented = price * (cut.used & ~bought).sum(axis=1)
    leased = lease * (~cut.used & bought).sum(axis=1)
    cost = float(cut.width @ (rented + fee * bought.any(axis=1) - leased))
    held: Floats = cut.width @ bought
    return Run(cost, held)


def deterministic(demand: Floats, *, fee: float, price: float = 1.0, lease: float = 0.0) -> Run:
    """Buy a level when its spend reaches its fee: at most twice the clairvoyant's cost (idle income left out)."""
    return play(demand, _Same(fee), fee=fee, price=price, lease=lease)


def randomised(demand: Floats, *, fee: float, price: float = 1.0, lease: float = 0.0) -> float:
    """Expected cost of drawing a threshold: exact, since only the uses that are rented before buying matter.

    One draw for all levels has the same expected cost as one for each, since costs of levels add up.
    """
    cut = levels(demand)
    uses = cut.used.sum(axis=1)
    rented = np.arange(len(demand) + 1, dtype=np.float64)
    reached = [threshold_mass(each * price / fee) if fee > 0 else 1.0 for each in (*rented[1:], math.inf)]
    chances = np.diff(reached, prepend=0.0)
    if lease > 0:
        costs = [play(demand, _Same(each * price), fee=fee, price=price, lease=lease).cost for each in rented]
        return float(chances @ np.array(costs))
    paid = price * np.minimum(uses, rented[:, None]) + fee * (uses > rented[:, None])
    return float(chances @ (paid @ cut.width))


def trusting(
    demand: Floats, forecast: Floats, trust: float, *, fee: float, price: float = 1.0, lease: float = 0.0
) -> Run:
    """The forecast-trusting rule level by level: `forecast` is a series of as many days that demand is expected to be."""

    def thresholds(cut: Levels) -> Floats:
        expected = price * (forecast[None, :] >= cut.top[:, None]).sum(axis=1)
        return np.array([trusting_threshold(float(each), trust, fee) for each in expected])

    return play(demand, thresholds, also=forecast, fee=fee, price=price, lease=lease)


def clairvoyant(demand: Floats, *, fee: float, price: float = 1.0, lease: float = 0.0) -> Run:
    """The least cost with the whole series known: each level bought before the first day, or never."""
    cut = levels(demand)
    days = cut.used.shape[1]
    uses = cut.used.sum(axis=1)
    bought = fee - lease * (days - uses)
    cost = float(cut.width @ np.minimum(price * uses, bought))
    held = np.full(days, float(cut.width @ (bought < price * uses)))
    return Run(cost, held)
