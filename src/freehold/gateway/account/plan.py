"""Rent or hold? Advice from the account's own days of usage."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from freehold.clock import DAY_S, Day
from freehold.gateway.account.deps import Reader, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.services import PlanAsked
from freehold.ledger.model import GroupBy
from freehold.problems import InvalidRequest

router = APIRouter(prefix="/v1/plan", tags=["plan"])

_DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The plan, as docs/reference/plan.schema.json describes it, and when its answer last turned.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.get("", summary="Rent or hold?", response_model=None, responses={**_DOCUMENT, **answers(400, 401, 403, 404)})
async def plan(
    services: Services,
    caller: Reader,
    price: Annotated[float | None, Query(gt=0, le=1e12, description="What one DIEM costs, USD.")] = None,
    days: Annotated[int, Query(ge=1, le=3650, description="How many past days count.")] = 365,
    horizon_days: Annotated[int, Query(ge=1, le=3650, description="How far the plan looks.")] = 365,
    discount_rate: Annotated[float | None, Query(ge=-0.5, le=10, description="Of money, a year.")] = None,
    hazard: Annotated[
        float | None, Query(ge=0, le=1000, description="Rate a year at which the platform may stop honouring DIEM.")
    ] = None,
    volatility: Annotated[float | None, Query(ge=0, le=10, description="Of DIEM's price, a year.")] = None,
    resale: Annotated[float | None, Query(ge=0, le=100, description="Price at the end, over today's.")] = None,
    fee: Annotated[float | None, Query(ge=0, le=0.99, description="Share lost when buying, and when selling.")] = None,
    rent_ratio: Annotated[
        float | None, Query(ge=1e-6, le=1000, description="What the same work costs elsewhere, over list price.")
    ] = None,
    lease: Annotated[float | None, Query(ge=0, le=1, description="What a dollar of idle credit fetches, USD.")] = None,
    budget: Annotated[float | None, Query(ge=0, le=1e15, description="The most to spend on DIEM, USD.")] = None,
    held: Annotated[float | None, Query(ge=0, le=1e15, description="DIEM held already.")] = None,
) -> Any:
    """From the days that have ended. Without a price, that of the chain's DIEM/USDC pool is taken, where there is one."""
    if services.plan is None:
        raise InvalidRequest(reason="This server gives no plans; `freehold plan` works on exported usage.")
    now = await services.ledger.time()
    today = Day.of(now.at_s)
    rows = await services.ledger.usage(
        caller.account_id, GroupBy.DAY, from_s=today.start_s - days * DAY_S, to_s=today.start_s
    )
    given = {
        "diem_price": price,
        "horizon_days": horizon_days,
        "discount_rate": discount_rate,
        "hazard": hazard,
        "volatility": volatility,
        "resale": resale,
        "fee": fee,
        "rent_ratio": rent_ratio,
        "lease": lease,
        "budget": budget,
        "held": held,
    }
    asked = PlanAsked(
        today=today,
        spent=tuple((Day.parse(row.group[:10]), row.cost_nano) for row in rows),
        calls=sum(row.calls for row in rows),
        given={name: value for name, value in given.items() if value is not None},
    )
    return await services.plan(asked)
