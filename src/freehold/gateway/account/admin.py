"""For the operator: accounts, credit given away, prices, and the check of the books."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from freehold.db import Connection
from freehold.gateway.account.deps import Operator, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.keys import KeyIn, KeyOut, NewKeyOut, make, shown, write_new
from freehold.gateway.account.prices import PriceOut, price
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import MAX_ID, In, ModelId, Out, Text, UsdIn, moment, money
from freehold.identity.model import Account, ApiKey
from freehold.ledger.model import FOREVER_S, Grant, Source
from freehold.pricing.model import CACHE_WRITE, CACHED, INPUT, OUTPUT
from freehold.problems import Conflict, InvalidRequest

router = APIRouter(prefix="/v1/admin", tags=["operator"])

DAY_S = 86_400


class AccountIn(In):
    name: Text = Field(examples=["team blue"])


class AccountRowOut(Out):
    id: int
    name: str
    kind: str
    address: str
    created_at: str


class NewAccountOut(Out):
    account: AccountRowOut
    key: KeyOut
    secret: str = Field(repr=False, description="The account's first key. Shown this once.")


class AccountsOut(Out):
    data: list[AccountRowOut]
    next_after: int | None = Field(description="Send it as `after` for the accounts after these; null at the end.")


class GrantIn(In):
    account_id: Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
    amount_usd: UsdIn
    expires_in_days: Annotated[int, Field(ge=1, le=36_500, strict=True)] | None = Field(
        default=None, description="From now, in ledger time; null for never."
    )
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,100}$")] = Field(
        description="Your name for this grant. The same id again gives nothing more.", examples=["welcome-2026"]
    )


class ReloadOut(Out):
    message: str = Field(description="What was taken up.")


class GrantOut(Out):
    id: int
    account_id: int
    source: Source
    external_id: str
    amount: str
    amount_nano: int
    available: str
    available_nano: int
    starts_at: str
    expires_at: str | None


class PriceIn(In):
    input_usd_per_million: UsdIn
    output_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    cached_input_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    cache_write_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    label: Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    note: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class SetPriceOut(PriceOut):
    version: int


class DifferenceOut(Out):
    law: str
    account_id: int | None
    subject: str
    expected: str
    found: str


class BooksOut(Out):
    balanced: bool
    differences: list[DifferenceOut]


@router.post("/accounts", summary="Make a local account", status_code=201, responses=answers(400, 401, 403))
async def create_account(services: Services, _caller: Operator, asked: AccountIn) -> NewAccountOut:
    """An account for people without a wallet, with a first key."""

    async def work(conn: Connection) -> tuple[Account, ApiKey, str]:
        account_id = await services.ledger.create_account(conn)
        account = await services.identity.create_local_account(conn, account_id, asked.name)
        return account, *await write_new(services, conn, account_id, None, KeyIn(name="first"))

    account, key, secret = await services.database.transact(work)
    return NewAccountOut(account=_row(account), key=(await shown(services, account.id, [key]))[0], secret=secret)


@router.get("/accounts", summary="List accounts", responses=answers(400, 401, 403))
async def list_accounts(
    services: Services,
    _caller: Operator,
    after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> AccountsOut:
    """By id."""
    found = await services.identity.accounts(after=after, limit=limit)
    return AccountsOut(
        data=[_row(account) for account in found], next_after=found[-1].id if len(found) == limit else None
    )


@router.post(
    "/accounts/{account_id}/keys", summary="Create a key", status_code=201, responses=answers(400, 401, 403, 404)
)
async def create_key(
    services: Services, _caller: Operator, account_id: Annotated[int, Path(ge=1, le=MAX_ID)], asked: KeyIn
) -> NewKeyOut:
    """A key for any account."""
    await services.identity.account(account_id)
    return await make(services, account_id, None, asked)


@router.post("/grants", summary="Give credit", status_code=201, responses=answers(400, 401, 403, 404, 409))
async def grant(services: Services, _caller: Operator, asked: GrantIn) -> GrantOut:
    """Promotional credit, once per account and id."""
    if asked.amount_usd == 0:
        raise InvalidRequest(reason="amount_usd: that is nothing; give more than 0.", param="amount_usd")
    await services.identity.account(asked.account_id)
    now_s = (await services.ledger.time()).at_s
    ends_s = FOREVER_S if asked.expires_in_days is None else now_s + asked.expires_in_days * DAY_S
    external_id = f"promo:{asked.id}"
    try:
        given = await services.ledger.grant(
            asked.account_id, Source.PROMO, asked.amount_usd, external_id, starts_at_s=now_s, expires_at_s=ends_s
        )
    except Conflict:
        given = await _given_before(services, asked, external_id)
    return GrantOut(
        id=given.id,
        account_id=given.account_id,
        source=given.source,
        external_id=given.external_id,
        **money("amount", given.amount_nano),
        **money("available", given.available_nano),
        starts_at=str(moment(given.starts_at_s)),
        expires_at=None if given.expires_at_s >= FOREVER_S else moment(given.expires_at_s),
    )


@router.put("/prices/{model:path}", summary="Set a price", responses=answers(400, 401, 403))
async def set_price(
    services: Services, _caller: Operator, model: Annotated[ModelId, Path()], asked: PriceIn
) -> SetPriceOut:
    """A new version of the book. It holds from the next call on, on every worker."""
    rates = {
        INPUT: asked.input_usd_per_million,
        OUTPUT: asked.output_usd_per_million,
        CACHED: asked.cached_input_usd_per_million,
        CACHE_WRITE: asked.cache_write_usd_per_million,
    }

    async def work(conn: Connection) -> int:
        named = {unit: nano for unit, nano in rates.items() if nano is not None}
        version = await services.prices.set(conn, model, named, asked.label, asked.note)
        await services.ledger.set_price_version(conn, version)
        return version

    version = await services.database.transact(work)
    await services.prices.refresh()
    book = await services.prices.version(version)
    return SetPriceOut(version=version, **price(book.prices[model]).model_dump())


@router.post("/reload", summary="Read the configuration again", responses=answers(400, 401, 403, 409))
async def reload(services: Services, _caller: Operator) -> ReloadOut:
    """Every worker takes up the upstreams as they stand now; calls under way end where they are.

    A configuration that can't be used is refused, and the old one stays.
    """
    if services.reload is None:
        raise Conflict(reason="This server can't be reloaded: restart it.")
    return ReloadOut(message=await services.reload())


@router.get("/books", summary="Check the books", responses=answers(401, 403))
async def books(services: Services, _caller: Operator) -> BooksOut:
    """Recompute everything from the entries, compare grants with the chain, and say what differs."""
    found = [*await services.ledger.check(), *await services.allowance.check()]
    return BooksOut(
        balanced=not found,
        differences=[
            DifferenceOut(
                law=one.law, account_id=one.account_id, subject=one.subject, expected=one.expected, found=one.found
            )
            for one in found
        ],
    )


async def _given_before(services: AccountServices, asked: GrantIn, external_id: str) -> Grant:
    """The grant of this id, if it was asked for in the same words; its start is then the first one's."""
    for grant in await services.ledger.grants(asked.account_id, live_only=False):
        if grant.external_id != external_id:
            continue
        lasts_s = None if grant.expires_at_s >= FOREVER_S else grant.expires_at_s - grant.starts_at_s
        wanted_s = None if asked.expires_in_days is None else asked.expires_in_days * DAY_S
        if grant.amount_nano == asked.amount_usd and lasts_s == wanted_s:
            return grant
    raise Conflict(reason=f"The id {asked.id} was used for another grant of this account; choose another.", param="id")


def _row(account: Account) -> AccountRowOut:
    return AccountRowOut(
        id=account.id,
        name=account.name,
        kind=account.kind,
        address=account.address,
        created_at=str(moment(account.created_at_s)),
    )
