"""`plan`: from usage and assumptions to the whole answer. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np

from freehold.planner import flips, online, risk, scenarios, sizing, stress
from freehold.planner.alternatives import alternatives
from freehold.planner.model import (
    ENOUGH_DAYS,
    Assumed,
    Assumptions,
    Choice,
    Commitment,
    DayUse,
    Fan,
    Floats,
    ImpliedHazard,
    InvalidAssumption,
    Liquidation,
    MonthFlow,
    OwnGpu,
    Payback,
    Plan,
    PolicyCost,
    Provenance,
    RegretBound,
    SizeCurve,
    Threshold,
    Unit,
    Usage,
)

TRUSTED_DAYS = 28
"""With this many days, the history is a forecast worth trusting in part."""

_CURVE_POINTS = 41
_CURVE_PATHS = 1_000
_MONTH = 30


def plan(
    usage: Usage,
    given: Assumptions,
    *,
    stated: Collection[str] = (),
    commitments: Sequence[Commitment] = (),
    gpus: Sequence[OwnGpu] = (),
    list_prices: Floats | None = None,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Rent, hold, or both, and what defends it.

    `stated`: names of the assumptions that were given, not taken by default. `list_prices`: scenario rows that demand
    is multiplied by (paths × days), from `list_prices.paths`. `sources`: where assumptions were read. Raises InvalidAssumption.
    """
    usage = _comparable(usage, given)
    demand, over = usage.demand, sizing.weights(given)
    best = sizing.best_size(demand, given, over)
    size, kappa = best.diem, sizing.carry(given, over)
    drawn = scenarios.draw(usage, given, list_prices=list_prices)
    rented, held = drawn.rent, drawn.hold(size)
    found = flips.thresholds(size, demand, given, usage.unit)
    nearest = flips.nearest(found, given)
    saving = flips.gain(size, demand, given)
    decision = Choice.HOLD if size > 0 else Choice.RENT
    stressed = size if size > 0 else usage.mean
    return Plan(
        decision=decision,
        size=size,
        threshold=nearest,
        sentence=_sentence(best, saving, nearest, usage.unit, given),
        size_cap=best.cap,
        size_by_risk=risk.least_risk_size(drawn.hold, _most(demand, given, over), given.risk_weight),
        outlay=size * sizing.outlay_per_diem(given),
        unit=usage.unit,
        carry=kappa,
        break_even_utilisation=sizing.critical_ratio(kappa, given.lease, given.overflow_price),
        critical_ratio=min(1.0, max(0.0, sizing.critical_ratio(kappa, given.lease, given.overflow_price))),
        costs=_costs(size, demand, given, over, drawn),
        saving=saving,
        hold_beats_rent=float((held < rented).mean()) if size > 0 else 0.0,
        payback=_payback(size, demand, given, over),
        liquidation=_liquidation(size, demand, given),
        implied_hazard=implied_hazard(given),
        thresholds=found,
        stressed_size=stressed,
        risks=stress.risks(stressed, usage, given, list_prices),
        tornado=stress.tornado(stressed, demand, given),
        worst_cases=stress.worst_cases(stressed, demand, given),
        regret=regret(usage.days, given),
        alternatives=alternatives(demand, given, commitments, gpus),
        size_curve=_curve(size, demand, given, over, drawn),
        fans=_fans(size, drawn),
        usage_days=_usage_days(size, usage),
        flows=_flows(size, demand, given, over),
        mean_daily_demand=usage.mean,
        assumptions=given,
        assumed=assumed(given, stated, sources),
        models=usage.models,
        provenance=_warned(usage.provenance, usage),
    )


def _comparable(usage: Usage, given: Assumptions) -> Usage:
    """A series without prices is measured in its own mean day; what needs dollars is refused then."""
    if usage.unit is Unit.USD:
        return usage
    for name in ("budget", "lease_depth"):
        if getattr(given, name) is not None:
            raise InvalidAssumption(
                name=name,
                value=getattr(given, name),
                reason="This usage has no prices, so dollars can't be compared with it; say what a request costs.",
                param=name,
            )
    mean = usage.mean
    return replace(usage, demand=usage.demand / mean) if mean > 0 else usage


def _most(demand: Floats, given: Assumptions, over: sizing.Weights) -> float:
    """The largest size worth looking at: the busiest day and the lease market's depth, within the budget."""
    busiest = float(demand.max() * over.growth.max()) + (given.lease_depth or 0.0)
    return busiest if given.budget is None else min(busiest, given.budget / sizing.outlay_per_diem(given))


def _sentence(best: sizing.Size, saving: float, nearest: Threshold, unit: Unit, given: Assumptions) -> str:
    days = "1 day" if given.horizon_days == 1 else f"{given.horizon_days:,} days"
    if best.diem <= 0:
        why = "The budget buys none." if best.cap == "budget" else nearest.sentence
        return f"Rent: hold no DIEM and pay by the call for the next {days}. {why}"
    size, saved = _readable(best.diem), _readable(saving)
    if unit is Unit.USD:
        return f"Hold {size} DIEM and pay by the call above that: saves {saved} USD in {days}. {nearest.sentence}"
    return (
        f"Hold DIEM for {size} of a mean day's usage and pay by the call above that: saves {saved} mean days "
        f"in {days}. {nearest.sentence}"
    )


def _readable(amount: float) -> str:
    """Two places; of a small amount, two digits."""
    return f"{amount:,.2f}" if abs(amount) >= 0.01 or amount == 0 else f"{amount:.2g}"


def _costs(
    size: float, demand: Floats, given: Assumptions, over: sizing.Weights, drawn: scenarios.Scenarios
) -> tuple[PolicyCost, ...]:
    """rent, hold (all of the busiest day), mixed (N* and the rest by the call), clairvoyant, and nothing done."""
    rented = sizing.rent(demand, given, over)
    busiest = min(_most(demand, given, over), float(demand.max()))
    known, sizes = drawn.clairvoyant(_most(demand, given, over))
    kept = given.held * given.diem_price * (1 - given.fee) - given.held * sizing.outlay_per_diem(given)
    lines = (
        ("rent", "Pay by the call for everything", 0.0, rented, drawn.rent),
        (
            "hold", "Hold what the busiest day uses", busiest,
            sizing.hold(busiest, demand, given, over), drawn.hold(busiest),
        ),
        ("mixed", "Hold the size advised, the rest by the call", size, sizing.hold(size, demand, given, over), drawn.hold(size)),
        ("clairvoyant", "The best size of each scenario, known in advance", float(sizes.mean()), float(known.mean()), known),
        (
            "nothing", f"Change nothing: keep {given.held:,.2f} DIEM, the rest by the call", given.held,
            sizing.hold(given.held, demand, given, over) + kept, drawn.hold(given.held) + kept,
        ),
    )  # fmt: skip
    return tuple(
        PolicyCost(name, label, diem, expected, risk.spread(costs), rented - expected)
        for name, label, diem, expected, costs in lines
    )


def _payback(size: float, demand: Floats, given: Assumptions, over: sizing.Weights) -> Payback:
    used = sizing.utilisation(size, demand, over)
    per_day = sizing.value_per_day(used, given)
    return Payback(
        utilisation=used,
        days_without_resale=sizing.payback_days(given.diem_price, per_day),
        days_with_resale=sizing.payback_days(max(0.0, sizing.lost_per_diem(given, over)), per_day),
        full_use_days=given.diem_price / given.overflow_price,
    )


def _liquidation(size: float, demand: Floats, given: Assumptions) -> Liquidation:
    without = replace(given, resale=0.0)
    return Liquidation(
        carry=sizing.carry(without),
        cost=sizing.hold(size, demand, without),
        saving=flips.gain(size, demand, without),
        best_size=sizing.best_size(demand, without).diem,
    )


def implied_hazard(given: Assumptions) -> ImpliedHazard:
    """The hazard at which today's price is what an endless DIEM at full use is worth: h = 365·q'/P_0 − r."""
    total = sizing.implied_total_rate(given.diem_price, given.overflow_price)
    return ImpliedHazard(given.overflow_price, total, total - given.discount_rate)


def regret(days: int, given: Assumptions) -> RegretBound:
    """The rule for demand that may not be like the history: trusting it in part when there is enough, else not at all."""
    fee = sizing.lost_per_diem(given) / given.overflow_price
    if days >= TRUSTED_DAYS:
        trust = given.trust
        return RegretBound(
            rule="forecast-trusting",
            label=f"Buy a DIEM after {trust:.0%} of its break-even days where the history says it will be used, else late",
            ratio=online.trusting_ratio(trust),
            ratio_if_right=online.trusting_ratio_if_right(trust),
            threshold_days=max(0.0, trust * fee),
            source=online.PUROHIT,
        )
    ratio = online.deterministic_ratio()
    return RegretBound(
        rule="deterministic",
        label="Rent each level of demand until its bill reaches what a DIEM loses, then buy one",
        ratio=ratio,
        ratio_if_right=ratio,
        threshold_days=max(0.0, fee),
        source=online.WANG_LIANG_LI,
    )


def _curve(
    size: float, demand: Floats, given: Assumptions, over: sizing.Weights, drawn: scenarios.Scenarios
) -> SizeCurve:
    most = max(_most(demand, given, over), size)
    sizes = np.unique(np.append(np.linspace(0.0, most, _CURVE_POINTS), size))
    some = drawn.first(_CURVE_PATHS)
    return SizeCurve(
        diem=_tuple(sizes),
        hold=_tuple(sizing.hold_many(sizes, demand, given, over)),
        hold_cvar95=tuple(risk.cvar(some.hold(float(each))) for each in sizes),
        rent=sizing.rent(demand, given, over),
    )


def _fans(size: float, drawn: scenarios.Scenarios) -> tuple[Fan, ...]:
    days = drawn.mark_days
    found = []
    for name, costs in zip(("rent", "mixed"), drawn.through_time(size), strict=True):
        p10, p50, p90 = np.quantile(costs, [0.1, 0.5, 0.9], axis=0)
        found.append(Fan(name, days, _tuple(p10), _tuple(p50), _tuple(p90)))
    return tuple(found)


def _usage_days(size: float, usage: Usage) -> tuple[DayUse, ...]:
    day = usage.first_day
    found = []
    for each in usage.demand.tolist():
        found.append(DayUse(day, each, min(each, size), max(0.0, each - size), max(0.0, size - each)))
        day = day.next()
    return tuple(found)


def _flows(size: float, demand: Floats, given: Assumptions, over: sizing.Weights) -> tuple[MonthFlow, ...]:
    """Expected cash of each 30 days, of rent and of the size advised. DIEM are bought in month 0, sold after the last."""
    days = len(over.discount)
    mean = float(demand.mean()) * over.growth
    by_growth = {g: sizing.above_and_idle(size, demand * g) for g in np.unique(over.growth).tolist()}
    above, idle = np.array([by_growth[g] for g in over.growth.tolist()]).T
    sold = np.minimum(idle, given.lease_depth) if given.lease_depth is not None else idle
    alive = (
        over.alive * (given.overflow_price * above - given.lease * sold) + (1 - over.alive) * given.rent_ratio * mean
    )
    found: list[MonthFlow] = []
    for name, held, daily in (("rent", 0.0, given.rent_ratio * mean), ("mixed", size, alive)):
        total = 0.0
        for month, first in enumerate(range(0, days, _MONTH)):
            last = min(first + _MONTH, days)
            cash = float(daily[first:last].sum())
            discounted = float(daily[first:last] @ over.discount[first:last])
            worth = held * given.diem_price * (1 - given.fee) * _expected_price(given, last)
            if month == 0:
                cash += held * sizing.outlay_per_diem(given)
                discounted += held * sizing.outlay_per_diem(given)
            if last == days:
                end = days + given.unbonding_days
                cash -= held * given.diem_price * (1 - given.fee) * _expected_price(given, end)
                discounted -= held * given.diem_price * (1 - given.fee) * over.exit
                worth = 0.0
            total += discounted
            found.append(MonthFlow(month, first + 1, last, name, cash, discounted, -total, worth))
    return tuple(found)


def _expected_price(given: Assumptions, day: int) -> float:
    """E[P_d] / P_0, the platform's end counted as 0."""
    end = given.horizon_days + given.unbonding_days
    return float(sizing.survival(given.hazard, float(day))) * float(given.resale ** (day / end))


def assumed(
    given: Assumptions, stated: Collection[str] = (), sources: Mapping[str, str] = MappingProxyType({})
) -> tuple[Assumed, ...]:
    """Every assumption with its value, unit, meaning and source; those not in `stated` are defaults."""
    return tuple(
        Assumed(
            each.name,
            getattr(given, each.name),
            *MEANINGS[each.name][:1],
            each.name not in stated,
            MEANINGS[each.name][1],
            sources.get(each.name, ""),
        )
        for each in fields(given)
    )


MEANINGS = {
    "diem_price": ("USD", "what one DIEM costs today"),
    "horizon_days": ("days", "how far the plan looks"),
    "discount_rate": ("a year", "discount rate of money"),
    "hazard": ("a year", "rate at which the platform may stop honouring DIEM"),
    "volatility": ("a year", "of DIEM's price"),
    "resale": ("of today's price", "price expected at the end, if the platform is alive"),
    "fee": ("share", "lost when buying, and again when selling"),
    "unbonding_days": ("days", "from asking to unstake to having DIEM to sell"),
    "rent_ratio": ("USD per USD", "what the same work costs elsewhere, per dollar of list price"),
    "lease": ("USD per USD", "what a dollar of idle credit fetches"),
    "lease_depth": ("USD a day", "of idle credit that the lease market takes"),
    "budget": ("USD", "the most to spend on DIEM"),
    "held": ("DIEM", "held already"),
    "demand_growth": ("a year", "growth of the workload"),
    "list_price_change": ("a year", "change of list prices"),
    "stressed_exit": ("share", "of the price that a sale in a thin market gets"),
    "risk_weight": ("", "λ of mean + λ·CVaR95"),
    "trust": ("", "λ of the forecast-trusting rule; 1 doesn't trust"),
    "paths": ("", "scenario paths"),
    "seed": ("", "of the scenarios"),
    "currency": ("", "that amounts are shown in"),
    "currency_per_usd": ("", "units of that currency for one USD"),
}


def _warned(provenance: Provenance, usage: Usage) -> Provenance:
    """With the plain warnings that follow from the days alone."""
    found = list(provenance.warnings)
    if usage.days < ENOUGH_DAYS:
        days = "1 day" if usage.days == 1 else f"{usage.days} days"
        found.append(
            f"Only {days} of usage: fewer than {ENOUGH_DAYS} days don't show how a week goes, so take the size as a guess."
        )
    if provenance.gaps:
        missing = sum(gap.days for gap in provenance.gaps)
        found.append(f"{missing} of the {usage.days} days have no row; they count as days without demand.")
    if usage.unit is Unit.RELATIVE:
        found.append(
            "The usage has no prices: sizes and costs are multiples of its mean day. Say what a request costs to get USD."
        )
    return replace(provenance, warnings=tuple(found), days=provenance.days or usage.days)


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(float(each) for each in values)
