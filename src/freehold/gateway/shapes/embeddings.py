"""Embeddings: reading a request, and what goes upstream."""

from typing import Any

import msgspec

from freehold.gateway.asking import Ask, check_fields, for_upstream, may_store, model_of, read_object
from freehold.gateway.meter import Meter
from freehold.gateway.problems import RequestTooLarge
from freehold.gateway.shapes.chat import ChatReader
from freehold.problems import InvalidRequest, Problem, UnsupportedParameter, error_body
from freehold.upstream.model import Kind, Model

MOST_ITEMS = 2_048


def read(raw: bytes) -> Ask:
    """An embeddings request. Raises InvalidRequest, UnsupportedParameter, RequestTooLarge."""
    body = read_object(raw)
    check_fields(body)
    model = model_of(body)
    if "messages" in body:
        raise UnsupportedParameter(reason="messages is not supported here: send the text as input.", param="messages")
    if body.get("stream"):
        raise UnsupportedParameter(reason="Embeddings are not streamed.", param="stream")
    given = body.get("input")
    if given is None:
        raise InvalidRequest(reason="input is missing: send a text, or a list of texts.", param="input")
    if isinstance(given, list) and not _is_tokens(given) and len(given) > MOST_ITEMS:
        raise RequestTooLarge(reason=f"input has {len(given):,} items; the most is {MOST_ITEMS:,}.", param="input")
    return Ask(kind=Kind.EMBEDDING, body=body, model=model, store=may_store(body))


def items(body: dict[str, Any]) -> list[Any]:
    """The texts or token arrays that are embedded one by one."""
    given = body["input"]
    return given if isinstance(given, list) and not _is_tokens(given) else [given]


def upstream_body(ask: Ask, model: Model) -> bytes:
    """What the upstream is sent: the request under its own model name."""
    return msgspec.json.encode(for_upstream(ask.body, model.upstream_id))


def _is_tokens(given: list[Any]) -> bool:
    return bool(given) and type(given[0]) is int


class Embeddings:
    """The shape of embeddings, whose answers are never streamed."""

    name = "embeddings"

    def read(self, raw: bytes) -> Ask:
        return read(raw)

    def upstream(self, ask: Ask, model: Model, max_output: int) -> tuple[str, bytes]:
        return "embeddings", upstream_body(ask, model)

    def reader(self, ask: Ask, meter: Meter, model_id: str, served: Model, request_id: str) -> ChatReader:
        return ChatReader(meter, model_id)

    def refusal(self, problem: Problem, request_id: str) -> dict[str, Any]:
        return error_body(problem)
