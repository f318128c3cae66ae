"""What was called and what it cost: one row per call, or added up; and receipts."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from freehold.clock import Day
from freehold.gateway.account import sheet
from freehold.gateway.account.deps import Reader, SeesOwn, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.keys import key_names
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import MAX_ID, ModelId, Out, TimeIn, moment, money, plain, request_id, request_uuid
from freehold.identity.model import Act, Caller
from freehold.ledger.model import Charge, GroupBy, Source, UsageRow
from freehold.money import format_usd
from freehold.pricing.model import UNITS
from freehold.problems import InvalidRequest, NotFound
from freehold.receipts.wire import document

router = APIRouter(prefix="/v1/account", tags=["usage"])

_A_PAGE = 500
"""Rows that an export reads at a time."""
_ROWS = 50
"""Rows of an answer that names no limit."""


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"


class LegOut(Out):
    source: Source
    grant_id: int
    amount: str
    amount_nano: int


class ChargeOut(Out):
    """One call. It is also the receipt, under its request id."""

    request_id: str = Field(examples=["req_0f8fad5bd9cb469fa16570867728950e"])
    at: str = Field(description="Ledger time of the settlement.")
    day: str = Field(description="The UTC day that it is charged to.")
    key_id: int
    key_name: str
    model: str
    usage: Mapping[str, int] = Field(examples=[{"input": 12, "output": 40}])
    price_version: int
    cost: str = Field(description="What the account paid, USD.")
    cost_nano: int
    held: str
    held_nano: int
    absorbed: str = Field(description="Cost that the operator bears.")
    absorbed_nano: int
    legs: list[LegOut] = Field(description="Which grants paid; they sum to the cost.")
    outcome: str = Field(description="complete, disconnected, upstream_died, deadline or unsettled.")
    estimated: bool = Field(description="True when the upstream reported no usable usage.")


class ChargesOut(Out):
    data: list[ChargeOut]
    next_cursor: str | None = Field(description="Send it as `cursor` for the rows after these; null at the end.")


class GroupOut(Out):
    group: str = Field(description="The day or hour (RFC 3339), the model, or the key's id.")
    key_name: str | None = Field(description="The key's name, when grouped by key.")
    calls: int
    usage: Mapping[str, int]
    cost: str
    cost_nano: int
    by_source: Mapping[Source, str] = Field(description="USD that each purse paid.")
    by_source_nano: Mapping[Source, int]


class GroupsOut(Out):
    data: list[GroupOut]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which charges are meant."""

    account_id: int
    from_s: int | None
    to_s: int | None
    key_id: int | None
    model: str | None


@router.get(
    "/usage",
    summary="What was called and what it cost",
    response_model=ChargesOut | GroupsOut,
    responses={
        200: {"description": "Rows as JSON, or as CSV.", "content": {"text/csv": {"schema": {"type": "string"}}}},
        **answers(400, 401, 403, 404),
    },
)
async def usage(
    services: Services,
    caller: Reader,
    group_by: Annotated[GroupBy | None, Query(description="Add up; without it, one row per call.")] = None,
    since: Annotated[TimeIn | None, Query(alias="from", description="From this time on.")] = None,
    until: Annotated[TimeIn | None, Query(alias="to", description="Before this time.")] = None,
    key_id: Annotated[int | None, Query(ge=1, le=MAX_ID, description="Only this key's calls (rows per call).")] = None,
    model: Annotated[ModelId | None, Query(description="Only calls of this model (rows per call).")] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="Rows per call: 50 when left out, and all of them as CSV.")
    ] = None,
    cursor: Annotated[str | None, AfterValidator(plain), Query(max_length=200)] = None,
    form: Annotated[Format, Query(alias="format")] = Format.JSON,
) -> Any:
    """Newest first. Pages by cursor neither skip nor repeat a row, whatever is charged meanwhile."""
    names = await key_names(services, caller.account_id)
    if group_by is not None:
        if key_id is not None or model is not None or cursor is not None:
            raise InvalidRequest(reason="key_id, model and cursor go with rows per call.", param="group_by")
        added = await services.ledger.usage(caller.account_id, group_by, from_s=since, to_s=until)
        groups = [_group(row, group_by, names) for row in added]
        if form is Format.CSV:
            return sheet.response(GROUP_COLUMNS, sheet.these(map(_group_cells, groups)))
        return GroupsOut(data=groups)
    asked = Asked(caller.account_id, since, until, key_id, model)
    if form is Format.CSV and limit is None:
        first = await _page(services, asked, names, cursor, _A_PAGE)
        return sheet.response(CHARGE_COLUMNS, _all(services, asked, names, first))
    page = await _page(services, asked, names, cursor, limit or _ROWS)
    if form is Format.CSV:
        return sheet.response(CHARGE_COLUMNS, sheet.these(map(_charge_cells, page.data)), next_cursor=page.next_cursor)
    return page


class ReceiptOut(ChargeOut):
    signed: dict[str, Any] | None = Field(
        description="The receipt as its operator signs it, with its proof once its day is closed: what `freehold verify` "
        "takes. Null on a server that makes none."
    )


@router.get("/receipts/{receipt_id}", summary="The record of one call", responses=answers(400, 401, 403, 404))
async def receipt(services: Services, caller: SeesOwn, receipt_id: str) -> ReceiptOut:
    """By the request id that the call's answer carried. A key without the scope read sees its own calls only."""
    charge = await charge_seen(services, caller, receipt_id)
    names = await key_names(services, caller.account_id)
    made = services.receipts
    signed = None if made is None else document(await made.signed(charge), made.domain)
    return ReceiptOut(**_charge(charge, names).model_dump(), signed=signed)


async def charge_seen(services: AccountServices, caller: Caller, receipt_id: str) -> Charge:
    """A charge that the caller may see. Raises InvalidRequest, NotFound."""
    number = request_uuid(receipt_id)
    if number is None:
        raise InvalidRequest(reason="A request id is req_ and 32 hexadecimal digits.", param="receipt_id")
    unknown = NotFound(reason=f"No call {request_id(number)} was charged to this account.", param="receipt_id")
    try:
        charge = await services.ledger.charge(caller.account_id, number)
    except NotFound:
        raise unknown from None
    if Act.READ not in caller.acts() and (caller.key is None or caller.key.id != charge.key_id):
        raise unknown
    return charge


async def _page(
    services: AccountServices, asked: Asked, names: Mapping[int, str], cursor: str | None, limit: int
) -> ChargesOut:
    page = await services.ledger.charges(
        asked.account_id,
        after=cursor,
        limit=limit,
        from_s=asked.from_s,
        to_s=asked.to_s,
        key_id=asked.key_id,
        model=asked.model,
    )
    return ChargesOut(data=[_charge(charge, names) for charge in page.charges], next_cursor=page.next)


async def _all(
    services: AccountServices, asked: Asked, names: Mapping[int, str], page: ChargesOut
) -> AsyncIterator[list[sheet.Cell]]:
    while True:
        for charge in page.data:
            yield _charge_cells(charge)
        if page.next_cursor is None:
            return
        page = await _page(services, asked, names, page.next_cursor, _A_PAGE)


def _charge(charge: Charge, names: Mapping[int, str]) -> ChargeOut:
    return ChargeOut(
        request_id=request_id(charge.request_id),
        at=str(moment(charge.at_s)),
        day=str(Day(charge.day)),
        key_id=charge.key_id,
        key_name=names.get(charge.key_id, ""),
        model=charge.model,
        usage=charge.usage,
        price_version=charge.price_version,
        **money("cost", charge.cost_nano),
        **money("held", charge.held_nano),
        **money("absorbed", charge.absorbed_nano),
        legs=[
            LegOut(source=leg.source, grant_id=leg.grant_id, **money("amount", leg.amount_nano)) for leg in charge.legs
        ],
        outcome=charge.outcome,
        estimated=charge.estimated,
    )


def _group(row: UsageRow, by: GroupBy, names: Mapping[int, str]) -> GroupOut:
    return GroupOut(
        group=row.group,
        key_name=names.get(int(row.group), "") if by is GroupBy.KEY else None,
        calls=row.calls,
        usage=row.usage,
        **money("cost", row.cost_nano),
        by_source={source: format_usd(nano) for source, nano in row.by_source.items()},
        by_source_nano=row.by_source,
    )


_PAID = tuple(f"{source}_usd" for source in Source)
CHARGE_COLUMNS = (
    "at", "day", "request_id", "key_id", "key_name", "model", *UNITS, "cost_usd", "cost_nano", *_PAID,
    "absorbed_usd", "outcome", "estimated", "price_version",
)  # fmt: skip
GROUP_COLUMNS = ("group", "key_name", "calls", *UNITS, "cost_usd", "cost_nano", *_PAID)


def _charge_cells(row: ChargeOut) -> list[sheet.Cell]:
    paid = {source: 0 for source in Source}
    for leg in row.legs:
        paid[leg.source] += leg.amount_nano
    return [
        row.at,
        row.day,
        row.request_id,
        row.key_id,
        row.key_name,
        row.model,
        *(row.usage.get(unit, 0) for unit in UNITS),
        row.cost,
        row.cost_nano,
        *map(format_usd, paid.values()),
        row.absorbed,
        row.outcome,
        str(row.estimated).lower(),
        row.price_version,
    ]


def _group_cells(row: GroupOut) -> list[sheet.Cell]:
    return [
        row.group,
        row.key_name or "",
        row.calls,
        *(row.usage.get(unit, 0) for unit in UNITS),
        row.cost,
        row.cost_nano,
        *(format_usd(row.by_source_nano.get(source, 0)) for source in Source),
    ]
