"""Real series replayed day by day under each policy, and what each would have cost. Pure, on all cores.

A DIEM costs `carry · days` for the series replayed, whenever it is bought: what is lost between buying and selling. So
one bought late has less time to pay, and there is nothing to gain by selling early, as in the rules' own model.
"""

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from freehold.planner import online
from freehold.planner.model import Floats, InvalidAssumption

LEARNT_DAYS = 7
"""A week is looked at before it is decided, where there are two."""

_ALONE = 30_000_000
"""Work, in days² over all series, that isn't worth starting processes for."""

LABELS = {
    "rent": "Rent only",
    "hold": "Hold what the days learnt from advise",
    "online": "Online rule, deterministic",
    "randomised": "Online rule, randomised (expected)",
    "trusting": "Forecast-trusting rule, the days learnt from repeated",
    "clairvoyant": "Clairvoyant: the best size, known in advance",
}


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One client's demand a day."""

    client: str
    demand: Floats


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds in a replay. Rates are per dollar of list price.

    Raises InvalidAssumption.
    """

    carry: float
    """κ: what a DIEM-day costs."""
    learn_days: int = LEARNT_DAYS
    """Days at the start that only teach; nothing of them is counted. 0: policies that need a history are left out."""
    overflow_price: float = 1.0
    lease: float = 0.0
    trust: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("carry", 0.0, 1e9),
            ("learn_days", 0, 10_000),
            ("overflow_price", 1e-9, 1e9),
            ("lease", 0.0, self.overflow_price),
            ("trust", 0.001, 1.0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InvalidAssumption(name=name, value=value, reason=f"It is a number from {low:g} to {high:g}.")


@dataclass(frozen=True, slots=True)
class ClientResult:
    """One client's replay."""

    client: str
    days: int
    volume: float
    """Demand over the days replayed, in the series' own unit."""
    costs: dict[str, float]
    """Per policy."""
    diem: dict[str, float]
    """Held at the end, per policy; the randomised rule's is not told."""

    def ratio(self, policy: str) -> float:
        """Cost over the clairvoyant's; 1 where both cost nothing."""
        best = self.costs["clairvoyant"]
        if best > 0:
            return self.costs[policy] / best
        return 1.0 if self.costs[policy] <= best else math.inf

    def saving(self, policy: str) -> float:
        """Share of the rent saved; 0 where there is no rent."""
        return 1 - self.costs[policy] / self.costs["rent"] if self.costs["rent"] > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy over all clients."""

    name: str
    label: str
    cost: float
    ratio: float
    """Cost of all clients over the clairvoyant's of all."""
    ratio_p10: float
    """Over clients, each counted once."""
    ratio_p50: float
    ratio_p90: float
    ratio_worst: float
    saving: float
    """Share of everybody's rent saved: by volume."""
    saving_median: float
    """Of the median client."""
    saving_p10: float
    saving_p90: float
    holders: int
    """Clients that hold something at the end."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """All policies, all clients."""

    rules: Rules
    policies: tuple[PolicyResult, ...]
    clients: tuple[ClientResult, ...]
    """Largest volume first."""
    left_out: tuple[str, ...]
    """Clients with too few days to learn from and replay."""

    def policy(self, name: str) -> PolicyResult:
        """The policy of that name. Raises KeyError."""
        for each in self.policies:
            if each.name == name:
                return each
        raise KeyError(name)


def backtest(series: Iterable[Series], rules: Rules, *, cores: int | None = None) -> Backtest:
    """Replay every series under every policy, on so many cores; None: on all of them, when there is enough to do.

    Raises InvalidAssumption when no series is long enough.
    """
    every = list(series)
    long = [each for each in every if len(each.demand) > rules.learn_days]
    if not long:
        raise InvalidAssumption(
            name="learn_days", value=rules.learn_days, reason="No series has more days than are learnt from."
        )
    found = sorted(_spread(long, rules, cores), key=lambda each: (-each.volume, each.client))
    names = [name for name in LABELS if name in found[0].costs]
    kept = {each.client for each in long}
    return Backtest(
        rules=rules,
        policies=tuple(_over_clients(name, found) for name in names),
        clients=tuple(found),
        left_out=tuple(each.client for each in every if each.client not in kept),
    )


def replay(series: Series, rules: Rules) -> ClientResult:
    """One series under every policy."""
    learnt, demand = series.demand[: rules.learn_days], series.demand[rules.learn_days :]
    price, lease, days = rules.overflow_price, rules.lease, len(demand)
    fee = rules.carry * days
    rent = price * float(demand.sum())
    best = online.clairvoyant(demand, fee=fee, price=price, lease=lease)
    ruled = online.deterministic(demand, fee=fee, price=price, lease=lease)
    costs = {
        "rent": rent,
        "online": ruled.cost,
        "randomised": online.randomised(demand, fee=fee, price=price, lease=lease),
        "clairvoyant": best.cost,
    }
    diem = {"rent": 0.0, "online": float(ruled.held[-1]), "clairvoyant": float(best.held[-1])}
    if len(learnt):
        size = float(online.clairvoyant(learnt, fee=rules.carry * len(learnt), price=price, lease=lease).held[-1])
        costs["hold"], diem["hold"] = held_cost(size, demand, fee=fee, price=price, lease=lease), size
        trusted = online.trusting(demand, _repeated(learnt, days), rules.trust, fee=fee, price=price, lease=lease)
        costs["trusting"], diem["trusting"] = trusted.cost, float(trusted.held[-1])
    return ClientResult(series.client, days, float(demand.sum()), costs, diem)


def held_cost(size: float, demand: Floats, *, fee: float, price: float = 1.0, lease: float = 0.0) -> float:
    """fee·N + q' Σ (D − N)^+ − l Σ (N − D)^+."""
    above = float(np.maximum(demand - size, 0.0).sum())
    idle = float(np.maximum(size - demand, 0.0).sum())
    return fee * size + price * above - lease * idle


def _repeated(learnt: Floats, days: int) -> Floats:
    """The days that follow, as like the last whole weeks learnt from as can be; weekdays keep their place."""
    weeks = learnt[len(learnt) % 7 :] if len(learnt) >= 7 else learnt
    result: Floats = np.resize(weeks, days)
    return result


def _over_clients(name: str, found: Sequence[ClientResult]) -> PolicyResult:
    cost, best, rent = (sum(each.costs[policy] for each in found) for policy in (name, "clairvoyant", "rent"))
    ratios = np.array([each.ratio(name) for each in found])
    savings = np.array([each.saving(name) for each in found])
    p10, p50, p90 = (float(each) for each in np.quantile(ratios, [0.1, 0.5, 0.9], method="nearest"))
    low, middle, high = (float(each) for each in np.quantile(savings, [0.1, 0.5, 0.9]))
    return PolicyResult(
        name=name,
        label=LABELS[name],
        cost=cost,
        ratio=cost / best if best > 0 else 1.0 if cost <= best else math.inf,
        ratio_p10=p10,
        ratio_p50=p50,
        ratio_p90=p90,
        ratio_worst=float(ratios.max()),
        saving=1 - cost / rent if rent > 0 else 0.0,
        saving_median=middle,
        saving_p10=low,
        saving_p90=high,
        holders=sum(each.diem.get(name, 0.0) > 0 for each in found),
    )


def _spread(series: Sequence[Series], rules: Rules, cores: int | None) -> list[ClientResult]:
    if cores is None:
        cores = _cores() if sum(len(each.demand) ** 2 for each in series) > _ALONE else 1
    cores = min(cores, len(series))
    if cores < 2:
        return [replay(each, rules) for each in series]
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        chunk = max(1, len(series) // (4 * cores))
        return list(pool.map(replay, series, [rules] * len(series), chunksize=chunk))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
