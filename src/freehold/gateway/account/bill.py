"""A month's bill: what each purse got, used and lost, and each charge's day, model, key and purse."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BeforeValidator, Field, WithJsonSchema

from freehold.clock import Day, Month
from freehold.gateway.account import bill_page, sheet
from freehold.gateway.account.deps import Reader, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.keys import key_names
from freehold.gateway.account.wire import Out, moment, money
from freehold.ledger.model import Bill, BillGroup, BillLine, Source
from freehold.money import format_usd
from freehold.problems import InvalidRequest

router = APIRouter(prefix="/v1/account", tags=["usage"])


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def _month(value: object) -> Month:
    """Raises ValueError."""
    if isinstance(value, Month):
        return value
    if not isinstance(value, str):
        raise ValueError("send a month such as 2026-11")
    try:
        return Month.parse(value.strip())
    except ValueError:
        raise ValueError("that is not a month such as 2026-11") from None


MonthIn = Annotated[
    Any,
    BeforeValidator(_month),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}$", "examples": ["2026-11"]}),
]


class PurseBillOut(Out):
    """opening + granted - used - expired - reversed = closing."""

    source: Source
    opening: str
    opening_nano: int
    granted: str = Field(description="Issued, or paid in.")
    granted_nano: int
    used: str
    used_nano: int
    expired: str = Field(description="Ended unused, by the time that it was written off.")
    expired_nano: int
    reversed: str = Field(description="Taken back after a reorg of the chain.")
    reversed_nano: int
    closing: str
    closing_nano: int


class TopUpOut(Out):
    at: str
    reference: str = Field(description="The ledger's id of what was paid.")
    transaction: str | None = Field(description="Hash of the chain's transaction.")
    amount: str
    amount_nano: int


class BillGroupOut(Out):
    group: str = Field(description="The day, the model, the key's id, or the purse.")
    key_name: str | None = Field(default=None, description="The key's name, by key.")
    calls: int = Field(description="A call that several purses paid is counted at the first of them.")
    cost: str
    cost_nano: int


class BillLineOut(Out):
    day: str
    model: str
    key_id: int
    key_name: str
    source: Source | None = Field(description="Null: calls that cost nothing.")
    calls: int
    cost: str
    cost_nano: int


class AbsorbedOut(Out):
    cause: str = Field(
        description="overage: an upstream's cost above the hold; unsettled: a worker's end; reorg: credit that a reorg took."
    )
    amount: str
    amount_nano: int


class BillOut(Out):
    """A calendar month, UTC, of ledger time. Every sum is exact to the nano-USD and comes from the ledger's entries."""

    account_id: int
    account_name: str
    month: str
    starts_at: str
    ends_at: str
    final: bool = Field(description="False: the month isn't over, or a call that began in it is; the bill is so far.")
    calls: int
    opening: str
    opening_nano: int
    used: str
    used_nano: int
    closing: str
    closing_nano: int
    purses: list[PurseBillOut]
    top_ups: list[TopUpOut]
    by_day: list[BillGroupOut]
    by_model: list[BillGroupOut]
    by_key: list[BillGroupOut]
    by_purse: list[BillGroupOut]
    lines: list[BillLineOut] = Field(description="Charges of one day, model, key and purse; they sum to `used`.")
    absorbed: str = Field(description="Not billed: what the operator bore.")
    absorbed_nano: int
    absorbed_by_cause: list[AbsorbedOut]


@router.get(
    "/bill",
    summary="A month's bill",
    response_model=BillOut,
    responses={
        200: {
            "description": "The bill as JSON, CSV, or one HTML page.",
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **answers(400, 401, 403, 404),
    },
)
async def bill(
    services: Services,
    caller: Reader,
    month: Annotated[MonthIn | None, Query(description="Left out: this month, of ledger time.")] = None,
    form: Annotated[Format, Query(alias="format")] = Format.JSON,
) -> Any:
    """Its lines sum to the ledger to the nano-USD; a bill that wouldn't is refused with `bill_differs`."""
    current = Month.of((await services.ledger.time()).at_s)
    month = month or current
    if month > current:
        raise InvalidRequest(reason=f"month: {month} has not begun; the newest is {current}.", param="month")
    account = await services.identity.account(caller.account_id)
    names = await key_names(services, caller.account_id)
    made = shown(await services.ledger.bill(caller.account_id, month), account.name, names)
    if form is Format.CSV:
        return sheet.response(COLUMNS, sheet.these(cells(made)), name=f"bill-{month}.csv")
    if form is Format.HTML:
        return HTMLResponse(bill_page.page(made.model_dump()), headers=bill_page.HEADERS)
    return made


def shown(made: Bill, account_name: str, names: Mapping[int, str]) -> BillOut:
    """The bill as it crosses the wire."""
    return BillOut(
        account_id=made.account_id,
        account_name=account_name,
        month=str(made.month),
        starts_at=str(moment(made.month.start_s)),
        ends_at=str(moment(made.month.end_s)),
        final=made.final,
        calls=made.calls,
        **money("opening", made.opening_nano),
        **money("used", made.used_nano),
        **money("closing", made.closing_nano),
        purses=[
            PurseBillOut(
                source=purse.source,
                **money("opening", purse.opening_nano),
                **money("granted", purse.granted_nano),
                **money("used", purse.used_nano),
                **money("expired", purse.expired_nano),
                **money("reversed", purse.reversed_nano),
                **money("closing", purse.closing_nano),
            )
            for purse in made.purses
        ],
        top_ups=[
            TopUpOut(
                at=str(moment(top_up.at_s)),
                reference=top_up.external_id,
                transaction=_transaction(top_up.external_id),
                **money("amount", top_up.amount_nano),
            )
            for top_up in made.top_ups
        ],
        by_day=[_group(group) for group in made.by_day()],
        by_model=[_group(group) for group in made.by_model()],
        by_key=[_group(group, names.get(int(group.group), "")) for group in made.by_key()],
        by_purse=[_group(group) for group in made.by_purse()],
        lines=[_line(line, names) for line in made.lines],
        **money("absorbed", sum(made.absorbed.values())),
        absorbed_by_cause=[
            AbsorbedOut(cause=cause, **money("amount", amount)) for cause, amount in sorted(made.absorbed.items())
        ],
    )


def _transaction(external_id: str) -> str | None:
    """The transaction that `evt:<chain>:<block>:<transaction>:<log>` names."""
    parts = external_id.split(":")
    return parts[3] if parts[0] == "evt" and len(parts) >= 5 else None


def _group(group: BillGroup, key_name: str | None = None) -> BillGroupOut:
    return BillGroupOut(group=group.group, key_name=key_name, calls=group.calls, **money("cost", group.cost_nano))


def _line(line: BillLine, names: Mapping[int, str]) -> BillLineOut:
    return BillLineOut(
        day=str(Day(line.day)),
        model=line.model,
        key_id=line.key_id,
        key_name=names.get(line.key_id, ""),
        source=line.source,
        calls=line.calls,
        **money("cost", line.cost_nano),
    )


COLUMNS = (
    "what", "day", "model", "key_id", "key_name", "purse", "calls", "amount_usd", "amount_nano", "transaction",
)  # fmt: skip


def cells(made: BillOut) -> Iterator[list[sheet.Cell]]:
    """Every row from `opening` to `reversed` sums to the rows `closing`; `not billed` stands for itself."""
    for purse in made.purses:
        yield _row("opening", purse.opening_nano, purse=purse.source)
    for purse in made.purses:
        if purse.source is not Source.PREPAID:
            yield _row("granted", purse.granted_nano, purse=purse.source)
    for top_up in made.top_ups:
        paid_by = top_up.transaction or top_up.reference
        yield _row("top-up", top_up.amount_nano, day=top_up.at[:10], purse=Source.PREPAID, transaction=paid_by)
    for line in made.lines:
        yield _row(
            "charge", -line.cost_nano, day=line.day, model=line.model, key_id=line.key_id, key_name=line.key_name,
            purse=line.source or "", calls=line.calls,
        )  # fmt: skip
    for purse in made.purses:
        yield _row("expired", -purse.expired_nano, purse=purse.source)
    for purse in made.purses:
        yield _row("reversed", -purse.reversed_nano, purse=purse.source)
    for purse in made.purses:
        yield _row("closing" if made.final else "closing so far", purse.closing_nano, purse=purse.source)
    for absorbed in made.absorbed_by_cause:
        yield _row(f"not billed: {absorbed.cause}", absorbed.amount_nano)


def _row(
    what: str, nano: int, *, day: str = "", model: str = "", key_id: int | str = "", key_name: str = "",
    purse: str = "", calls: int | str = "", transaction: str = "",
) -> list[sheet.Cell]:  # fmt: skip
    return [what, day, model, key_id, key_name, str(purse), calls, sheet.Amount(format_usd(nano)), nano, transaction]
