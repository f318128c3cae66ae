"""What calls cost: the book, a model's history, and what a call would come to."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from freehold.gateway.account.deps import Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.wire import In, ModelId, Out, moment, money
from freehold.pricing.model import CACHE_WRITE, CACHED, INPUT, OUTPUT, Price, PriceBook, cost_of_nano_up
from freehold.pricing.problems import PriceNotSet
from freehold.problems import NotFound

router = APIRouter(prefix="/v1", tags=["prices"])

MAX_TOKENS = 1_000_000_000
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS, strict=True)]
_RATES = {
    "input_usd_per_million": INPUT,
    "cached_input_usd_per_million": CACHED,
    "cache_write_usd_per_million": CACHE_WRITE,
    "output_usd_per_million": OUTPUT,
}


class PriceOut(Out):
    """USD per million tokens. A rate that isn't set of its own is input's."""

    model: str
    label: str = Field(description="Such as `demo`.")
    input_usd_per_million: str
    input_nano_per_million: int
    cached_input_usd_per_million: str
    cached_input_nano_per_million: int
    cache_write_usd_per_million: str
    cache_write_nano_per_million: int
    output_usd_per_million: str
    output_nano_per_million: int


class BookOut(Out):
    version: int = Field(description="A charge names the version that it was priced by.")
    created_at: str | None
    note: str
    data: list[PriceOut]


class PriceChangeOut(PriceOut):
    version: int = Field(description="From this version of the book on.")
    created_at: str
    note: str


class HistoryOut(Out):
    data: list[PriceChangeOut]


class CallIn(In):
    model: ModelId = Field(examples=["smollm2-135m"])
    input_tokens: Tokens = 0
    cached_input_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    output_tokens: Tokens = 0


class CallOut(Out):
    model: str
    price_version: int
    cost: str
    cost_nano: int


@router.get("/prices", summary="The price book", responses=answers(400, 404))
async def book(
    services: Services,
    version: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="An older version of the book.")] = None,
) -> BookOut:
    """The price of every model, as it is now or was at a version."""
    return _book(await services.prices.refresh() if version is None else await _version(services, version))


@router.get("/prices/{model:path}/history", summary="What a model has cost", responses=answers(400, 404))
async def history(services: Services, model: Annotated[ModelId, Path()]) -> HistoryOut:
    """Every price that a model has had, oldest first."""
    changes = await services.prices.history(model)
    if not changes:
        raise PriceNotSet(model=model, param="model")
    return HistoryOut(
        data=[
            PriceChangeOut(
                version=change.version,
                created_at=str(moment(change.created_at_s)),
                note=change.note,
                **price(change.price).model_dump(),
            )
            for change in changes
        ]
    )


@router.post("/price", summary="What a call would cost", responses=answers(400, 404))
async def call(services: Services, asked: CallIn) -> CallOut:
    """Exactly what a call of this usage is charged at the present price."""
    found = await services.prices.refresh()
    if asked.model not in found.prices:
        raise PriceNotSet(model=asked.model, param="model")
    used = {
        INPUT: asked.input_tokens,
        CACHED: asked.cached_input_tokens,
        CACHE_WRITE: asked.cache_write_tokens,
        OUTPUT: asked.output_tokens,
    }
    cost = cost_of_nano_up(found.prices[asked.model], used)
    return CallOut(model=asked.model, price_version=found.version, **money("cost", cost))


def price(found: Price) -> PriceOut:
    rates: dict[str, Any] = {}
    for name, unit in _RATES.items():
        rates |= money(name, found.of(unit))
    return PriceOut(
        model=found.model,
        label=found.label,
        **{name.replace("_usd_per_million_nano", "_nano_per_million"): rate for name, rate in rates.items()},
    )


def _book(found: PriceBook) -> BookOut:
    return BookOut(
        version=found.version,
        created_at=moment(found.created_at_s) if found.version else None,
        note=found.note,
        data=[price(found.prices[model]) for model in sorted(found.prices)],
    )


async def _version(services: Services, number: int) -> PriceBook:
    try:
        return await services.prices.version(number)
    except LookupError as error:
        raise NotFound(reason=str(error), param="version") from None
