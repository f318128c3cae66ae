"""Writes docs/reference/plan.schema.json from the plan's own types."""

import json

from freehold.planner.model import Plan
from freehold.planner.report.document import schema


def pages() -> dict[str, str]:
    """The generated pages, by file name."""
    title = "What `freehold plan --json` and GET /v1/plan answer"
    return {"plan.schema.json": json.dumps(schema(Plan, title), indent=2, ensure_ascii=False) + "\n"}
