"""Rent, hold, carry and size in closed form: expected values, no scenarios. Pure.

The model, over days d = 1 … T of the horizon (an allowance bought today is usable from tomorrow on):

    rent    = Σ β_d q D_d
    hold(N) = N P_0 (1+f) − β_{T+U} S_{T+U} E[P_{T+U} | alive] (1−f) N
              + Σ β_d { S_d [ q' (D_d − N)^+ − l (N − D_d)^+ ] + (1 − S_d) q D_d }
    κ       = [ P_0 (1+f) − β_{T+U} S_{T+U} E[P_{T+U} | alive] (1−f) ] / Σ β_d S_d

Source: the newsvendor with a daily sale, as in Arrow, Harris and Marschak, "Optimal Inventory Policy" (1951); its
critical fractile is (κ − l)/(q' − l) here. A demand history stands for the distribution: on day d of the horizon the
demand is one of the days seen, each as likely, times G_d = e^{(growth + change of list prices)·d/365}.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from freehold.planner.model import YEAR_DAYS, Assumptions, Floats

_FEW = 4


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a dollar of each day of the horizon counts for today."""

    discount: Floats
    """β_d, d = 1 … T."""
    alive: Floats
    """S_d: the platform still honours DIEM on day d."""
    growth: Floats
    """G_d: demand of day d over demand as seen."""
    exit: float
    """β_{T+U} S_{T+U} E[P_{T+U} | alive] / P_0: what a dollar of DIEM bought today is worth at the end, before the fee."""

    @property
    def served(self) -> float:
        """Σ β_d S_d: DIEM-days that one DIEM is expected to serve, discounted."""
        return float(self.discount @ self.alive)


def discount(rate: float, days: Floats | float) -> Any:
    """β = e^{−r·d/365}."""
    return np.exp(-rate * np.asarray(days) / YEAR_DAYS)


def survival(hazard: float, days: Floats | float) -> Any:
    """S = e^{−h·d/365}: nothing has happened by day d, at a constant hazard rate."""
    return np.exp(-hazard * np.asarray(days) / YEAR_DAYS)


def weights(given: Assumptions) -> Weights:
    """β, S and G of each day, and the value of the exit."""
    days = np.arange(1, given.horizon_days + 1, dtype=np.float64)
    end = float(given.horizon_days + given.unbonding_days)
    return Weights(
        discount=discount(given.discount_rate, days),
        alive=survival(given.hazard, days),
        growth=np.exp((given.demand_growth + given.list_price_change) * days / YEAR_DAYS),
        exit=float(discount(given.discount_rate, end) * survival(given.hazard, end)) * given.resale,
    )


def outlay_per_diem(given: Assumptions) -> float:
    """P_0 (1+f), USD."""
    return given.diem_price * (1 + given.fee)


def lost_per_diem(given: Assumptions, over: Weights | None = None) -> float:
    """What is lost between buying a DIEM today and selling it at the end: κ's numerator, USD."""
    over = over or weights(given)
    return outlay_per_diem(given) - given.diem_price * over.exit * (1 - given.fee)


def carry(given: Assumptions, over: Weights | None = None) -> float:
    """κ: what a DIEM-day costs, USD. Infinite when no day is expected to be served."""
    over = over or weights(given)
    lost, served = lost_per_diem(given, over), over.served
    if served > 0:
        return lost / served
    return math.inf if lost > 0 else -math.inf


def rent(demand: Floats, given: Assumptions, over: Weights | None = None) -> float:
    """Σ β_d q E[D_d], USD over the horizon. `demand`: the days seen. The hazard has no part in it."""
    over = over or weights(given)
    return given.rent_ratio * float(demand.mean()) * float(over.discount @ over.growth)


def hold(size: float, demand: Floats, given: Assumptions, over: Weights | None = None) -> float:
    """hold(N), USD over the horizon, with lease income only up to the depth of the lease market, when that is known."""
    over = over or weights(given)
    return hold_many(np.array([size], dtype=np.float64), demand, given, over).item()


def hold_many(sizes: Floats, demand: Floats, given: Assumptions, over: Weights | None = None) -> Floats:
    """hold(N) for each of `sizes`, sorted or not."""
    over = over or weights(given)
    served = over.discount * over.alive
    pool, mass = pooled(demand, over)
    above = _above(sizes, pool, mass)
    idle = above + sizes * served.sum() - float(pool @ mass)
    depth = given.lease_depth
    sold = idle if depth is None else idle - _below(sizes - depth, pool, mass)
    dead = given.rent_ratio * float(demand.mean()) * float((over.discount * (1 - over.alive)) @ over.growth)
    result: Floats = sizes * lost_per_diem(given, over) + given.overflow_price * above - given.lease * sold + dead
    return result


def pooled(demand: Floats, over: Weights) -> tuple[Floats, Floats]:
    """Every demand of the horizon while the platform lives, and the weight β_d S_d / n that it has."""
    served = over.discount * over.alive
    if bool((over.growth == over.growth[0]).all()):
        return demand * over.growth[0], np.full(len(demand), served.sum() / len(demand))
    pool = np.outer(over.growth, demand).ravel()
    return pool, np.repeat(served / len(demand), len(demand))


def _above(sizes: Floats, pool: Floats, mass: Floats) -> Floats:
    """Σ mass (D − N)^+ for each N: by prefix sums when there are many N, else one by one, which needs no sorting."""
    if len(sizes) <= _FEW:
        return np.array([float(np.maximum(pool - size, 0.0) @ mass) for size in sizes.tolist()])
    order = np.argsort(pool)
    ranked, heavy = pool[order], mass[order]
    tail_mass = np.append(np.cumsum(heavy[::-1])[::-1], 0.0)
    tail = np.append(np.cumsum((heavy * ranked)[::-1])[::-1], 0.0)
    at = np.searchsorted(ranked, sizes, side="right")
    result: Floats = np.maximum(tail[at] - sizes * tail_mass[at], 0.0)
    return result


def _below(sizes: Floats, pool: Floats, mass: Floats) -> Floats:
    """Σ mass (N − D)^+ for each N."""
    return _above(-sizes, -pool, mass)


def critical_ratio(kappa: float, lease: float, overflow_price: float) -> float:
    """u* = (κ − l)/(q' − l): the utilisation at which a DIEM pays for itself, and P(D > N*). ±∞ where l = q'."""
    if overflow_price > lease:
        return (kappa - lease) / (overflow_price - lease)
    return math.inf if kappa >= overflow_price else -math.inf


def fractile(demand: Any, ratio: float) -> float:
    """N* with P(D > N*) = ratio, of a continuous distribution with `isf` (scipy.stats, frozen). 0 for ratio ≥ 1."""
    return 0.0 if ratio >= 1 else max(0.0, float(demand.isf(max(ratio, 0.0))))


def daily_cost(size: float, demand: Any, *, kappa: float, lease: float = 0.0, overflow_price: float = 1.0) -> float:
    """κN + q' E(D−N)^+ − l E(N−D)^+ of a day, for a continuous demand ≥ 0 with `sf` and `mean` (scipy.stats, frozen)."""
    from scipy.integrate import quad

    above = float(quad(demand.sf, size, np.inf)[0])
    return kappa * size + overflow_price * above - lease * (above + size - float(demand.mean()))


@dataclass(frozen=True, slots=True)
class Size:
    """N*, and what stopped it: nothing, `budget`, `lease depth` or `demand`."""

    diem: float
    cap: str = ""


def best_size(demand: Floats, given: Assumptions, over: Weights | None = None) -> Size:
    """The N that minimises hold(N), capped by the budget.

    hold(N) is convex and straight between kinks: at each demand D, where a dollar more of allowance turns from saving
    q' into earning l, and at D + depth, where it earns nothing more. N* is the least N at which what a DIEM-day costs
    is at least what the kinks above it still bring. Without a known depth and with κ ≤ l any number of DIEM would pay;
    no more are advised than the busiest day uses, since nothing says that the rest could be leased.
    """
    over = over or weights(given)
    kappa, price = carry(given, over), given.overflow_price
    most = math.inf if given.budget is None else given.budget / outlay_per_diem(given)
    if kappa >= price:
        return Size(0.0)
    pool, mass = pooled(demand, over)
    if kappa <= given.lease and given.lease_depth is None:
        best, cap = float(pool.max()), "demand"
    else:
        best = _least_kink(pool, mass, given, kappa * float(mass.sum()))
        cap = "lease depth" if kappa <= given.lease else ""
    return Size(most, "budget") if best > most else Size(best, cap)


def _least_kink(pool: Floats, mass: Floats, given: Assumptions, costs: float) -> float:
    """The least kink above which no more than `costs` is brought per DIEM; 0 when even the first DIEM brings less."""
    depth = given.lease_depth
    kinks = [pool]
    gains = [(given.overflow_price - given.lease) * mass]
    brought = 0.0 if depth is not None else given.lease * float(mass.sum())
    if depth is not None:
        kinks.append(pool + depth)
        gains.append(given.lease * mass)
    at, gain = np.concatenate(kinks), np.concatenate(gains)
    order = np.argsort(at, kind="stable")
    at, gain = at[order], gain[order]
    beyond = brought + np.append(np.cumsum(gain[::-1])[::-1], 0.0)
    tolerance = 1e-12 * max(abs(costs), 1e-300)
    candidates = np.append(0.0, at)
    for_sale = beyond[np.searchsorted(at, candidates, side="right")]
    enough = np.flatnonzero(for_sale <= costs + tolerance)
    return float(candidates[enough[0]]) if len(enough) else float(at[-1])


def above_and_idle(size: float, demand: Floats) -> tuple[float, float]:
    """E (D − N)^+ and E (N − D)^+ of a day, over the days seen."""
    above = float(np.maximum(demand - size, 0.0).mean())
    return above, size - float(demand.mean()) + above


def utilisation(size: float, demand: Floats, over: Weights) -> float:
    """Share of the allowance of `size` DIEM that is used while the platform lives; of the first DIEM at size 0."""
    pool, mass = pooled(demand, over)
    total = float(mass.sum())
    if total <= 0:
        return 0.0
    if size <= 0:
        return float(mass[pool > 0].sum()) / total
    used = float(np.minimum(pool, size) @ mass)
    return used / (size * total)


def value_per_day(used: float, given: Assumptions) -> float:
    """u q' + l (1 − u): what a DIEM-day brings at utilisation u, USD."""
    return used * given.overflow_price + given.lease * (1 - used)


def payback_days(price: float, per_day: float) -> float | None:
    """P_0 / (u q' + l (1 − u)); None when a day brings nothing."""
    return price / per_day if per_day > 0 else None


def implied_total_rate(price: float, per_day: float) -> float:
    """r + h with which an endless stream of `per_day` is worth `price`: 365·v / P_0, a year.

    From P_0 = ∫ v·365·e^{−(r+h)t} dt, the price of a perpetuity that may end at a constant hazard (Jarrow and
    Turnbull, "Pricing Derivatives on Financial Securities Subject to Credit Risk", 1995).
    """
    return YEAR_DAYS * per_day / price
