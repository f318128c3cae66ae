"""A plan and a backtest in the terminal: readable at 80 columns, the answer first."""

import itertools
from collections.abc import Iterator, Sequence

from freehold.cli.output import Output
from freehold.planner.backtest import Backtest
from freehold.planner.model import Choice, Plan
from freehold.planner.report.amounts import Amounts, days, number, of_unit, share

LEVELS = " ▁▂▃▄▅▆▇█"
COLUMNS = 80
WIDTH = 72
"""Columns of the usage picture."""
BAR = 11
"""Columns of the longest bar on one side of the tornado."""


def draw_plan(out: Output, plan: Plan) -> None:
    """All of a plan's output, the answer first."""
    out = Output(as_json=out.as_json, plain_width=COLUMNS)
    amounts = Amounts.of(plan)
    _answer(out, plan, amounts)
    _usage(out, plan, amounts)
    _costs(out, plan, amounts)
    _thresholds(out, plan, amounts)
    _payback(out, plan, amounts)
    _tornado(out, plan, amounts)
    _risks(out, plan, amounts)
    _alternatives(out, plan, amounts)
    _regret(out, plan)
    _assumptions(out, plan, amounts)
    _provenance(out, plan)


def _answer(out: Output, plan: Plan, amounts: Amounts) -> None:
    held = plan.decision is Choice.HOLD
    out.strong(f"Hold {amounts.diem(plan.size)}" if held else "Rent: hold no DIEM")
    for line in wrapped(plan.sentence):
        out.say(line)
    out.say()
    nearest = plan.threshold
    flips = "nothing flips it" if nearest.flips_at is None else of_unit(nearest.flips_at, nearest.unit, amounts)
    out.facts(
        [
            ("outlay", amounts.money(plan.outlay) + (f", stopped by {plan.size_cap}" if plan.size_cap else "")),
            ("expected saving", amounts.money(plan.saving)),
            ("cheaper than rent", f"on {share(plan.hold_beats_rent)} of {plan.assumptions.paths:,} paths"),
            ("flips at", f"{flips} ({nearest.label.lower()})"),
            ("it is now", of_unit(nearest.now, nearest.unit, amounts)),
        ]
    )
    for text in plan.provenance.warnings:
        for line in wrapped(f"! {text}"):
            out.say(line)


def _usage(out: Output, plan: Plan, amounts: Amounts) -> None:
    shown = plan.usage_days[-WIDTH:]
    if len(shown) < 2:
        return
    most = max(max(day.demand for day in shown), 1e-300)
    out.say()
    out.strong(f"Usage of the last {len(shown)} days, up to {amounts.money(most)} a day")
    out.say("".join(LEVELS[round(day.demand / most * (len(LEVELS) - 1))] for day in shown))
    if plan.size > 0:
        # a day that needs more than the allowance is marked; what fits is silent
        out.say("".join("^" if day.overflow > 0 else "·" for day in shown))
        out.dim(f"^ above the allowance of {number(plan.size)}: the rest of such a day is paid by the call")


def _costs(out: Output, plan: Plan, amounts: Amounts) -> None:
    rows = [
        (
            each.name,
            number(each.diem),
            amounts.bare(each.expected),
            amounts.bare(each.spread.p10),
            amounts.bare(each.spread.p50),
            amounts.bare(each.spread.p90),
            amounts.bare(each.spread.cvar95),
        )
        for each in plan.costs
    ]
    title = f"Cost over {plan.assumptions.horizon_days} days, discounted, {amounts.name}"
    out.table(("", ">DIEM", ">expected", ">P10", ">P50", ">P90", ">CVaR95"), rows, title=title)


def _thresholds(out: Output, plan: Plan, amounts: Amounts) -> None:
    rows = [
        (
            each.label,
            of_unit(each.now, each.unit, amounts),
            "nothing flips it" if each.flips_at is None else of_unit(each.flips_at, each.unit, amounts),
        )
        for each in plan.thresholds
    ]
    out.table(("What flips the decision", ">now", ">flips at"), rows)


def _payback(out: Output, plan: Plan, amounts: Amounts) -> None:
    back, sold, implied = plan.payback, plan.liquidation, plan.implied_hazard
    rows = [
        ("utilisation / break-even", f"{share(back.utilisation)} / {share(plan.break_even_utilisation)}"),
        ("cost of a DIEM-day (κ)", amounts.money(plan.carry)),
        ("payback, nothing resold", days(back.days_without_resale)),
        ("payback, resold at the end", days(back.days_with_resale)),
        ("payback at full use", days(back.full_use_days)),
        ("if nothing can be sold", f"saving {amounts.money(sold.saving)}; best size {amounts.diem(sold.best_size)}"),
        ("size that minds bad cases", amounts.diem(plan.size_by_risk)),
        ("hazard that the price implies", f"{share(implied.hazard)} a year"),
    ]
    out.table(("Payback and liquidation", ">"), rows)


def _tornado(out: Output, plan: Plan, amounts: Amounts) -> None:
    if not plan.tornado:
        return
    base = plan.saving
    reach = max(abs(v - base) for bar in plan.tornado for v in (bar.saving_at_low, bar.saving_at_high)) or 1.0
    rows = []
    for bar in plan.tornado:
        least, most = sorted((bar.saving_at_low - base, bar.saving_at_high - base))
        left = "█" * round(BAR * max(0.0, -least) / reach)
        right = "█" * round(BAR * max(0.0, most) / reach)
        low, high = sorted((bar.saving_at_low, bar.saving_at_high))
        rows.append(
            (bar.label, f"{left:>{BAR}}│{right:<{BAR}}".rstrip(), f"{amounts.bare(low)} … {amounts.bare(high)}")
        )
    out.table((f"What the saving of {amounts.bare(base)} hangs on", "", f">saving, {amounts.name}"), rows)


def _risks(out: Output, plan: Plan, amounts: Amounts) -> None:
    rows = [(each.label, amounts.bare(each.cost), share(each.share)) for each in plan.risks]
    out.table(("Each risk alone, dearest twentieth", f">{amounts.name}", ">share"), rows)
    worst = [(each.label, amounts.bare(each.hold_cost), amounts.bare(each.loss)) for each in plan.worst_cases]
    out.table(("Worst cases", f">hold, {amounts.name}", ">dearer than rent"), worst)


def _alternatives(out: Output, plan: Plan, amounts: Amounts) -> None:
    rows = [
        (each.label, amounts.bare(each.cost), ", ".join(f"{name} {number(size)}" for name, size in each.parts.items()))
        for each in plan.alternatives
    ]
    out.table(("Other ways to be served", f">{amounts.name}", "of it a day"), rows)


def _regret(out: Output, plan: Plan) -> None:
    rule = plan.regret
    text = (
        f"If usage can't be foreseen: {rule.label}. Buy a DIEM for a level of usage after "
        f"{number(rule.threshold_days)} days of full use of it; that costs at most {number(rule.ratio)} times the best "
        f"in hindsight, {number(rule.ratio_if_right)} when the forecast comes true ({rule.source})."
    )
    for line in wrapped(text):
        out.say(line)


def _assumptions(out: Output, plan: Plan, amounts: Amounts) -> None:
    rows = []
    for each in plan.assumed:
        if isinstance(each.value, int | float) and not isinstance(each.value, bool):
            value = of_unit(each.value, each.unit, amounts)
        else:
            value = "none" if each.value is None else str(each.value)
        rows.append((each.name, value, each.origin, each.meaning))
    out.table(("Assumption", ">value", "", "meaning"), rows)
    for each in plan.assumed:
        if each.source:
            for line in wrapped(f"{each.name} is {each.source}."):
                out.say(line)


def _provenance(out: Output, plan: Plan) -> None:
    found = plan.provenance
    out.say(f"Rests on {found.days:,} days, {found.days_with_data:,} of them with data.")
    for each in found.files:
        out.say(f"  {each.name}: {each.format}, {each.rows:,} rows")
    for gap in found.gaps:
        out.say(f"  gap: {gap.first} to {gap.last}, {gap.days} days counted as without usage")
    if found.bad_row_count:
        rows = "1 row" if found.bad_row_count == 1 else f"{found.bad_row_count:,} rows"
        out.say(f"  {rows} could not be read; nothing of them is counted:")
        for row in found.bad_rows:
            out.say(f"    {row}")
    for note in found.notes:
        for line in wrapped(note, indent="  "):
            out.say(line)


def draw_backtest(out: Output, made: Backtest, notes: Sequence[str]) -> None:
    """Costs and ratios of all policies, then how the clients fared."""
    out = Output(as_json=out.as_json, plain_width=COLUMNS)
    best = min((each for each in made.policies if each.name != "clairvoyant"), key=lambda each: each.cost)
    out.strong(f"Cheapest over {_clients(len(made.clients))}: {best.name}, {share(best.saving)} below renting")
    if len(made.clients) > 1:
        holders = made.policy("clairvoyant").holders
        out.say(
            f"The median client saves {share(best.saving_median)}. {_clients(len(made.clients) - holders)} had best held nothing."
        )
    rows = [
        (
            each.name,
            number(each.cost),
            number(each.ratio),
            share(each.saving),
            "–" if each.name == "randomised" else f"{each.holders}",
        )
        for each in made.policies
    ]
    days = sorted({each.days for each in made.clients})
    span = f"{days[0]} days" if len(days) == 1 else f"{days[0]} to {days[-1]} days"
    out.table(
        ("policy", ">cost", ">over clairvoyant", ">saving", ">holders"),
        rows,
        title=f"{span} replayed; a DIEM-day costs {number(made.rules.carry)}",
    )
    for each in made.policies:
        for line in wrapped(f"{each.name}: {each.label}", indent="  "):
            out.dim(line)
    if len(made.clients) == 1:
        _notes(out, made, notes)
        return
    ratios = [
        (each.name, *map(number, (each.ratio_p10, each.ratio_p50, each.ratio_p90, each.ratio_worst)),
         share(each.saving_p10), share(each.saving_median), share(each.saving_p90))
        for each in made.policies
    ]  # fmt: skip
    out.table(("over clients", ">ratio P10", ">P50", ">P90", ">worst", ">saving P10", ">P50", ">P90"), ratios)
    _histogram(out, made, best.name)
    _notes(out, made, notes)


def _histogram(out: Output, made: Backtest, policy: str) -> None:
    """Clients by what they save under one policy."""
    savings = [each.saving(policy) for each in made.clients]
    steps = (-1e18, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1e18)
    names = ("loses", "0 to 10 %", "10 to 20 %", "20 to 30 %", "30 to 40 %", "40 to 50 %", "over 50 %")
    counts = [sum(low <= each < high for each in savings) for low, high in itertools.pairwise(steps)]
    most = max(counts)
    rows = [(name, "█" * round(40 * count / most), str(count)) for name, count in zip(names, counts, strict=True)]
    out.table((f"saving with {policy}", "", ">clients"), rows)


def _notes(out: Output, made: Backtest, notes: Sequence[str]) -> None:
    if made.left_out:
        shown = ", ".join(made.left_out[:5]) + (" …" if len(made.left_out) > 5 else "")
        out.say(f"Left out, with too few days to learn from: {_clients(len(made.left_out))} ({shown}).")
    for note in notes:
        for line in wrapped(note):
            out.say(line)


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def wrapped(text: str, *, width: int = COLUMNS, indent: str = "") -> Iterator[str]:
    """Lines of at most `width` columns."""
    import textwrap

    yield from textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent) or [""]
