"""Beside DIEM: pay by the call, commit, own a GPU, and mixes of them, as one linear programme. Pure.

Each way is a capacity with a price a day, and work above all capacity is paid by the call:

    minimise  Σ_i k_i x_i + Σ_j m_j (q' o_j − l y_j) + Σ_j m'_j q o'_j
    subject to  Σ_{i≠DIEM} x_i + (x_DIEM − y_j) + o_j ≥ D_j,  0 ≤ y_j ≤ x_DIEM and the depth  (the platform lives)
                Σ_{i≠DIEM} x_i + o'_j ≥ D_j                                                  (it doesn't)

with k_i what a unit of capacity costs over the horizon, D_j the days seen as they grow, m_j their weights Σ β S / n and
m'_j = Σ β (1 − S) / n; GPUs are whole numbers. Since each way alone is a point of the programme, a mix is never
worse than the best of its parts. Source: capacity expansion with several technologies, as screened by Turvey (1968).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from freehold.planner import sizing
from freehold.planner.model import Alternative, Assumptions, Commitment, Floats, OwnGpu

MOST_DAYS = 400
"""Distinct demands that a programme is made of; more are put into as many groups of equal weight, at their means."""


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    cost: float
    """Of one USD a day of capacity, over the horizon; of one GPU."""
    serves: float
    """USD a day of one unit."""
    whole: bool = False
    diem: bool = False
    """Idle credit of it is leased; nothing of it serves after the platform's end."""


def alternatives(
    demand: Floats,
    given: Assumptions,
    commitments: Sequence[Commitment] = (),
    gpus: Sequence[OwnGpu] = (),
) -> tuple[Alternative, ...]:
    """Each way alone, what is above it paid by the call, and the best mix of all; the cheapest first."""
    over = sizing.weights(given)
    diem = _Way("diem", sizing.lost_per_diem(given, over), 1.0, diem=True)
    others = _apart([*(_committed(each, given, over) for each in commitments), *(_gpu(each, over) for each in gpus)])
    found = [Alternative("by the call", _BY_CALL, sizing.rent(demand, given, over), {})]
    for way in (diem, *others):
        cost, parts = _best([way], demand, given, over)
        found.append(Alternative(way.name, _label(parts, _NAMES.get(way.name, way.name)), cost, parts))
    cost, parts = _best([diem, *others], demand, given, over)
    least = min(found, key=lambda each: each.cost)
    if least.cost < cost:  # the solver's tolerance
        cost, parts = least.cost, dict(least.parts)
    found.append(Alternative("mix", _label(parts, "the cheapest mix"), cost, parts))
    return tuple(sorted(found, key=lambda each: each.cost))


_BY_CALL = "Everything by the call"
_NAMES = {"diem": "DIEM"}


def _label(parts: Mapping[str, float], what: str) -> str:
    used = [f"{amount:,.2f} a day of {_NAMES.get(name, name)}" for name, amount in parts.items() if amount > 0]
    return f"{what[0].upper()}{what[1:]}: {', '.join(used) or 'none of it'}, the rest by the call"


def _apart(ways: Sequence[_Way]) -> list[_Way]:
    """The same with names that differ, also from those that are used here."""
    taken = {"diem", "by the call", "mix"}
    found: list[_Way] = []
    for way in ways:
        name = next(name for name in _numbered(way.name) if name not in taken)
        taken.add(name)
        found.append(replace(way, name=name))
    return found


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name} {number}"


def _committed(given: Commitment, assumed: Assumptions, over: sizing.Weights) -> _Way:
    """A commitment runs in whole terms, each paid to its end even when the horizon is over."""
    terms = math.ceil(assumed.horizon_days / given.term_days)
    days = np.arange(1, terms * given.term_days + 1, dtype=np.float64)
    paid = float(np.sum(sizing.discount(assumed.discount_rate, days)))
    return _Way(given.name, (1 - given.discount) * assumed.rent_ratio * paid, 1.0)


def _gpu(given: OwnGpu, over: sizing.Weights) -> _Way:
    return _Way(given.name, given.usd_per_day * float(over.discount.sum()), given.serves_per_day, whole=True)


def _best(
    ways: Sequence[_Way], demand: Floats, given: Assumptions, over: sizing.Weights
) -> tuple[float, dict[str, float]]:
    """The least cost, and the capacity of each way, USD a day. Raises ArithmeticError when the solver finds none."""
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack, vstack

    days, alive, dead = _days(demand, given, over)
    number = len(days)
    owned = np.array([way.diem for way in ways])
    serves = np.array([way.serves for way in ways])
    peak = float(days.max())
    most = [_most(way, peak, given) for way in ways]

    def each_day(row: Floats) -> csr_array:
        return csr_array(np.tile(row, (number, 1)))

    same, none = eye_array(number), csr_array((number, number))
    rows = vstack(
        [
            hstack([each_day(serves), same, -same, none]),  # while the platform lives
            hstack([each_day(owned * 1.0), none, -same, none]),  # only idle DIEM are leased
            hstack([each_day(np.where(owned, 0.0, serves)), none, none, same]),  # when it doesn't
        ]
    )
    leased = 0.0 if not owned.any() else math.inf if given.lease_depth is None else given.lease_depth
    solved = milp(
        np.concatenate(
            [[way.cost for way in ways], alive * given.overflow_price, -alive * given.lease, dead * given.rent_ratio]
        ),
        constraints=LinearConstraint(rows, np.concatenate([days, np.zeros(number), days]), np.inf),
        bounds=(0.0, np.concatenate([most, np.full(number, np.inf), np.full(number, leased), np.full(number, np.inf)])),
        integrality=np.concatenate([[way.whole for way in ways], np.zeros(3 * number)]),
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        raise ArithmeticError(
            f"the programme of {', '.join(way.name for way in ways)} has no solution: {solved.message}"
        )
    capacity = solved.x[: len(ways)] * serves
    return float(solved.fun), {way.name: float(x) for way, x in zip(ways, capacity, strict=True)}


def _most(way: _Way, peak: float, given: Assumptions) -> float:
    """No more of a way than can be of use; of DIEM, no more than the budget buys and somebody takes."""
    if way.diem:
        bought = math.inf if given.budget is None else given.budget / sizing.outlay_per_diem(given)
        return min(bought, peak + (given.lease_depth or 0.0))
    return math.ceil(peak / way.serves) if way.serves > 0 else 0.0


def _days(demand: Floats, given: Assumptions, over: sizing.Weights) -> tuple[Floats, Floats, Floats]:
    """Demands with their weights while the platform lives, and after; grouped when there are many."""
    days, alive = sizing.pooled(demand, over)
    if len(days) == len(demand):
        dead = np.full(len(days), float(over.discount @ (1 - over.alive)) / len(days))
    else:
        dead = np.repeat(over.discount * (1 - over.alive) / len(demand), len(demand))
    if len(days) <= MOST_DAYS:
        return days, alive, dead
    order = np.argsort(days)
    days, alive, dead = days[order], alive[order], dead[order]
    starts = np.searchsorted(np.cumsum(alive + dead), np.linspace(0, float((alive + dead).sum()), MOST_DAYS + 1)[:-1])
    starts = np.unique(np.minimum(starts, len(days) - 1))
    weight = np.add.reduceat(alive + dead, starts)
    mean = np.add.reduceat(days * (alive + dead), starts) / weight
    return mean, np.add.reduceat(alive, starts), np.add.reduceat(dead, starts)
