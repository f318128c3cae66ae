"""What could go wrong: named worst cases, each risk alone, and the tornado. Pure."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from freehold.planner import risk, scenarios, sizing
from freehold.planner.flips import gain
from freehold.planner.model import YEAR_DAYS, Assumptions, Floats, RiskPart, TornadoBar, Usage, WorstCase

_DRAWS = 20_000
_WEEK = 7


# --- worst cases ------------------------------------------------------------------------------------------------------


def worst_cases(size: float, demand: Floats, given: Assumptions) -> tuple[WorstCase, ...]:
    """Each event at its full force, all else as expected; the largest loss first."""

    def case(name: str, label: str, demand: Floats, given: Assumptions) -> WorstCase:
        return WorstCase(name, label, sizing.hold(size, demand, given), sizing.rent(demand, given))

    over = sizing.weights(given)
    rented = sizing.rent(demand, given, over)
    thin = replace(given, resale=given.resale * given.stressed_exit)
    found = [
        WorstCase(
            "platform ends",
            "The platform stops honouring DIEM the day after they are bought",
            size * sizing.outlay_per_diem(given) + rented,
            rented,
        ),
        case("no resale", "Nothing can be sold at the end", demand, replace(given, resale=0.0)),
        case("thin market", f"A sale at the end gets {given.stressed_exit:.0%} of the price", demand, thin),
        case("list prices halve", "List prices halve at once, so the same work costs half", demand / 2, given),
        case("usage stops", "Nothing is called any more from tomorrow on", np.zeros_like(demand), given),
        case(
            "quietest week",
            "Every week is like the quietest one seen",
            np.full_like(demand, _quietest(demand)),
            given,
        ),
        case("usage doubles", "Twice as much is called from tomorrow on", demand * 2, given),
    ]
    return tuple(sorted(found, key=lambda each: -each.loss))


def _quietest(demand: Floats) -> float:
    days = min(_WEEK, len(demand))
    return float(np.convolve(demand, np.full(days, 1 / days), mode="valid").min())


# --- each risk alone --------------------------------------------------------------------------------------------------


def risks(size: float, usage: Usage, given: Assumptions, list_prices: Floats | None = None) -> tuple[RiskPart, ...]:
    """What each risk adds to cost(hold) − cost(rent) in its dearest twentieth, while the others stay as expected.

    `list_prices`: rows that demand is multiplied by; without them the risk is that list prices halve at once.
    """
    adds = {
        "demand": ("How much is called", _demand_risk(size, usage, given)),
        "price": ("What DIEM fetch at the end", _price_risk(size, given)),
        "list price": ("What the same work costs by the call", _list_price_risk(size, usage, given, list_prices)),
        "platform": ("Whether the platform honours DIEM to the end", _platform_risk(size, usage.demand, given)),
        "liquidity": ("Whether the market takes what is sold", _liquidity_risk(size, given)),
        "unbonding": ("The wait between asking to unstake and selling", _unbonding_risk(size, given)),
    }
    total = sum(cost for _, cost in adds.values())
    return tuple(RiskPart(name, label, cost, cost / total if total else 0.0) for name, (label, cost) in adds.items())


def _beyond(excess: Floats) -> float:
    return max(0.0, risk.cvar(excess) - float(excess.mean()))


def _demand_risk(size: float, usage: Usage, given: Assumptions) -> float:
    rng = np.random.default_rng(given.seed)
    over = sizing.weights(given)
    paths = min(given.paths, 2_000)
    picked = scenarios.bootstrap(usage.days, given.horizon_days, paths, rng)
    demand = usage.demand[picked] * over.growth
    served = over.discount * over.alive
    bought_by_call = _by_call(size, demand, given)
    return _beyond((bought_by_call - given.rent_ratio * demand) @ served)


def _by_call(size: float, demand: Floats, given: Assumptions) -> Floats:
    """q' (D − N)^+ − l (N − D)^+ of each day, the latter up to the lease market's depth."""
    above = np.maximum(demand - size, 0.0)
    idle = size - demand + above
    if given.lease_depth is not None:
        idle = np.minimum(idle, given.lease_depth)
    result: Floats = given.overflow_price * above - given.lease * idle
    return result


def _price_risk(size: float, given: Assumptions) -> float:
    rng = np.random.default_rng(given.seed)
    over = sizing.weights(given)
    end = np.array([float(given.horizon_days)])
    price = scenarios.prices(given, end, _DRAWS, rng)[:, 0]
    sold = given.diem_price * (1 - given.fee) * over.exit * price / max(float(price.mean()), 1e-300)
    return _beyond(-size * sold)


def _list_price_risk(size: float, usage: Usage, given: Assumptions, list_prices: Floats | None) -> float:
    if list_prices is None:
        return max(0.0, gain(size, usage.demand, given) - gain(size, usage.demand / 2, given))
    over = sizing.weights(given)
    rows = list_prices[:500]
    demand = float(usage.demand.mean()) * over.growth * rows
    bought_by_call = _by_call(size, demand, given)
    return _beyond((bought_by_call - given.rent_ratio * demand) @ (over.discount * over.alive))


def _platform_risk(size: float, demand: Floats, given: Assumptions) -> float:
    """The day of the end is exponential; until it holding costs what is expected, after it all is paid by the call."""
    over = sizing.weights(given)
    lived = scenarios.lifetimes(given.hazard, _DRAWS, np.random.default_rng(given.seed))
    served = np.array([float(np.minimum(demand * g, size).mean()) for g in np.unique(over.growth)])
    daily = served[np.searchsorted(np.unique(over.growth), over.growth)]
    brought = (given.overflow_price - given.lease) * daily + given.lease * size
    so_far = np.append(0.0, np.cumsum(over.discount * brought))
    days = np.minimum(lived, given.horizon_days).astype(np.int64)
    end = float(given.horizon_days + given.unbonding_days)
    sold = given.diem_price * (1 - given.fee) * given.resale * float(sizing.discount(given.discount_rate, end))
    return _beyond(-so_far[days] - size * sold * (lived >= end))


def _liquidity_risk(size: float, given: Assumptions) -> float:
    over = sizing.weights(given)
    return size * given.diem_price * (1 - given.fee) * over.exit * (1 - given.stressed_exit)


def _unbonding_risk(size: float, given: Assumptions) -> float:
    """Over the days between asking and selling, price and platform still move."""
    if given.unbonding_days == 0:
        return 0.0
    rng = np.random.default_rng(given.seed)
    over = sizing.weights(given)
    years = given.unbonding_days / YEAR_DAYS
    moved = np.exp(given.volatility * np.sqrt(years) * rng.standard_normal(_DRAWS) - given.volatility**2 * years / 2)
    alive = scenarios.lifetimes(given.hazard, _DRAWS, rng) >= given.unbonding_days
    kept = float(sizing.survival(given.hazard, float(given.unbonding_days)))
    sold = given.diem_price * (1 - given.fee) * over.exit / max(kept, 1e-300)
    return _beyond(-size * sold * moved * alive)


# --- tornado ----------------------------------------------------------------------------------------------------------


def tornado(size: float, demand: Floats, given: Assumptions) -> tuple[TornadoBar, ...]:
    """How the saving of `size` against paying by the call moves with each assumption; the widest first."""

    def saving(given: Assumptions) -> float:
        return gain(size, demand, given)

    def bar(name: str, label: str, unit: str, low: float, high: float, at: Callable[[float], float]) -> TornadoBar:
        return TornadoBar(name, label, low, high, at(low), at(high), unit)

    price, hazard, rate = given.diem_price, given.hazard, given.discount_rate
    most_lease = given.overflow_price
    bars = [
        bar("demand", "Usage", "x", 0.7, 1.3, lambda x: gain(size, demand * x, given)),
        bar(
            "diem_price", "Price of a DIEM", "USD", 0.7 * price, 1.3 * price,
            lambda x: saving(replace(given, diem_price=x)),
        ),
        bar("resale", "Share of the price got at the end", "x", 0.0, max(1.0, given.resale), lambda x: saving(replace(given, resale=x))),
        bar(
            "hazard", "Rate at which the platform may end", "a year", 0.5 * hazard, min(1e9, 2 * hazard or 0.2),
            lambda x: saving(replace(given, hazard=x)),
        ),
        bar("list_price_cut", "List prices fall at once by", "share", 0.5, 0.0, lambda x: gain(size, demand * (1 - x), given)),
        bar(
            "rent_ratio", "What the work costs elsewhere", "x", 0.8 * given.rent_ratio, 1.2 * given.rent_ratio,
            lambda x: saving(replace(given, rent_ratio=x, lease=min(given.lease, x))),
        ),
        bar("lease", "What idle credit fetches", "USD", 0.0, min(most_lease, given.lease + 0.25), lambda x: saving(replace(given, lease=x))),
        bar(
            "discount_rate", "Discount rate", "a year", max(-0.5, rate - 0.05), rate + 0.05,
            lambda x: saving(replace(given, discount_rate=x)),
        ),
        bar("fee", "Fee of buying and selling", "share", 0.0, min(0.99, max(0.01, 2 * given.fee)), lambda x: saving(replace(given, fee=x))),
    ]  # fmt: skip
    return tuple(sorted(bars, key=lambda each: -each.swing))
