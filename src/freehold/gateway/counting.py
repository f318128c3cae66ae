"""`POST /v1/messages/count_tokens`: how many input tokens a request will come to. It costs nothing, and holds nothing."""

from typing import TYPE_CHECKING

import msgspec

from freehold.gateway.asgi import Exchange
from freehold.gateway.authority import TRIES, bearer, fresh_key, known_key, permitted
from freehold.gateway.forward import Forward
from freehold.gateway.shapes import messages
from freehold.ledger.problems import StaleKey
from freehold.pricing.bounds import estimated_input
from freehold.problems import LedgerUnavailable
from freehold.upstream.catalogue import Serving
from freehold.upstream.model import Kind, Model, UpstreamCall, UpstreamError

if TYPE_CHECKING:
    from freehold.gateway.door import Door

PATH = "messages/count_tokens"
ANSWER_BYTES = 64 * 1024


async def serve(door: "Door", exchange: Exchange) -> None:
    """Ask an upstream that can tell; else estimate, as for a call whose upstream reports no usage. Raises Problem."""
    settings = door.settings
    token = bearer(exchange)
    key = await known_key(door.identity, token)
    raw = await exchange.body(limit_bytes=settings.body_limit_bytes, patience_s=settings.body_patience_s)
    native, as_chat = messages.read_count(raw)
    serving = door.catalogue.serving(as_chat["model"])
    for _ in range(TRIES):
        key = await permitted(door.identity, token, key, serving.model.id)
        try:
            await door.ledger.require_key(key.account_id, key.id, key.version)
            break
        except StaleKey:
            key = await fresh_key(door.identity, token)
    else:
        raise LedgerUnavailable(reason="the key is being changed")
    # The bound refuses what no call could be made of, such as images for a model that takes none.
    estimate = max(1, estimated_input(as_chat, image_tokens=serving.model.image_tokens))
    counted = await _counted(door, exchange, key.account_id, serving, native)
    body = msgspec.json.encode({"input_tokens": estimate if counted is None else counted})
    await exchange.respond(200, body, [], patience_s=settings.send_patience_s)


async def _counted(
    door: "Door", exchange: Exchange, account_id: int, serving: Serving, native: dict[str, object]
) -> int | None:
    """What an upstream counts; None when none speaks this shape, or doesn't answer."""
    if messages.NAME not in serving.model.shapes:
        return None

    def call(model: Model) -> UpstreamCall:
        return UpstreamCall(PATH, model, messages.native_body(native, model), False, exchange.request_id)

    most = door.settings.most_attempts
    forward = Forward(serving, Kind.CHAT, door.catalogue.clock, account_id=account_id, most=most)
    try:
        answer = await forward.send(call, lambda: False)
        try:
            value = msgspec.json.decode(await answer.read(ANSWER_BYTES))
        finally:
            await answer.close()
    except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    finally:
        forward.end(whole=False)
    counted = value.get("input_tokens") if isinstance(value, dict) else None
    return counted if type(counted) is int and counted >= 0 else None
