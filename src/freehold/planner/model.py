"""What a plan is made from, and what it says. Values only.

Amounts here are estimates: floats of USD, or of the unit that `Usage.unit` names. Nothing is ever posted from them;
what was paid stays integers of nano-USD until a loader divides it once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from freehold.clock import Day
from freehold.problems import Problem

Floats = NDArray[np.float64]

YEAR_DAYS = 365.0
"""Days of a year, for rates a year."""

ENOUGH_DAYS = 14
"""Fewer days of usage than this get a plain warning: two weeks show each weekday twice."""

MOST_PATH_DAYS = 40_000_000
"""Paths times days of a plan's scenarios: they take about 0.5 GB."""


class InvalidAssumption(Problem):
    """{name} is {value}: {reason}"""

    code = "invalid_assumption"


class Unit(StrEnum):
    """What one unit of demand is."""

    USD = "USD"
    """A dollar at list prices."""
    RELATIVE = "mean days"
    """Of a series without prices: what the mean day uses. Sizes and costs are multiples of it."""


class Choice(StrEnum):
    RENT = "rent"
    """Hold nothing; pay by the call."""
    HOLD = "hold"
    """Hold DIEM for what they serve more cheaply, and pay by the call above that."""


# --- what goes in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be read; nothing of it is counted."""

    file: str
    line: int
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.value!r}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that usage was read from."""

    name: str
    format: str
    """In words, such as `OpenAI usage CSV`."""
    rows: int
    bad_rows: int = 0
    first_at_s: float | None = None
    last_at_s: float | None = None
    client: str = ""
    """The client whose series it is, when the file is one of several clients'."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Days in the middle of the data of which no row tells; counted as days without demand."""

    first: Day
    last: Day

    @property
    def days(self) -> int:
        return self.last.number - self.first.number + 1


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the numbers come from, and how far they can be trusted."""

    files: tuple[SourceFile, ...] = ()
    bad_rows: tuple[BadRow, ...] = ()
    """The first of them, when there are many."""
    bad_row_count: int = 0
    rows: int = 0
    """That were read."""
    median_input_tokens: float | None = None
    """Of a request, when each row is one."""
    median_output_tokens: float | None = None
    days: int = 0
    """From the first day with a row to the last, both counted."""
    days_with_data: int = 0
    gaps: tuple[Gap, ...] = ()
    first_at_s: float | None = None
    last_at_s: float | None = None
    dated: bool = True
    """False: the series counts seconds from its own start, so its weekdays are not known."""
    notes: tuple[str, ...] = ()
    """Plain sentences: times taken as UTC, how calls were priced."""
    warnings: tuple[str, ...] = ()
    """Plain sentences: too few days, gaps, models without a price."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one model was used for, over all days."""

    model: str
    requests: float
    input_tokens: float
    cached_tokens: float
    output_tokens: float
    cost: float
    """At the prices that the plan uses."""


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """Demand day by day, without a hole: `demand[i]` is what day `first_day + i` used, at list prices."""

    first_day: Day
    demand: Floats
    """Per day, of `unit`; 0 on a day without a row."""
    unit: Unit = Unit.USD
    requests: Floats | None = None
    """Per day, when known."""
    models: tuple[ModelUse, ...] = ()
    """Dearest first."""
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.demand.ndim != 1 or len(self.demand) == 0:
            raise InvalidAssumption(name="usage", value="empty", reason="A plan needs at least one day of usage.")
        if not bool(np.isfinite(self.demand).all()) or bool((self.demand < 0).any()):
            raise InvalidAssumption(name="usage", value="of a day", reason="A day's usage is a number from 0 on.")

    @property
    def days(self) -> int:
        return len(self.demand)

    @property
    def last_day(self) -> Day:
        return Day(self.first_day.number + self.days - 1)

    @property
    def mean(self) -> float:
        """Of a day."""
        return float(self.demand.mean())


@dataclass(frozen=True, slots=True)
class Commitment:
    """A provider's committed-use discount: pay for `x` a day whether used or not, `discount` below list price."""

    discount: float
    """0.3 = 30 % off."""
    term_days: int = 365
    """Paid to the end of the term, also when the horizon is shorter."""
    name: str = "committed-use discount"


@dataclass(frozen=True, slots=True)
class OwnGpu:
    """A GPU of one's own, or rented by the hour, that serves the same work."""

    usd_per_hour: float
    tokens_per_second: float
    usd_per_million_tokens: float
    """What a million of those tokens cost at list price."""
    utilisation: float = 1.0
    """The share of a day that it can be kept busy."""
    name: str = "own GPU"

    @property
    def usd_per_day(self) -> float:
        return 24 * self.usd_per_hour

    @property
    def serves_per_day(self) -> float:
        """USD of list price that it can serve in a day."""
        return 86_400 * self.utilisation * self.tokens_per_second * self.usd_per_million_tokens / 1_000_000


@dataclass(frozen=True, slots=True)
class Assumptions:
    """All that a plan takes for granted. Rates are a year and continuous: e^(−rate·days/365). Shares are 0.1 for 10 %.

    Raises InvalidAssumption for what can't be.
    """

    diem_price: float
    """What one DIEM costs today, USD (P_0)."""
    horizon_days: int = 365
    """How far the plan looks (T). The allowance of DIEM bought today is usable on days 1 to T."""
    discount_rate: float = 0.05
    """Of money, a year (r)."""
    hazard: float = 0.20
    """Rate a year at which the platform may stop honouring DIEM (h)."""
    volatility: float = 1.0
    """Of DIEM's price, a year (σ)."""
    resale: float = 1.0
    """Price expected at the end, over today's, if the platform is alive (E[P_{T+U} | alive] / P_0)."""
    fee: float = 0.003
    """Share lost when buying, and again when selling (f)."""
    unbonding_days: int = 1
    """Days from asking to unstake to having DIEM to sell (U)."""
    rent_ratio: float = 1.0
    """What the same work costs elsewhere, per dollar of list price (q)."""
    lease: float = 0.0
    """What a dollar of idle credit fetches (l); 0 without a lease market."""
    lease_depth: float | None = None
    """USD of idle credit that the lease market takes a day; None: not known."""
    budget: float | None = None
    """The most to spend on DIEM, USD, fee included."""
    held: float = 0.0
    """DIEM held already."""
    demand_growth: float = 0.0
    """Of the workload, a year."""
    list_price_change: float = 0.0
    """Of list prices, a year: −0.3 when they fall by about a quarter. The same work then costs fewer dollars."""
    stressed_exit: float = 0.5
    """Share of the price that a sale in a thin market would get: for the liquidity risk and the worst cases."""
    risk_weight: float = 0.5
    """λ of mean + λ·CVaR95, for the size that also minds the bad cases."""
    trust: float = 0.5
    """λ of the forecast-trusting rule: near 0 trusts the forecast, 1 doesn't."""
    paths: int = 10_000
    """Scenario paths."""
    seed: int = 1
    """Of the scenarios; the same seed gives the same plan."""
    currency: str = "USD"
    """Only for showing: amounts stay USD."""
    currency_per_usd: float = 1.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise InvalidAssumption(
                    name=name, value=value, reason=f"It is a number from {low:g} to {high:g}.", param=name
                )
        if self.paths * self.horizon_days > MOST_PATH_DAYS:
            raise InvalidAssumption(
                name="paths",
                value=self.paths,
                reason=f"Over {self.horizon_days} days at most {MOST_PATH_DAYS // self.horizon_days:,} fit into memory.",
                param="paths",
            )
        if self.lease > self.overflow_price:
            raise InvalidAssumption(
                name="lease",
                value=self.lease,
                reason=f"Nobody pays more for idle credit than the same work costs elsewhere, {self.overflow_price:g}.",
                param="lease",
            )

    @property
    def overflow_price(self) -> float:
        """q' = min(1, q): a holder buys what is above the allowance where it is cheaper."""
        return min(1.0, self.rent_ratio)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("diem_price", 1e-9, 1e12),
    ("horizon_days", 1, 3_650),
    ("discount_rate", -0.5, 10),
    ("hazard", 0, 1e9),
    ("volatility", 0, 10),
    ("resale", 0, 100),
    ("fee", 0, 0.99),
    ("unbonding_days", 0, 3_650),
    ("rent_ratio", 1e-6, 1_000),
    ("lease", 0, 1),
    ("lease_depth", 0, 1e15),
    ("budget", 0, 1e15),
    ("held", 0, 1e15),
    ("demand_growth", -10, 10),
    ("list_price_change", -10, 10),
    ("stressed_exit", 0, 1),
    ("risk_weight", 0, 100),
    ("trust", 0.001, 1),
    ("paths", 100, 1_000_000),
    ("seed", 0, 2**63 - 1),
    ("currency_per_usd", 1e-12, 1e12),
)


@dataclass(frozen=True, slots=True)
class Assumed:
    """One line of the list of assumptions."""

    name: str
    value: float | str | None
    unit: str
    default: bool
    """True: nobody gave it."""
    meaning: str
    source: str = ""
    """Where it was read, such as a pool of the chain; empty where it was said, or is a default."""

    @property
    def origin(self) -> str:
        """In a word."""
        return "default" if self.default else "read" if self.source else "given"

    @property
    def explained(self) -> str:
        """The meaning, and where the value was read."""
        return f"{self.meaning}: {self.source}" if self.source else self.meaning


# --- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """A cost over the horizon, discounted to today; lower is better."""

    mean: float
    p10: float
    p50: float
    p90: float
    cvar95: float
    """The mean of the dearest twentieth of the paths."""


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """What one way of buying costs over the horizon."""

    name: str
    """`rent`, `hold`, `mixed`, `clairvoyant`, `nothing`."""
    label: str
    """In words."""
    diem: float
    """DIEM held under it; the mean over paths for the clairvoyant."""
    expected: float
    """By the model, without scenarios."""
    spread: Spread
    """Over the scenarios."""
    saving: float
    """Expected saving against rent; negative when dearer."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to be served, beside or instead of DIEM, and what it costs over the horizon."""

    name: str
    label: str
    cost: float
    parts: Mapping[str, float]
    """Capacity of each part, USD a day: `diem`, the commitment's name, the GPU's name; what is above is paid by call."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The value at which holding `Plan.size` (or, when renting is best, one's first DIEM) costs what renting does."""

    name: str
    """`utilisation`, `diem_price`, `list_price_cut`, `hazard`."""
    label: str
    now: float
    flips_at: float | None
    """None: no value of it flips the decision."""
    unit: str
    """`share`, `USD`, `a year`."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Payback:
    """Days until holding has paid for itself. None: never within any time."""

    utilisation: float
    """Share of the allowance that is used (u), at the size advised; at size 0, of the first DIEM."""
    days_without_resale: float | None
    """P_0 / (u q' + l (1 − u))."""
    days_with_resale: float | None
    """The same for what is lost between buying and selling at the end of the horizon."""
    full_use_days: float
    """P_0 / q': every dollar of allowance used."""


@dataclass(frozen=True, slots=True)
class Liquidation:
    """The size advised, when nothing can be sold at the end (resale 0). Always shown."""

    carry: float
    """κ without resale, USD per DIEM-day."""
    cost: float
    """Of the size advised."""
    saving: float
    """Against rent; negative when it loses."""
    best_size: float
    """N* without resale."""


@dataclass(frozen=True, slots=True)
class ImpliedHazard:
    """What today's price of DIEM says about its end, if the market is right: P_0 = 365·v/(r + h)."""

    value_per_day: float
    """v, USD that a DIEM-day is worth at full use."""
    total_rate: float
    """r + h, a year."""
    hazard: float
    """h, a year; negative when DIEM is dearer than a perpetuity without risk."""


@dataclass(frozen=True, slots=True)
class RiskPart:
    """One risk alone, all else as expected: what it adds to the cost of the size advised in the dearest twentieth."""

    name: str
    """`demand`, `price`, `list price`, `platform`, `liquidity`, `unbonding`."""
    label: str
    cost: float
    """Dearest twentieth, less the expected cost; USD."""
    share: float
    """Of the sum of all six."""


@dataclass(frozen=True, slots=True)
class TornadoBar:
    """How the expected saving of the size advised moves when one assumption moves."""

    name: str
    label: str
    low: float
    """Value of the assumption at the low end."""
    high: float
    saving_at_low: float
    saving_at_high: float
    unit: str

    @property
    def swing(self) -> float:
        return abs(self.saving_at_high - self.saving_at_low)


@dataclass(frozen=True, slots=True)
class WorstCase:
    """A named event, at its full force, and what the size advised costs then."""

    name: str
    label: str
    hold_cost: float
    rent_cost: float

    @property
    def loss(self) -> float:
        """What holding costs more than renting in it; negative when it still costs less."""
        return self.hold_cost - self.rent_cost


@dataclass(frozen=True, slots=True)
class RegretBound:
    """The online rule recommended when demand is not known, and how far from the best it can end."""

    rule: str
    label: str
    ratio: float
    """Cost at most this many times the clairvoyant's, whatever demand does."""
    ratio_if_right: float
    """The same when the forecast comes true; equal to `ratio` for rules without a forecast."""
    threshold_days: float
    """Days of full use of a level, after which the rule buys a DIEM for it."""
    source: str


@dataclass(frozen=True, slots=True)
class SizeCurve:
    """For the break-even chart: cost over the horizon at each size."""

    diem: tuple[float, ...]
    hold: tuple[float, ...]
    """Expected."""
    hold_cvar95: tuple[float, ...]
    rent: float


@dataclass(frozen=True, slots=True)
class Fan:
    """For a cost fan: cost so far, discounted, at the end of each of `days`. DIEM held are counted at their price."""

    name: str
    """A policy's name."""
    days: tuple[int, ...]
    p10: tuple[float, ...]
    p50: tuple[float, ...]
    p90: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DayUse:
    """A past day against the allowance of the size advised."""

    day: Day
    demand: float
    used: float
    """Of the allowance."""
    overflow: float
    idle: float


@dataclass(frozen=True, slots=True)
class MonthFlow:
    """Expected cash of one 30-day month of the horizon (the last may be shorter), per policy; positive = paid out."""

    month: int
    """From 0, which is the day of buying."""
    first_day: int
    last_day: int
    policy: str
    cash_out: float
    """As paid, not discounted; sales of DIEM are negative."""
    discounted: float
    npv: float
    """Sum of `discounted` up to and with this month, negated: what the policy is worth so far, in today's USD."""
    mark_to_market: float
    """What the DIEM held at the month's end would be expected to fetch then, after the fee."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Rent, hold, or both: the answer and all that defends it. Costs are over the horizon, discounted, in `unit`."""

    # the answer
    decision: Choice
    size: float
    """DIEM to hold, N*; 0 for rent."""
    threshold: Threshold
    """The one of `thresholds` that is nearest to flipping the decision."""
    sentence: str
    """Decision, size and threshold in plain words."""
    size_cap: str
    """What stopped the size: ``, `budget`, `lease depth`, `demand`."""
    size_by_risk: float
    """The size minimising mean + λ·CVaR95 over the scenarios."""
    outlay: float
    """To buy the size advised, fee included."""

    # money
    unit: Unit
    carry: float
    """κ, USD per DIEM-day."""
    break_even_utilisation: float
    """u* = (κ − l)/(q' − l); below 0: holding pays whatever is used; above 1: it never does."""
    critical_ratio: float
    """P(D > N*) that the size aims at; the same number as u*, cut to 0..1."""
    costs: tuple[PolicyCost, ...]
    """rent, hold, mixed, clairvoyant, nothing."""
    saving: float
    """Expected, of the size advised against rent."""
    hold_beats_rent: float
    """Share of the paths on which the size advised costs less than rent; 0 when the size is 0."""
    payback: Payback
    liquidation: Liquidation
    implied_hazard: ImpliedHazard

    # risk
    thresholds: tuple[Threshold, ...]
    stressed_size: float
    """DIEM that risks, tornado and worst cases are about: the size advised; where renting is best, the mean day's."""
    risks: tuple[RiskPart, ...]
    tornado: tuple[TornadoBar, ...]
    """Widest first."""
    worst_cases: tuple[WorstCase, ...]
    """Largest loss first."""
    regret: RegretBound
    alternatives: tuple[Alternative, ...]
    """Cheapest first: `by the call`, `diem`, each commitment and GPU by its name, and `mix`."""

    # for charts and the cash-flow sheet
    size_curve: SizeCurve
    fans: tuple[Fan, ...]
    """Of rent and mixed."""
    usage_days: tuple[DayUse, ...]
    flows: tuple[MonthFlow, ...]

    # what it rests on
    mean_daily_demand: float
    assumptions: Assumptions
    assumed: tuple[Assumed, ...]
    models: tuple[ModelUse, ...]
    provenance: Provenance

    def cost(self, name: str) -> PolicyCost:
        """The policy of that name. Raises KeyError."""
        for each in self.costs:
            if each.name == name:
                return each
        raise KeyError(name)
