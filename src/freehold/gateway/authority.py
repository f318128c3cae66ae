"""Who calls, and whether they may: from a cached key where that can only refuse too late, never allow too long.

The ledger's hold compares the key's version, state and expiry; a refusal that rests on the cached key is checked on a
fresh one first.
"""

from typing import Protocol

from freehold.gateway.asgi import Exchange
from freehold.gateway.problems import ModelNotAllowed, NotForInference
from freehold.identity.model import ApiKey, Caller, CallerKind, Scope
from freehold.identity.problems import InsufficientScope, InvalidApiKey, NoCredentials
from freehold.identity.tokens import kind_of
from freehold.ledger.problems import StaleKey
from freehold.problems import LedgerUnavailable, Problem

TRIES = 5
"""How often a key that changes under a call is read again."""


class Keys(Protocol):
    """Where keys are read."""

    async def key(self, token: str) -> ApiKey: ...
    def forget(self, token: str) -> None: ...
    async def caller(self, token: str) -> Caller: ...


class KeyLedger(Protocol):
    """Where a key's state is decided when nothing is held."""

    async def require_key(self, account_id: int, key_id: int, version: int) -> None: ...


def bearer(exchange: Exchange) -> str:
    """The token of `Authorization: Bearer …`, or of Anthropic's `x-api-key`. Raises NoCredentials and InvalidApiKey."""
    given = exchange.header(b"authorization")
    if given is None:
        token = exchange.header(b"x-api-key")
        if token is None:
            raise NoCredentials
        given = f"bearer {token}"
    scheme, _, token = given.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.startswith("fh_"):
        raise InvalidApiKey
    return token


def own_bearer(exchange: Exchange) -> str | None:
    """`bearer`, or None where nothing is sent that could be a key of ours."""
    try:
        return bearer(exchange)
    except InvalidApiKey:
        return None


async def known_key(keys: Keys, token: str) -> ApiKey:
    """The key, maybe from memory. Raises InvalidApiKey, and NotForInference for a session or the admin token."""
    kind = kind_of(token)
    if kind in (CallerKind.SESSION, CallerKind.OPERATOR):
        await keys.caller(token)
        raise NotForInference(kind="a session" if kind is CallerKind.SESSION else "the admin")
    return await keys.key(token)


async def permitted(keys: Keys, token: str, key: ApiKey, model: str) -> ApiKey:
    """The key, if it may call `model`. Raises InsufficientScope and ModelNotAllowed, on the key as it is now."""
    if _refusal(key, model) is not None:
        key = await fresh_key(keys, token)
        refusal = _refusal(key, model)
        if refusal is not None:
            raise refusal
    return key


async def fresh_key(keys: Keys, token: str) -> ApiKey:
    """The key as it is now."""
    keys.forget(token)
    return await keys.key(token)


async def lister(keys: Keys, ledger: KeyLedger, token: str) -> frozenset[str] | None:
    """Which models the caller may see, None = all: any key that lives, a session, the operator."""
    if kind_of(token) is not CallerKind.KEY:
        await keys.caller(token)
        return None
    key = await keys.key(token)
    for _ in range(TRIES):
        try:
            await ledger.require_key(key.account_id, key.id, key.version)
        except StaleKey:
            key = await fresh_key(keys, token)
        else:
            if not key.scopes & {Scope.INFERENCE, Scope.READ}:
                raise InsufficientScope(scopes=_named(key.scopes), needed="inference or read")
            return key.models
    raise LedgerUnavailable(reason="the key is being changed")


def _refusal(key: ApiKey, model: str) -> Problem | None:
    if Scope.INFERENCE not in key.scopes:
        return InsufficientScope(scopes=_named(key.scopes), needed=str(Scope.INFERENCE))
    if key.models is not None and model not in key.models:
        return ModelNotAllowed(allowed=", ".join(sorted(key.models)) or "no model", model=model, param="model")
    return None


def _named(scopes: frozenset[Scope]) -> str:
    return ", ".join(sorted(scopes)) or "none"
