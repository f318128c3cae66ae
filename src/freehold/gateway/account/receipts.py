"""Receipts as their operator signs them, their proofs, and the days whose roots are published."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, Field

from freehold.clock import Day, Month
from freehold.gateway.account.bill import MonthIn
from freehold.gateway.account.deps import Reader, SeesOwn, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.usage import charge_seen
from freehold.gateway.account.wire import Out, money, plain
from freehold.ledger import days
from freehold.problems import Conflict, InvalidRequest, NotFound
from freehold.receipts import wire
from freehold.receipts.model import PURSES
from freehold.receipts.receipts import Receipts, Seen

router = APIRouter(prefix="/v1", tags=["receipts"])

MOST_DAY = 2_932_896
"""9999-12-31."""


class ProofOut(Out):
    """What leads from a receipt to its day's root, which the operator's book on the chain has."""

    request_id: str
    day: str
    hash: str = Field(description="EIP-712 digest of the receipt; what `EpochBook.verify` takes.")
    root: str
    siblings: list[str] = Field(description="From the leaf up, in the layout of OpenZeppelin's MerkleProof.")


class ReceiptsOut(Out):
    data: list[dict[str, Any]] = Field(description="Receipts as files: what `freehold verify` takes.")
    next_cursor: str | None


class PurseTotalsOut(Out):
    """USD: opening + granted = used + expired + closing."""

    opening: str
    opening_nano: int
    granted: str
    granted_nano: int
    used: str
    used_nano: int
    expired: str
    expired_nano: int
    closing: str
    closing_nano: int


class EpochOut(Out):
    """A day of this operator, over all accounts."""

    day: str
    number: int = Field(description="Days since 1970-01-01, as the chain counts them.")
    root: str = Field(description="Over the day's receipts; all zeros for a day without any.")
    count: int = Field(description="Receipts.")
    totals: dict[str, PurseTotalsOut]
    chain_id: int
    book: str = Field(description="The contract that it is published in.")
    operator: str
    signer: str | None
    signature: str | None = Field(description="The operator's, over DayRoot (EIP-712): root, count and totals.")
    published: bool = Field(description="In the book on the chain as it was closed, as this server last saw it.")
    published_root: str | None = Field(description="What the book on the chain says then; null where it has nothing.")


class EpochsOut(Out):
    data: list[EpochOut]
    next_before: str | None = Field(description="Send it as `before` for the days before these; null at the end.")


@router.get("/account/receipts", summary="A month's receipts, signed", responses=answers(400, 401, 403, 404))
async def receipts(
    services: Services,
    caller: Reader,
    month: Annotated[MonthIn, Query(description="Calendar month, UTC.")],
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    cursor: Annotated[str | None, AfterValidator(plain), Query(max_length=60)] = None,
) -> ReceiptsOut:
    """Every charge of the month, oldest first; those of closed days with their proofs."""
    found = _receipts(services)
    asked: Month = month
    charges, after = await days.account_charges(
        services.database,
        caller.account_id,
        asked.first.number,
        asked.next().first.number,
        cursor=_cursor(cursor),
        limit=limit,
    )
    return ReceiptsOut(
        data=[wire.document(await found.signed(charge), found.domain) for charge in charges],
        next_cursor=None if after is None else f"{after[0]}-{after[1]}",
    )


@router.get(
    "/account/receipts/{receipt_id}/proof", summary="A receipt's proof", responses=answers(400, 401, 403, 404, 409)
)
async def proof(services: Services, caller: SeesOwn, receipt_id: str) -> ProofOut:
    """Once the receipt's day is closed. Refused with 409 before."""
    charge = await charge_seen(services, caller, receipt_id)
    signed = await _receipts(services).signed(charge)
    if signed.root is None:
        raise Conflict(
            reason=f"{Day(charge.day)} isn't closed yet: its receipts have no root before the day has ended and its "
            "last call is settled.",
            retry_after_s=60,
        )
    return ProofOut(
        request_id=f"req_{charge.request_id.hex}",
        day=str(Day(charge.day)),
        hash=_hex(signed.hash),
        root=_hex(signed.root),
        siblings=[_hex(sibling) for sibling in signed.siblings],
    )


@router.get("/epochs", summary="Closed days", responses=answers(400, 404))
async def epochs(
    services: Services,
    before: Annotated[str | None, Query(max_length=10, description="Only days before this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=366)] = 31,
) -> EpochsOut:
    """The newest first."""
    found = _receipts(services)
    closed = await found.days(before=None if before is None else _day(before, "before"), limit=limit)
    seen = {one.closed.day: one for one in await found.standing(since=closed[-1].day if closed else MOST_DAY)}
    return EpochsOut(
        data=[_epoch(found, seen[one.day]) for one in closed if one.day in seen],
        next_before=str(Day(closed[-1].day)) if len(closed) == limit else None,
    )


@router.get("/epochs/{day}", summary="A closed day", responses=answers(400, 404))
async def epoch(services: Services, day: Annotated[str, Path(max_length=10)]) -> EpochOut:
    """The root over the day's receipts, how many they are, and what came and went in each purse."""
    found = _receipts(services)
    number = _day(day, "day")
    for seen in await found.standing(since=number):
        if seen.closed.day == number:
            return _epoch(found, seen)
    raise NotFound(reason=f"{day} isn't closed.", param="day")


def _epoch(found: Receipts, seen: Seen) -> EpochOut:
    closed = seen.closed
    signature = found.sign_day(closed)
    return EpochOut(
        day=str(Day(closed.day)),
        number=closed.day,
        root=_hex(closed.root),
        count=closed.count,
        totals={
            purse.value: PurseTotalsOut(
                **money("opening", totals.opening),
                **money("granted", totals.granted),
                **money("used", totals.used),
                **money("expired", totals.expired),
                **money("closing", totals.closing),
            )
            for purse in PURSES
            for totals in (closed.totals[purse],)
        },
        chain_id=found.domain.chain_id,
        book=found.domain.book,
        operator=found.domain.operator,
        signer=found.signer,
        signature=None if signature is None else _hex(signature),
        published=seen.right(),
        published_root=None if seen.root is None else _hex(seen.root),
    )


def _receipts(services: AccountServices) -> Receipts:
    if services.receipts is None:
        raise NotFound(reason="This server makes no receipts: its deployment has no book for them.")
    return services.receipts


def _day(text: str, param: str) -> int:
    """`2026-11-23`, or the number of days since 1970-01-01. Raises InvalidRequest."""
    if text.isascii() and text.isdigit() and int(text) <= MOST_DAY:
        return int(text)
    try:
        return Day.parse(text).number
    except ValueError:
        raise InvalidRequest(reason=f"{param} is not a day such as 2026-11-23.", param=param) from None


def _cursor(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    at_s, _, position = text.partition("-")
    if not (at_s.isascii() and position.isascii() and at_s.isdigit() and position.isdigit()):
        raise InvalidRequest(reason="cursor is not one that a page gave.", param="cursor")
    if max(int(at_s), int(position)) >= 2**63:
        raise InvalidRequest(reason="cursor is not one that a page gave.", param="cursor")
    return int(at_s), int(position)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
