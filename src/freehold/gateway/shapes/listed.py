"""The models, listed as OpenAI does and as Anthropic does."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from freehold.clock import rfc3339
from freehold.gateway.asgi import Exchange
from freehold.gateway.shapes.given import wrong
from freehold.gateway.shapes.messages_written import error_of
from freehold.money import format_usd
from freehold.pricing.model import Price, PriceBook
from freehold.upstream.model import Model

MOST = 1_000
"""Models of one page."""


def speak_anthropics(exchange: Exchange) -> None:
    """Answer in Anthropic's words: its errors, and the request's id under its name."""
    exchange.refusal = error_of
    exchange.own = [(b"request-id", exchange.request_id.encode())]


def wants_anthropics(exchange: Exchange) -> bool:
    """Whether the client is one of Anthropic's; then it is answered in Anthropic's words."""
    if exchange.header(b"anthropic-version") is None:
        return False
    speak_anthropics(exchange)
    return True


def models(allowed: Sequence[Model], book: PriceBook) -> dict[str, Any]:
    """OpenAI's list."""
    return {"object": "list", "data": [entry(model, book) for model in allowed]}


def entry(model: Model, book: PriceBook) -> dict[str, Any]:
    """OpenAI's model object; what it lacks stands under `freehold`."""
    return {
        "id": model.id,
        "object": "model",
        "created": int(book.created_at_s),
        "owned_by": model.owned_by,
        "freehold": {
            "kind": str(model.kind),
            "context_tokens": model.context_tokens,
            "max_output_tokens": model.max_output_tokens,
            "price": _shown_price(book.prices.get(model.id)),
        },
    }


def page(allowed: Sequence[Model], book: PriceBook, query: str) -> dict[str, Any]:
    """A page of Anthropic's list: `limit`, and `after_id` or `before_id`. Raises InvalidRequest."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    limit = asked.get("limit", str(MOST))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MOST):
        raise wrong("limit", f"is not a whole number from 1 to {MOST:,}")
    ids = [model.id for model in allowed]
    first, end = 0, len(ids)
    if "after_id" in asked:
        first = _place(ids, asked["after_id"], "after_id") + 1
    elif "before_id" in asked:
        end = _place(ids, asked["before_id"], "before_id")
        first = max(0, end - int(limit))
    shown = allowed[first : min(end, first + int(limit))]
    more = first > 0 if "before_id" in asked and "after_id" not in asked else first + len(shown) < end
    return {
        "data": [anthropics_entry(model, book) for model in shown],
        "has_more": more,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
    }


def anthropics_entry(model: Model, book: PriceBook) -> dict[str, Any]:
    """Anthropic's model object."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": rfc3339(int(book.created_at_s)),
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.max_output_tokens,
    }


def _place(ids: Sequence[str], wanted: str, param: str) -> int:
    if wanted not in ids:
        raise wrong(param, "is not a model that is listed")
    return ids.index(wanted)


def _shown_price(price: Price | None) -> dict[str, object] | None:
    if price is None:
        return None
    rates = {unit: format_usd(nano) for unit, nano in price.nano_per_million.items()}
    return {"usd_per_million": rates, "label": price.label}
