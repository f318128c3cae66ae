"""A request as read from its body, and the fields that no upstream may see."""

from collections.abc import Collection
from typing import Any

import msgspec

from freehold.problems import InvalidRequest, Problem, UnsupportedParameter
from freehold.upstream.model import CHAT, Kind

MOST_TOKENS = 1_000_000_000
"""No maximum above this is read: no model comes near."""

MOST_CHOICES = 128

_decode = msgspec.json.Decoder().decode


class Ask(msgspec.Struct, frozen=True):
    """What a call asks for. `body` is the client's, checked; what goes upstream is made from it."""

    kind: Kind
    body: dict[str, Any]
    model: str
    stream: bool = False
    wants_usage: bool = False
    """The client itself asked for the usage frame of a stream."""
    max_output: int | None = None
    """The client's explicit maximum of output tokens, for each choice."""
    choices: int = 1
    store: bool = True
    """Whether the answer may be kept for a repeat of the call's idempotency key."""
    items: int = 1
    """Prompts that are answered one by one; each has its choices, and fits the context by itself."""
    native: dict[str, Any] | None = None
    """The client's request in a shape that isn't chat, when `body` is the same as a chat."""
    extra_input: int = 0
    """The bound of input that stands in `native` and not in `body`."""
    shape: str = CHAT
    """What it is in, as upstreams' `shapes` name it."""
    alone: Problem | None = None
    """Why an upstream that doesn't speak the request's shape can't take it; None when it can."""
    told: str = "messages"
    """The field that holds what the model is told."""


STATE = "it refers to what an upstream keeps, which this gateway's accounts would share; send the content itself"
PAID = "it changes what the call costs in a way that can't be priced before the call"
OTHER_MAXIMUM = "use max_tokens or max_completion_tokens for the most output, and n for the number of choices"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("previous_response_id", "conversation", "background", "prompt", "file_ids", "id_slot"), STATE),
    **dict.fromkeys(("audio", "web_search_options", "prediction", "plugins", "models", "route", "provider"), PAID),
    **dict.fromkeys(
        ("best_of", "max_new_tokens", "max_output_tokens", "max_length", "n_predict", "n_cmpl", "use_beam_search"),
        OTHER_MAXIMUM,
    ),
}
"""Fields that change the price or hold state upstream, and why each is refused. null and false are no request."""

FREE_TIERS = (None, "auto", "default")

_READ = frozenset({*REFUSED, "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "store",
                   "service_tier", "modalities", "tools", "messages", "input", "freehold"})  # fmt: skip


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidRequest."""
    try:
        value = _decode(body)
    except RecursionError:
        raise too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(reason=f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(reason="The body is not a JSON object.")
    return value


def too_deep() -> InvalidRequest:
    return InvalidRequest(reason="The body's JSON is nested too deeply.")


def check_fields(body: dict[str, Any], *, allowed: frozenset[str] = frozenset()) -> None:
    """Refuse what changes the price or holds state at the upstream. Raises UnsupportedParameter."""
    for name, value in body.items():
        if name not in _READ:
            # Some servers match names without regard to case: "N_PREDICT" must not pass where n_predict is refused.
            lower = name.lower()
            if lower != name and lower in _READ:
                raise UnsupportedParameter(reason=f"{name[:60]} is not a parameter; write {lower}.", param=name[:60])
        elif name in REFUSED and name not in allowed and value is not None and value is not False:
            raise UnsupportedParameter(reason=f"{name} is not supported: {REFUSED[name]}.", param=name)
    if body.get("service_tier") not in FREE_TIERS:
        raise UnsupportedParameter(reason=f"service_tier is not supported: {PAID}.", param="service_tier")


def lowered(body: dict[str, Any], known: Collection[str]) -> None:
    """Refuse `known` names in another case, which some servers would read. Raises UnsupportedParameter."""
    for name in body:
        lower = name.lower()
        if lower != name and lower in known:
            raise UnsupportedParameter(reason=f"{name[:60]} is not a parameter; write {lower}.", param=name[:60])


def model_of(body: dict[str, Any]) -> str:
    """Raises InvalidRequest."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest(reason="model is missing: name one that `GET /v1/models` lists.", param="model")
    return model


def count(body: dict[str, Any], name: str, *, most: int) -> int | None:
    """A whole number from 1; None when absent or null. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidRequest(reason=f"{name} is not a whole number from 1 to {most:,}.", param=name)
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """true or false; absent and null are false. Raises InvalidRequest."""
    value = body.get(name)
    if value is None or type(value) is bool:
        return bool(value)
    raise InvalidRequest(reason=f"{name} is neither true nor false.", param=name)


def may_store(body: dict[str, Any]) -> bool:
    """`freehold.store` of the body; true unless it says false. Raises InvalidRequest."""
    own = body.get("freehold")
    if own is None:
        return True
    store = own.get("store") if isinstance(own, dict) else own
    if not isinstance(own, dict) or own.keys() - {"store"} or not (store is None or type(store) is bool):
        raise InvalidRequest(reason='freehold is not an object such as {"store": false}.', param="freehold")
    return store is not False


def for_upstream(body: dict[str, Any], upstream_id: str) -> dict[str, Any]:
    """A copy of the body under the upstream's name of the model, which asks the upstream to keep nothing."""
    sent = {**body, "model": upstream_id}
    if "store" in sent:
        sent["store"] = False
    sent.pop("service_tier", None)
    sent.pop("freehold", None)
    return sent
