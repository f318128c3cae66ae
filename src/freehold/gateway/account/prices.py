"""What calls cost: the book, what is to come, a model's history, what differs, and what a call would come to."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from freehold.gateway.account.deps import Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import In, ModelId, Out, moment, money
from freehold.money import format_usd
from freehold.pricing.book import PriceChange
from freehold.pricing.diff import RateDifference, differences
from freehold.pricing.model import (
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHED,
    CACHED_AUDIO,
    INPUT,
    INPUT_AUDIO,
    OUTPUT,
    OUTPUT_AUDIO,
    REASONING,
    Price,
    PriceBook,
    cost_of_nano_up,
)
from freehold.pricing.problems import PriceNotSet
from freehold.problems import NotFound

router = APIRouter(prefix="/v1", tags=["prices"])

MAX_TOKENS = 1_000_000_000
MAX_VERSION = 2**31 - 1
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS, strict=True)]

RATES: Mapping[str, str] = {
    "input_usd_per_million": INPUT,
    "cached_input_usd_per_million": CACHED,
    "cache_write_usd_per_million": CACHE_WRITE,
    "cache_write_1h_usd_per_million": CACHE_WRITE_1H,
    "input_audio_usd_per_million": INPUT_AUDIO,
    "cached_audio_usd_per_million": CACHED_AUDIO,
    "output_usd_per_million": OUTPUT,
    "reasoning_usd_per_million": REASONING,
    "output_audio_usd_per_million": OUTPUT_AUDIO,
}
_TOKENS: Mapping[str, str] = {name.replace("_usd_per_million", "_tokens"): unit for name, unit in RATES.items()}


class RatesOut(Out):
    """USD per million tokens. A rate that isn't set of its own is that of a nearby unit, in the end input's."""

    input_usd_per_million: str
    input_nano_per_million: int
    cached_input_usd_per_million: str
    cached_input_nano_per_million: int
    cache_write_usd_per_million: str
    cache_write_nano_per_million: int
    cache_write_1h_usd_per_million: str
    cache_write_1h_nano_per_million: int
    input_audio_usd_per_million: str
    input_audio_nano_per_million: int
    cached_audio_usd_per_million: str
    cached_audio_nano_per_million: int
    output_usd_per_million: str
    output_nano_per_million: int
    reasoning_usd_per_million: str
    reasoning_nano_per_million: int
    output_audio_usd_per_million: str
    output_audio_nano_per_million: int


class TierOut(RatesOut):
    """What a whole call costs whose prompt is longer than so many tokens."""

    above_tokens: int


class PriceOut(RatesOut):
    model: str
    label: str = Field(description="Such as `demo`.")
    tiers: list[TierOut] = Field(description="By rising `above_tokens`.")


class PriceChangeOut(PriceOut):
    version: int = Field(description="From this version of the book on.")
    effective_at: str = Field(description="And from this ledger time on.")
    created_at: str
    note: str


class BookOut(Out):
    version: int = Field(description="A charge names the version that it was priced by.")
    created_at: str | None
    effective_at: str | None = Field(description="Ledger time from which this version holds.")
    note: str
    data: list[PriceOut]
    coming: list[PriceChangeOut] = Field(description="Prices that begin later, as the book stands now.")


class HistoryOut(Out):
    data: list[PriceChangeOut]


class RateDifferenceOut(Out):
    model: str
    above_tokens: int = Field(description="In calls whose prompt is longer than this; 0: in every call.")
    unit: str = Field(examples=["cached_input"])
    before_usd_per_million: str | None = Field(description="Null where the model has no price.")
    before_nano_per_million: int | None
    after_usd_per_million: str | None = Field(description="Null where the model has no price.")
    after_nano_per_million: int | None


class DifferencesOut(Out):
    before: str = Field(examples=["version 3"])
    after: str = Field(examples=["version 4"])
    data: list[RateDifferenceOut]


class CallIn(In):
    """Tokens of each unit, each token in one of them."""

    model: ModelId = Field(examples=["smollm2-135m"])
    input_tokens: Tokens = 0
    cached_input_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    cache_write_1h_tokens: Tokens = 0
    input_audio_tokens: Tokens = 0
    cached_audio_tokens: Tokens = 0
    output_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0
    output_audio_tokens: Tokens = 0


class CallOut(Out):
    model: str
    price_version: int
    cost: str
    cost_nano: int


@router.get("/prices", summary="The price book", responses=answers(400, 404))
async def book(
    services: Services,
    version: Annotated[int | None, Query(ge=0, le=MAX_VERSION, description="An older version of the book.")] = None,
) -> BookOut:
    """The price of every model, as it is now or was at a version; and what is to come."""
    if version is not None:
        return _book(await _version(services, version), ())
    return _book(await services.prices.refresh(), await services.prices.coming((await services.ledger.time()).at_s))


@router.get("/prices/diff", summary="What differs between two versions", responses=answers(400, 404))
async def diff(
    services: Services,
    before: Annotated[
        int | None, Query(ge=0, le=MAX_VERSION, alias="from", description="Left out: the one before.")
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, le=MAX_VERSION, alias="to", description="Left out: the one that holds.")
    ] = None,
) -> DifferencesOut:
    """Every rate that is another one, by model, tier and unit."""
    new = await services.prices.refresh() if after is None else await _version(services, after)
    old = await _version(services, max(0, new.version - 1) if before is None else before)
    return DifferencesOut(
        before=f"version {old.version}",
        after=f"version {new.version}",
        data=[difference(found) for found in differences(old.prices, new.prices)],
    )


@router.get("/prices/{model:path}/history", summary="What a model has cost", responses=answers(400, 404))
async def history(services: Services, model: Annotated[ModelId, Path()]) -> HistoryOut:
    """Every price that a model has had, oldest first, and those that begin later."""
    changes = await services.prices.history(model)
    if not changes:
        raise PriceNotSet(model=model, param="model")
    return HistoryOut(data=[_change(found) for found in changes])


@router.post("/price", summary="What a call would cost", responses=answers(400, 404))
async def call(services: Services, asked: CallIn) -> CallOut:
    """Exactly what a call of this usage is charged at the present price."""
    found = await services.prices.refresh()
    if asked.model not in found.prices:
        raise PriceNotSet(model=asked.model, param="model")
    used = {unit: getattr(asked, name) for name, unit in _TOKENS.items()}
    cost = cost_of_nano_up(found.prices[asked.model], used)
    return CallOut(model=asked.model, price_version=found.version, **money("cost", cost))


def price(found: Price) -> PriceOut:
    return PriceOut(
        model=found.model,
        label=found.label,
        tiers=[TierOut(above_tokens=tier.above, **_rates(found.rates(tier.above + 1))) for tier in found.tiers],
        **_rates(found.rates(0)),
    )


def difference(found: RateDifference) -> RateDifferenceOut:
    return RateDifferenceOut(
        model=found.model,
        above_tokens=found.above,
        unit=found.unit,
        before_usd_per_million=None if found.before_nano is None else format_usd(found.before_nano),
        before_nano_per_million=found.before_nano,
        after_usd_per_million=None if found.after_nano is None else format_usd(found.after_nano),
        after_nano_per_million=found.after_nano,
    )


def _rates(found: Mapping[str, int]) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for name, unit in RATES.items():
        rates[name] = format_usd(found[unit])
        rates[name.replace("_usd_", "_nano_")] = found[unit]
    return rates


def _change(found: PriceChange) -> PriceChangeOut:
    return PriceChangeOut(
        version=found.version,
        effective_at=str(moment(found.effective_at_s)),
        created_at=str(moment(found.created_at_s)),
        note=found.note,
        **price(found.price).model_dump(),
    )


def _book(found: PriceBook, coming: tuple[PriceChange, ...] | list[PriceChange]) -> BookOut:
    return BookOut(
        version=found.version,
        created_at=moment(found.created_at_s) if found.version else None,
        effective_at=moment(found.effective_at_s) if found.version else None,
        note=found.note,
        data=[price(found.prices[model]) for model in sorted(found.prices)],
        coming=[_change(change) for change in coming],
    )


async def _version(services: AccountServices, number: int) -> PriceBook:
    try:
        return await services.prices.version(number)
    except LookupError as error:
        raise NotFound(reason=str(error), param="version") from None
