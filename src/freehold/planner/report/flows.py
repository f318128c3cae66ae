"""The cash-flow sheet: one row per policy and month."""

import csv
import io

from freehold.planner.model import Plan
from freehold.planner.report.amounts import Amounts

COLUMNS = (
    "policy",
    "month",
    "first_day",
    "last_day",
    "unit",
    "cash_out",
    "discounted",
    "npv",
    "mark_to_market",
    "npv_marked_to_market",
)


def sheet(plan: Plan) -> str:
    """CSV with `COLUMNS`. Months are 30 days of the horizon, month 0 the day of buying.

    `cash_out` is what is paid, sales negative. `npv` is what the policy is worth so far in today's money, and with the
    DIEM that are still held `npv_marked_to_market`; `mark_to_market` is what these would be expected to fetch.
    """
    amounts = Amounts.of(plan)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for flow in plan.flows:
        cells = (flow.cash_out, flow.discounted, flow.npv, flow.mark_to_market, flow.npv + flow.mark_to_market)
        writer.writerow(
            [
                flow.policy,
                flow.month,
                flow.first_day,
                flow.last_day,
                amounts.name,
                *(f"{amounts.scaled(each) + 0.0:.6f}" for each in cells),
            ]
        )
    return out.getvalue()
