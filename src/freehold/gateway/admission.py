"""From a request to a hold: find the model, bound the call, price its worst case, hold it."""

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import Struct

from freehold.gateway import headers
from freehold.gateway.asgi import Exchange
from freehold.gateway.asking import Ask
from freehold.gateway.authority import TRIES, fresh_key, permitted
from freehold.gateway.problems import RequestTooLarge
from freehold.gateway.replay import Repeatable
from freehold.gateway.settings import DoorSettings
from freehold.gateway.shapes import embeddings
from freehold.identity.model import ApiKey
from freehold.ledger.model import Hold, HoldRequest
from freehold.ledger.problems import DayUnopened, RateLimited, StaleKey, StalePrice
from freehold.money import MAX_NANO
from freehold.pricing.bounds import estimated_input, input_bound
from freehold.pricing.model import Price, worst_case_nano_up
from freehold.pricing.problems import PriceNotSet
from freehold.problems import InvalidRequest, LedgerUnavailable
from freehold.upstream.catalogue import Serving
from freehold.upstream.model import Kind, Model

if TYPE_CHECKING:
    from freehold.gateway.door import Door

LONGEST_TOKEN = 16
"""Bytes: a text of more than this many for each token of the context surely doesn't fit."""


class Bounds(Struct, frozen=True):
    """The most that a call can come to, in tokens. Outputs are per choice."""

    input: int
    output: int
    least_output: int
    """Equal to `output` when the client named a maximum."""
    choices: int
    in_steps: bool = False
    """Only `least_output` is held at first; the hold grows with the stream."""

    def first_output(self) -> int:
        return self.least_output if self.in_steps else self.output


class Admitted(Struct, frozen=True):
    """A call whose worst case is held."""

    hold: Hold
    price: Price
    model: Model
    serving: Serving
    """Who may be asked."""
    input_bound: int
    max_output: int
    """Per choice: the client's own maximum, or what the hold pays for or may grow to."""
    choices: int
    held_output: int
    """Of all choices together: what the hold pays for."""


async def admit(
    door: "Door", exchange: Exchange, token: str, key: ApiKey, ask: Ask, repeatable: Repeatable | None = None
) -> Admitted:
    """Hold the worst case of `ask`, on the key, the price and the day as the ledger knows them now.

    `token`'s `key` may be out of date.

    Raises what refuses the call: ModelNotFound, ModelNotAllowed, InsufficientScope, InvalidRequest, RequestTooLarge,
    PriceNotSet, InsufficientCredit, KeyLimitReached, RateLimited, IdempotencyInProgress, IdempotencyConflict, KeyRevoked, KeyExpired, LedgerUnavailable. And AnswerStored, for a call that was answered before.
    """
    serving = served(door, ask)
    model = serving.model
    key = await permitted(door.identity, token, key, model.id)
    bounds = bound(ask, model, door.settings)
    book = door.prices.current()
    day_unopened_ok = False
    for _ in range(TRIES):
        price = book.prices.get(model.id)
        if price is None:
            book = await door.prices.refresh()
            price = book.prices.get(model.id)
            if price is None:
                raise PriceNotSet(model=model.id, param="model")
        request = HoldRequest(
            account_id=key.account_id,
            key_id=key.id,
            request_id=exchange.id,
            amount_nano=_worst_nano(price, bounds, bounds.first_output()),
            least_nano=_worst_nano(price, bounds, bounds.least_output),
            price_version=book.version,
            key_version=key.version,
            deadline_s=door.settings.deadline_s,
            idempotency_key=repeatable.key if repeatable else None,
            body_digest=repeatable.digest if repeatable else None,
            day_unopened_ok=day_unopened_ok,
            tokens=bounds.input + bounds.first_output() * bounds.choices,
        )
        try:
            hold = await door.ledger.hold(request)
        except StaleKey:
            key = await permitted(door.identity, token, await fresh_key(door.identity, token), model.id)
        except StalePrice as stale:
            book = await door.prices.refresh(stale.current)
        except RateLimited as limited:
            exchange.limits = headers.of_rate(limited.rate)
            raise
        except DayUnopened:
            await door.allowance.refresh(key.account_id)
            day_unopened_ok = True
        else:
            if hold.rate is not None:
                exchange.limits = headers.of_rate(hold.rate)
            most = bounds.output if bounds.in_steps else affordable_output(hold.amount_nano, price, bounds)
            held = (bounds.least_output if bounds.in_steps else most) * bounds.choices
            return Admitted(hold, price, model, serving, bounds.input, most, ask.choices, held)
    raise LedgerUnavailable(reason="the key or the price is being changed")


def served(door: "Door", ask: Ask) -> Serving:
    """The model, and who may be asked: of a request that can't be translated, only who speaks its shape.

    Raises ModelNotFound, and UnsupportedParameter when nobody speaks it.
    """
    serving = door.catalogue.serving(ask.model)
    if ask.alone is None:
        return serving
    routes = tuple(route for route in serving.routes if ask.shape in route.model.shapes)
    if not routes:
        raise ask.alone
    return replace(serving, routes=routes)


def bound(ask: Ask, model: Model, settings: DoorSettings) -> Bounds:
    """The most tokens that `ask` can come to on `model`. Raises InvalidRequest, RequestTooLarge."""
    if model.kind is not ask.kind:
        use = "POST /v1/embeddings" if model.kind is Kind.EMBEDDING else "POST /v1/chat/completions"
        raise InvalidRequest(reason=f"Model {model.id} is for {use}.", param="model")
    if ask.kind is Kind.EMBEDDING:
        return Bounds(_embedding_bound(ask, model), 0, 0, 1)
    tokens = input_bound(ask.body, image_tokens=model.image_tokens) + ask.extra_input
    context = model.context_tokens * ask.items
    if tokens > context:
        if estimated_input(ask.body, image_tokens=model.image_tokens) * 4 > context * LONGEST_TOKEN:
            raise too_long(model, ask.told)
        tokens = context
    if ask.max_output is not None:
        return Bounds(tokens, ask.max_output, ask.max_output, ask.choices)
    most = min(model.max_output_tokens, settings.default_output_tokens)
    in_steps = ask.stream and not model.hidden_output
    return Bounds(tokens, most, min(most, settings.least_output_tokens), ask.choices, in_steps)


def affordable_output(held_nano: int, price: Price, bounds: Bounds) -> int:
    """The most output tokens per choice that what was held pays for, beside the whole input bound."""
    input_rate, output_rate = price.dearest(bounds.input)
    per_million = output_rate * bounds.choices
    if bounds.output == bounds.least_output or per_million == 0:
        return bounds.output
    tokens = (held_nano * 1_000_000 - bounds.input * input_rate) // per_million
    return max(bounds.least_output, min(bounds.output, tokens))


def too_long(model: Model, param: str) -> RequestTooLarge:
    return RequestTooLarge(
        reason=f"The prompt is longer than the context of {model.id}, which is {model.context_tokens:,} tokens. "
        "Shorten it, or use a model with a longer context.",
        param=param,
    )


def _embedding_bound(ask: Ask, model: Model) -> int:
    """Each item on its own is within the context."""
    given = embeddings.items(ask.body)
    for item in given:
        if _least_tokens(item) > model.context_tokens:
            raise too_long(model, "input")
    return min(input_bound(ask.body), model.context_tokens * len(given))


def _least_tokens(item: object) -> int:
    if isinstance(item, str):
        return len(item.encode()) // LONGEST_TOKEN
    return len(item) if isinstance(item, list) else 0


def _worst_nano(price: Price, bounds: Bounds, output: int) -> int:
    """No account holds MAX_NANO, so a call that could cost more than that is refused for want of it."""
    cost = worst_case_nano_up(price, input_tokens=bounds.input, output_tokens=output * bounds.choices)
    return min(cost, MAX_NANO)
