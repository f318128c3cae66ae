"""For the operator: accounts, credit given away, prices, and the check of the books."""

import difflib
from asyncio import to_thread
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from freehold.db import Connection
from freehold.gateway.account.deps import Operator, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.keys import KeyIn, KeyOut, NewKeyOut, make, shown, write_new
from freehold.gateway.account.prices import RATES, DifferencesOut, PriceOut, difference, price
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import MAX_ID, In, ModelId, Out, Text, TimeIn, UsdIn, moment, money
from freehold.identity.model import Account, ApiKey
from freehold.ledger.model import FOREVER_S, Grant, Source
from freehold.pricing.book import MAX_ABOVE, MAX_TIERS
from freehold.pricing.diff import differences
from freehold.pricing.model import Price, Tier
from freehold.pricing.seed import Offered, published
from freehold.problems import Conflict, InvalidRequest
from freehold.upstream.catalogue import ModelNotFound

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


class RatesIn(In):
    output_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    cached_input_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    cache_write_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    cache_write_1h_usd_per_million: UsdIn | None = Field(default=None, description="Null: what a cache write costs.")
    input_audio_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input costs.")
    cached_audio_usd_per_million: UsdIn | None = Field(default=None, description="Null: what input audio costs.")
    reasoning_usd_per_million: UsdIn | None = Field(default=None, description="Null: what output costs.")
    output_audio_usd_per_million: UsdIn | None = Field(default=None, description="Null: what output costs.")


class TierIn(RatesIn):
    """Rates of a whole call whose prompt is longer than `above_tokens`. A rate left out stays the base's."""

    above_tokens: Annotated[int, Field(ge=1, le=MAX_ABOVE, strict=True)]
    input_usd_per_million: UsdIn | None = None


class PriceIn(RatesIn):
    input_usd_per_million: UsdIn
    tiers: Annotated[list[TierIn], Field(max_length=MAX_TIERS)] = Field(
        default=[], description="By rising `above_tokens`."
    )
    effective_at: TimeIn | None = Field(
        default=None, description="Ledger time from which it holds; null: from now on. Never in the past."
    )
    label: Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    note: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


class SetPriceOut(PriceOut):
    version: int
    effective_at: str = Field(description="Ledger time from which it holds.")


class DifferenceOut(Out):
    law: str
    account_id: int | None
    subject: str
    expected: str
    found: str


class BooksOut(Out):
    balanced: bool
    differences: list[DifferenceOut]


@router.post("/accounts", summary="Make a local account", status_code=201, responses=answers(400, 401, 403, 404))
async def create_account(services: Services, _caller: Operator, asked: AccountIn) -> NewAccountOut:
    """An account for people without a wallet, with a first key."""

    async def work(conn: Connection) -> tuple[Account, ApiKey, str]:
        account_id = await services.ledger.create_account(conn)
        account = await services.identity.create_local_account(conn, account_id, asked.name)
        return account, *await write_new(services, conn, account_id, None, KeyIn(name="first"))

    account, key, secret = await services.database.transact(work)
    return NewAccountOut(account=_row(account), key=(await shown(services, account.id, [key]))[0], secret=secret)


@router.get("/accounts", summary="List accounts", responses=answers(400, 401, 403, 404))
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


@router.put("/prices/{model:path}", summary="Set a price", responses=answers(400, 401, 403, 404))
async def set_price(
    services: Services,
    _caller: Operator,
    model: Annotated[ModelId, Path()],
    asked: PriceIn,
    force: Annotated[bool, Query(description="Also for a model that nobody serves and that has no price.")] = False,
) -> SetPriceOut:
    """A new version of the book. It holds from `effective_at` on, or from the next call on, on every worker.

    What was called before keeps its price. A model that no upstream serves and that has no price yet is taken for a
    slip, and refused.
    """
    if not force:
        await _known_model(services, model)
    now_s = (await services.ledger.time()).at_s

    async def work(conn: Connection) -> int:
        version = await services.prices.set(
            conn,
            model,
            _named(asked),
            asked.label,
            asked.note,
            tiers=[Tier(tier.above_tokens, _named(tier)) for tier in asked.tiers],
            now_s=now_s,
            at_s=asked.effective_at,
        )
        for number, effective_at_s in await services.prices.since(conn, version):
            await services.ledger.set_price_version(conn, number, effective_at_s)
        return version

    version = await services.database.transact(work)
    await services.prices.refresh()
    book = await services.prices.version(version)
    return SetPriceOut(
        version=version,
        effective_at=str(moment(book.effective_at_s)),
        **price(book.prices[model]).model_dump(),
    )


@router.get(
    "/prices/published", summary="The book beside what genai-prices publishes", responses=answers(400, 401, 403, 404)
)
async def published_prices(services: Services, _caller: Operator) -> DifferencesOut:
    """Each served model whose price isn't the one that the installed genai-prices package states for today.

    A model that it doesn't state is left out.
    """
    book = await services.prices.refresh()
    offered = [
        Offered(model.id, model.upstream_id, model.context_tokens, getattr(upstream, "base_url", None))
        for upstream in services.catalogue.upstreams
        for model in upstream.models.values()
    ]
    stated = {price.model: price for price in await to_thread(_published, offered)}
    return DifferencesOut(
        before=f"version {book.version}",
        after=f"genai-prices {metadata.version('genai-prices')}",
        data=[
            difference(found)
            for found in differences({name: own for name, own in book.prices.items() if name in stated}, stated)
        ],
    )


def _published(offered: Sequence[Offered]) -> list[Price]:
    return [price for model in offered if (price := published(model)) is not None]


async def _known_model(services: AccountServices, model: str) -> None:
    """Raises ModelNotFound, with near names, for a model that isn't served and has no price."""
    known = {served.id for served in services.catalogue.models()} | (await services.prices.refresh()).prices.keys()
    if model in known:
        return
    names = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(model.lower(), names, n=3, cutoff=0.5)
    near = f" Near names: {', '.join(names[name] for name in close)}." if close else ""
    raise ModelNotFound(
        model=model, near=f"{near} To price it all the same, set force=true (`--force`).", param="model"
    )


def _named(asked: PriceIn | TierIn) -> dict[str, int]:
    return {unit: nano for name, unit in RATES.items() if (nano := getattr(asked, name)) is not None}


@router.post("/reload", summary="Read the configuration again", responses=answers(400, 401, 403, 404, 409))
async def reload(services: Services, _caller: Operator) -> ReloadOut:
    """Every worker takes up the upstreams as they stand now; calls under way end where they are.

    A configuration that can't be used is refused, and the old one stays.
    """
    if services.reload is None:
        raise Conflict(reason="This server can't be reloaded: restart it.")
    return ReloadOut(message=await services.reload())


@router.get("/books", summary="Check the books", responses=answers(400, 401, 403, 404))
async def books(services: Services, _caller: Operator) -> BooksOut:
    """Recompute everything from the entries, compare grants and published days with the chain, and say what differs."""
    found = [*await services.ledger.check(), *await services.allowance.check()]
    if services.receipts is not None:
        found += await services.receipts.check()
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
