"""A plan as one HTML page that needs nothing else: styles and plots inline, light and dark, fit for print."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from freehold.planner.model import Choice, Fan, Plan, Threshold
from freehold.planner.report import amounts as written
from freehold.planner.report import charts
from freehold.planner.report.amounts import Amounts, days, number, share

MOST_DAYS = 366
"""The usage plot shows no more days than this: the newest."""


def page(plan: Plan, *, made_at: str) -> str:
    """The page. `made_at` is when the plan was made, as text. Every text of the plan is escaped."""
    amounts = Amounts.of(plan)
    style = files("freehold.planner.report").joinpath("plan.css").read_text("utf-8")
    title = headline(plan, amounts)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)} · plan</title>",
            f"<style>{style}</style></head><body><main>",
            f"<header><p class=brand>Freehold plan</p><h1>{escape(title)}</h1></header>",
            _answer(plan, amounts),
            "<div class=pair>",
            _sizes(plan, amounts),
            _break_even(plan, amounts),
            _fans(plan, amounts),
            _tornado(plan, amounts),
            "</div>",
            _usage(plan, amounts),
            _costs(plan, amounts),
            _thresholds(plan, amounts),
            "<div class=pair>",
            _payback(plan, amounts),
            _alternatives(plan, amounts),
            _risks(plan, amounts),
            _worst(plan, amounts),
            "</div>",
            _regret(plan),
            _flows(plan, amounts),
            _models(plan, amounts),
            _assumptions(plan, amounts),
            _provenance(plan),
            f"<footer><p>Made {escape(made_at)}. Costs are over {plan.assumptions.horizon_days} days, discounted to"
            f" today, in {escape(amounts.name)}. Estimates under the assumptions listed, no promise of a price.</p>"
            "</footer>",
            "</main></body></html>",
            "",
        ]
    )


def headline(plan: Plan, amounts: Amounts) -> str:
    """The decision in a few words."""
    return "Rent: hold no DIEM" if plan.decision is Choice.RENT else f"Hold {amounts.diem(plan.size)}"


def _answer(plan: Plan, amounts: Amounts) -> str:
    nearest = plan.threshold
    flips = "nothing" if nearest.flips_at is None else written.of_unit(nearest.flips_at, nearest.unit, amounts)
    facts = [
        ("Size", amounts.diem(plan.size)),
        ("Flips at", f"{flips} ({nearest.label.lower()})"),
        ("Outlay", amounts.money(plan.outlay)),
        ("Expected saving", amounts.money(plan.saving)),
        ("Cheaper on", f"{share(plan.hold_beats_rent)} of paths"),
    ]
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    warned = "".join(f"<p class=warn>{escape(text)}</p>" for text in plan.provenance.warnings)
    return (
        f'<section class="answer {plan.decision.value}" aria-label="The answer"><p>{escape(plan.sentence)}</p>'
        f"<dl class=facts>{told}</dl>{warned}</section>"
    )


def _drawn(title: str, plot: charts.Plot, note: str = "") -> str:
    picture = charts.draw(plot)
    if not picture:
        return ""
    below = f"<p class=note>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{charts.key(plot)}{picture}{below}</section>"


def _sizes(plan: Plan, amounts: Amounts) -> str:
    curve = plan.size_curve
    if not curve.diem:
        return ""
    rent = amounts.scaled(curve.rent)
    hold = [(size, amounts.scaled(cost)) for size, cost in zip(curve.diem, curve.hold, strict=True)]
    bad = [(size, amounts.scaled(cost)) for size, cost in zip(curve.diem, curve.hold_cvar95, strict=True)]
    plot = charts.Plot(
        summary=f"Cost over the horizon by DIEM held; least near {number(plan.size)} DIEM. Renting costs "
        f"{amounts.money(curve.rent)}.",
        x_name="DIEM held",
        y_name=amounts.name,
        layers=(
            charts.Line("rent only", [(curve.diem[0], rent), (curve.diem[-1], rent)], "rent", dashed=True),
            charts.Line("hold, expected", hold, "hold"),
            charts.Line("hold, dearest twentieth", bad, "risk", dashed=True),
        ),
        marks=(charts.Mark(f"advised: {number(plan.size)}", x=plan.size),),
    )
    return _drawn("Cost by size", plot)


def _break_even(plan: Plan, amounts: Amounts) -> str:
    """A DIEM-day at each utilisation: what it costs, and what the same credit costs by the call."""
    given, kappa = plan.assumptions, plan.carry
    if not abs(kappa) < 1e9:
        return ""
    steps = [step / 20 for step in range(21)]
    by_call = [(used, amounts.scaled(given.overflow_price * used)) for used in steps]
    held = [(used, amounts.scaled(kappa - given.lease * (1 - used))) for used in steps]
    even = plan.break_even_utilisation
    marks = [charts.Mark(f"yours: {share(plan.payback.utilisation)}", x=plan.payback.utilisation)]
    if 0 <= even <= 1:
        marks.append(charts.Mark(f"even: {share(even)}", x=even))
    plot = charts.Plot(
        summary=f"One DIEM-day by the share of it that is used: holding costs less than paying by the call above "
        f"{share(even)}.",
        x_name="share of the allowance that is used",
        y_name=f"{amounts.name} per DIEM-day",
        layers=(charts.Line("by the call", by_call, "rent"), charts.Line("held", held, "hold")),
        marks=marks,
        x_tick=charts.percent,
    )
    return _drawn("Break-even utilisation", plot)


def _fans(plan: Plan, amounts: Amounts) -> str:
    layers: list[charts.Line | charts.Band | charts.Bars] = []
    for fan in plan.fans:
        tone = "rent" if fan.name == "rent" else "hold"
        label = plan.cost(fan.name).label if fan.name in {each.name for each in plan.costs} else fan.name
        layers.append(charts.Band("", _band(fan, amounts), tone))
        layers.append(charts.Line(label, _middle(fan, amounts), tone))
    plot = charts.Plot(
        summary="Cost so far over the days of the horizon: the middle path, and the range from the tenth to the "
        "ninetieth percentile. DIEM held count at their price.",
        x_name="day",
        y_name=amounts.name,
        layers=layers,
        whole_x=True,
    )
    return _drawn("Cost so far, P10 to P90", plot)


def _band(fan: Fan, amounts: Amounts) -> list[tuple[float, float, float]]:
    return [
        (float(day), amounts.scaled(low), amounts.scaled(high))
        for day, low, high in zip(fan.days, fan.p10, fan.p90, strict=True)
    ]


def _middle(fan: Fan, amounts: Amounts) -> list[tuple[float, float]]:
    return [(float(day), amounts.scaled(cost)) for day, cost in zip(fan.days, fan.p50, strict=True)]


def _tornado(plan: Plan, amounts: Amounts) -> str:
    swings = [
        charts.Swing(
            bar.label,
            amounts.scaled(bar.saving_at_low),
            amounts.scaled(bar.saving_at_high),
            written.of_unit(bar.low, bar.unit, amounts),
            written.of_unit(bar.high, bar.unit, amounts),
        )
        for bar in plan.tornado
    ]
    if not swings:
        return ""
    summary = (
        f"How the saving of {amounts.money(plan.saving)} moves when one assumption moves; widest: {swings[0].name}."
    )
    picture = charts.tornado(swings, amounts.scaled(plan.saving), summary=summary)
    return (
        "<section><h2>What the saving hangs on</h2>"
        "<p class=key><span class=rent>assumption at its low</span><span class=hold>at its high</span></p>"
        f"{picture}<p class=note>Saving against rent, {escape(amounts.name)}. The table of thresholds has what flips"
        " it.</p></section>"
    )


def _usage(plan: Plan, amounts: Amounts) -> str:
    shown = plan.usage_days[-MOST_DAYS:]
    if not shown:
        return ""
    first = shown[0].day.number
    used = [(each.day.number - first + 1.0, amounts.scaled(each.used)) for each in shown]
    whole = [(each.day.number - first + 1.0, amounts.scaled(each.demand)) for each in shown]
    dated = plan.provenance.dated
    said = [f"{f'{each.day}: ' if dated else ''}{amounts.money(each.demand)}" for each in shown]
    marks = (charts.Mark(f"allowance {number(plan.size)}", y=amounts.scaled(plan.size)),) if plan.size > 0 else ()
    over = sum(1 for each in shown if each.overflow > 0)
    span = f"{shown[0].day} to {shown[-1].day}" if dated else f"{len(shown)} days"
    plot = charts.Plot(
        summary=f"Usage of each day, {span}, against an allowance of {number(plan.size)} a day; above it on {over} of "
        f"{len(shown)} days.",
        x_name=f"day of the data ({span})",
        y_name=amounts.name,
        layers=(
            charts.Bars("paid by the call", whole, "over", titles=said),
            charts.Bars("from the allowance", used, "used", titles=said),
        ),
        marks=marks,
        whole_x=True,
        wide=True,
    )
    note = "" if len(shown) == len(plan.usage_days) else f"The newest {len(shown)} of {len(plan.usage_days)} days."
    return _drawn("Usage against the allowance, day by day", plot, note)


def _costs(plan: Plan, amounts: Amounts) -> str:
    cheapest = min((each.expected for each in plan.costs if each.name != "clairvoyant"), default=0.0)
    rows = []
    for each in plan.costs:
        spread = each.spread
        cells = [
            number(each.diem),
            *map(amounts.bare, (each.expected, spread.mean, spread.p10, spread.p50, spread.p90, spread.cvar95)),
            amounts.bare(each.saving),
        ]
        rows.append((each.label, cells, each.name != "clairvoyant" and each.expected == cheapest))
    heads = ["", "DIEM", "expected", "mean of paths", "P10", "P50", "P90", "CVaR95", "saving"]
    return _table(f"Costs over the horizon, {amounts.name}", heads, rows)


def _thresholds(plan: Plan, amounts: Amounts) -> str:
    def line(each: Threshold) -> tuple[str, list[str], bool]:
        now, flips = (written.of_unit(value, each.unit, amounts) for value in (each.now, each.flips_at))
        return each.label, [now, "nothing flips it" if each.flips_at is None else flips, each.sentence], False

    return _table("What flips the decision", ["", "now", "flips at", ""], map(line, plan.thresholds), said=3)


def _payback(plan: Plan, amounts: Amounts) -> str:
    back, sold, implied = plan.payback, plan.liquidation, plan.implied_hazard
    rows = [
        ("utilisation of the allowance", [share(back.utilisation)], False),
        ("break-even utilisation", [share(plan.break_even_utilisation)], False),
        ("payback, without resale", [days(back.days_without_resale)], False),
        ("payback, with resale", [days(back.days_with_resale)], False),
        ("payback at full use", [days(back.full_use_days)], False),
        ("cost of a DIEM-day (κ)", [amounts.money(plan.carry)], False),
        ("… if nothing can be sold", [amounts.money(sold.carry)], False),
        ("saving if nothing can be sold", [amounts.money(sold.saving)], False),
        ("size if nothing can be sold", [amounts.diem(sold.best_size)], False),
        ("size that minds bad cases", [amounts.diem(plan.size_by_risk)], False),
        ("rate implied by the price (r + h)", [f"{share(implied.total_rate)} a year"], False),
        ("… of it hazard", [f"{share(implied.hazard)} a year"], False),
    ]
    return _table("Payback, and the case that nothing can be sold", ["", ""], rows)


def _alternatives(plan: Plan, amounts: Amounts) -> str:
    rows = [
        (
            each.label,
            [amounts.bare(each.cost), ", ".join(f"{name} {number(size)}" for name, size in each.parts.items())],
            index == 0,
        )
        for index, each in enumerate(plan.alternatives)
    ]
    return _table("Other ways to be served", ["", amounts.name, "of it a day"], rows)


def _risks(plan: Plan, amounts: Amounts) -> str:
    rows = [(each.label, [amounts.bare(each.cost), share(each.share)], False) for each in plan.risks]
    return _table("Where the risk is", ["each alone", f"dearest twentieth, {amounts.name}", "share"], rows)


def _worst(plan: Plan, amounts: Amounts) -> str:
    rows = [
        (each.label, [amounts.bare(each.hold_cost), amounts.bare(each.rent_cost), amounts.bare(each.loss)], False)
        for each in plan.worst_cases
    ]
    return _table(f"Worst cases, {amounts.name}", ["", "hold", "rent", "loss"], rows)


def _regret(plan: Plan) -> str:
    rule = plan.regret
    return (
        f"<section><h2>If usage can't be foreseen</h2><p>{escape(rule.label)}: buy a DIEM for a level of usage after"
        f" {number(rule.threshold_days)} days of full use of it. It costs at most {number(rule.ratio)} times the best"
        f" in hindsight, {number(rule.ratio_if_right)} when the forecast comes true.</p>"
        f"<p class=note>{escape(rule.source)}</p></section>"
    )


def _flows(plan: Plan, amounts: Amounts) -> str:
    rows = [
        (
            f"{flow.policy}, month {flow.month}",
            [*map(amounts.bare, (flow.cash_out, flow.discounted, flow.npv, flow.mark_to_market))],
            False,
        )
        for flow in plan.flows
    ]
    heads = ["", "cash out", "discounted", "NPV so far", "DIEM at market"]
    return _table(f"Cash flow by 30-day month, {amounts.name}", heads, rows)


def _models(plan: Plan, amounts: Amounts) -> str:
    rows = [
        (
            each.model,
            [
                f"{each.requests:,.0f}",
                f"{each.input_tokens:,.0f}",
                f"{each.cached_tokens:,.0f}",
                f"{each.output_tokens:,.0f}",
                amounts.bare(each.cost),
            ],
            False,
        )
        for each in plan.models
    ]
    return _table("What was used", ["model", "requests", "input", "cached", "output", amounts.name], rows)


def _assumptions(plan: Plan, amounts: Amounts) -> str:
    rows = []
    for each in plan.assumed:
        if isinstance(each.value, int | float) and not isinstance(each.value, bool):
            value = written.of_unit(each.value, each.unit, amounts)
        else:
            value = "none" if each.value is None else str(each.value)
        rows.append((each.name, [value, each.origin, each.explained], False))
    return _table("Assumptions", ["", "value", "", ""], rows, said=3)


def _provenance(plan: Plan) -> str:
    found = plan.provenance
    facts = [f"{found.days:,} days, {found.days_with_data:,} of them with data."]
    facts += [f"{each.name}: {each.format}, {each.rows:,} rows" for each in found.files]
    facts += [f"Gap: {each.first} to {each.last}, {each.days} days counted as without usage." for each in found.gaps]
    if found.bad_row_count:
        facts.append(f"{found.bad_row_count:,} rows could not be read, and nothing of them is counted:")
        facts += [str(each) for each in found.bad_rows]
    facts += found.notes
    items = "".join(f"<li>{escape(each)}</li>" for each in facts)
    return f"<section><h2>What this rests on</h2><ul>{items}</ul></section>"


def _table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str], bool]],
    *,
    said: int | None = None,
) -> str:
    """Rows are (name, cells, whether it is the best). `said` is the column of sentences. Empty without rows."""

    def line(name: str, cells: Sequence[str], best: bool) -> str:
        shown = "".join(
            f"<td{' class=said' if place == said else ''}>{escape(cell)}</td>" for place, cell in enumerate(cells, 1)
        )
        return f"<tr{' class=best' if best else ''}><th scope=row>{escape(name)}</th>{shown}</tr>"

    body = "".join(line(*row) for row in rows)
    if not body:
        return ""
    head = "".join(f"<th scope=col>{escape(column)}</th>" if column else "<td></td>" for column in columns)
    return (
        f'<section><h2>{escape(title)}</h2><div class=sheet tabindex=0 role=region aria-label="{escape(title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )
