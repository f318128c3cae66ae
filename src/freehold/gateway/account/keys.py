"""API keys: their identity here, their limits in the ledger, always written together."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from freehold.clock import Day, Month
from freehold.db import Connection
from freehold.gateway.account.deps import ListsKeys, ManagesKeys, SeesOwn, Services
from freehold.gateway.account.errors import answers
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import MAX_ID, In, ModelId, Out, Text, TimeIn, UsdIn, moment, money
from freehold.gateway.x402.payments import KEYLESS
from freehold.identity.model import Act, ApiKey, Caller, Scope
from freehold.identity.problems import InsufficientRole
from freehold.ledger.model import KeyLimits, KeySpend, KeyState
from freehold.problems import Conflict, InvalidRequest, Problem

router = APIRouter(prefix="/v1/account", tags=["keys"])

KeyId = Annotated[int, Path(ge=1, le=MAX_ID, description="The key's id.")]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3, description="What the key may be used for.")]
PerMinute = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Models = Annotated[list[ModelId], Field(min_length=1, max_length=100)]


class KeyIn(In):
    name: Text = Field(description="To tell keys apart.", examples=["laptop"])
    scopes: Scopes = Field(default=[Scope.INFERENCE, Scope.READ])
    models: Models | None = Field(default=None, description="Only these models; null for all.")
    expires_at: TimeIn | None = Field(default=None, description="When it ends, in ledger time; null for never.")
    day_cap_usd: UsdIn | None = Field(default=None, description="The most it may spend in a UTC day.")
    month_cap_usd: UsdIn | None = Field(default=None, description="The most it may spend in a calendar month, UTC.")
    total_cap_usd: UsdIn | None = Field(default=None, description="The most it may ever spend.")
    rpm: PerMinute | None = Field(default=None, description="The most requests in any 60 seconds.")
    tpm: PerMinute | None = Field(default=None, description="The most tokens in any 60 seconds.")


class KeyChangeIn(In):
    """Fields left out stay; null takes a limit away."""

    name: Text | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    expires_at: TimeIn | None = None
    day_cap_usd: UsdIn | None = None
    month_cap_usd: UsdIn | None = None
    total_cap_usd: UsdIn | None = None
    rpm: PerMinute | None = None
    tpm: PerMinute | None = None


class KeyOut(Out):
    id: int
    account_id: int
    user_id: int | None = Field(description="Who made it; null for the operator.")
    name: str
    prefix: str = Field(description="How the secret begins.", examples=["fh_4fQ0aZ"])
    scopes: list[Scope]
    models: list[str] | None
    state: str = Field(description="active, revoked or expired.", examples=["active"])
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    day_cap_usd: str | None
    day_cap_nano: int | None
    day_used_usd: str
    day_used_nano: int
    day_held_usd: str
    day_held_nano: int
    month_cap_usd: str | None
    month_cap_nano: int | None
    month_used_usd: str
    month_used_nano: int
    month_held_usd: str
    month_held_nano: int
    total_cap_usd: str | None
    total_cap_nano: int | None
    total_used_usd: str
    total_used_nano: int
    total_held_usd: str
    total_held_nano: int
    rpm: int | None = Field(description="Requests that it may make in any 60 seconds; null for any number.")
    tpm: int | None = Field(description="Tokens that it may take in any 60 seconds; null for any number.")


class NewKeyOut(KeyOut):
    secret: str = Field(repr=False, description="The key. It is shown this once and can't be read again.")


class KeysOut(Out):
    data: list[KeyOut]


@router.get("/keys", summary="List keys", responses=answers(400, 401, 403, 404))
async def list_keys(services: Services, caller: ListsKeys) -> KeysOut:
    """Every key, revoked ones too, with its limits and what it has spent."""
    account_id = caller.account_id
    keys = await services.identity.keys(account_id)
    return KeysOut(data=await shown(services, account_id, keys))


@router.get("/key", summary="The key that asks", responses=answers(400, 401, 403))
async def own_key(services: Services, caller: SeesOwn) -> KeyOut:
    """A key's own limits and what it has spent, whatever its scopes."""
    if caller.key is None:
        raise InvalidRequest(reason="This tells a key about itself; a session lists keys at /v1/account/keys.")
    return (await shown(services, caller.account_id, [caller.key]))[0]


@router.post("/keys", summary="Create a key", status_code=201, responses=answers(400, 401, 403, 404))
async def create(services: Services, caller: ManagesKeys, asked: KeyIn) -> NewKeyOut:
    """A new key. Its secret is in this answer and nowhere else."""
    return await make(services, caller.account_id, caller.user_id, asked)


@router.patch("/keys/{key_id}", summary="Change a key", responses=answers(400, 401, 403, 404, 409))
async def update(services: Services, caller: ManagesKeys, key_id: KeyId, asked: KeyChangeIn) -> KeyOut:
    """It holds from the key's next request on, on every worker."""
    wanted = {name: getattr(asked, name) for name in asked.model_fields_set}
    for name in ("name", "scopes"):
        if name in wanted and wanted[name] is None:
            raise InvalidRequest(reason=f"{name} can't be null.", param=name)
    await _check(services, wanted)

    async def work(conn: Connection) -> ApiKey:
        key = await _lock(services, conn, caller, key_id)
        if key.revoked_at_s is not None:
            raise Conflict(reason="This key is revoked; a revoked key isn't changed. Create a new one.")
        changed = await services.identity.update_key(conn, _changed(key, wanted))
        limits = await services.ledger.key_limits(caller.account_id, key_id, conn=conn)
        await services.ledger.put_key(conn, _limited(limits, changed, wanted))
        return changed

    key = await services.database.transact(work)
    return (await shown(services, caller.account_id, [key]))[0]


@router.delete("/keys/{key_id}", summary="Revoke a key", responses=answers(400, 401, 403, 404))
async def delete(services: Services, caller: ManagesKeys, key_id: KeyId) -> KeyOut:
    """For good; its next request is refused, on every worker. Revoking again changes nothing."""

    async def work(conn: Connection) -> ApiKey:
        await _lock(services, conn, caller, key_id)
        return await revoke(services, conn, caller.account_id, key_id)

    key = await services.database.transact(work)
    return (await shown(services, caller.account_id, [key]))[0]


async def key_names(services: AccountServices, account_id: int) -> dict[int, str]:
    """Names by ids, also of the one that stands for calls paid by x402."""
    return {KEYLESS: "x402", **{key.id: key.name for key in await services.identity.keys(account_id)}}


async def make(services: AccountServices, account_id: int, user_id: int | None, asked: KeyIn) -> NewKeyOut:
    """Create a key in a transaction of its own."""
    await _check(services, {"models": asked.models, "expires_at": asked.expires_at})

    async def work(conn: Connection) -> tuple[ApiKey, str]:
        return await write_new(services, conn, account_id, user_id, asked)

    key, secret = await services.database.transact(work)
    return NewKeyOut(secret=secret, **(await shown(services, account_id, [key]))[0].model_dump())


async def write_new(
    services: AccountServices, conn: Connection, account_id: int, user_id: int | None, asked: KeyIn
) -> tuple[ApiKey, str]:
    """A key and its limits, in the caller's transaction."""
    key, secret = await services.identity.create_key(
        conn,
        account_id,
        name=asked.name,
        user_id=user_id,
        scopes=frozenset(asked.scopes),
        models=asked.models,
        expires_at_s=asked.expires_at,
    )
    limits = KeyLimits(
        account_id,
        key.id,
        key.version,
        expires_at_s=key.expires_at_s,
        day_cap_nano=asked.day_cap_usd,
        total_cap_nano=asked.total_cap_usd,
        month_cap_nano=asked.month_cap_usd,
        rpm=asked.rpm,
        tpm=asked.tpm,
    )
    await services.ledger.put_key(conn, limits)
    return key, secret


async def revoke(services: AccountServices, conn: Connection, account_id: int, key_id: int) -> ApiKey:
    """Revoke in both places, in the caller's transaction. Raises NotFound."""
    key = await services.identity.revoke_key(conn, account_id, key_id)
    limits = await services.ledger.key_limits(account_id, key_id, conn=conn)
    await services.ledger.put_key(conn, replace(limits, version=key.version, state=KeyState.REVOKED))
    return key


async def shown(services: AccountServices, account_id: int, keys: list[ApiKey]) -> list[KeyOut]:
    """Keys with their limits and spending."""
    now_s = (await services.ledger.time()).at_s
    spent = {spend.key_id: spend for spend in await services.ledger.key_spend(account_id)}
    limits = {found.key_id: found for found in await services.ledger.limits(account_id)}
    return [_shown(key, limits[key.id], spent.get(key.id), now_s) for key in keys]


def _shown(key: ApiKey, limits: KeyLimits, spend: KeySpend | None, now_s: float) -> KeyOut:
    today = spend is not None and spend.day == Day.of(now_s).number
    this_month = spend is not None and spend.month == Month.of(now_s)
    if key.revoked_at_s is not None:
        state = "revoked"
    else:
        state = "expired" if key.expires_at_s is not None and key.expires_at_s <= now_s else "active"
    return KeyOut(
        id=key.id,
        account_id=key.account_id,
        user_id=key.user_id,
        name=key.name,
        prefix=key.prefix,
        scopes=sorted(key.scopes),
        models=None if key.models is None else sorted(key.models),
        state=state,
        created_at=str(moment(key.created_at_s)),
        expires_at=moment(key.expires_at_s),
        revoked_at=moment(key.revoked_at_s),
        **money("day_cap_usd", limits.day_cap_nano),
        **money("day_used_usd", spend.day_used_nano if spend and today else 0),
        **money("day_held_usd", spend.day_held_nano if spend and today else 0),
        **money("month_cap_usd", limits.month_cap_nano),
        **money("month_used_usd", spend.month_used_nano if spend and this_month else 0),
        **money("month_held_usd", spend.month_held_nano if spend and this_month else 0),
        **money("total_cap_usd", limits.total_cap_nano),
        **money("total_used_usd", spend.total_used_nano if spend else 0),
        **money("total_held_usd", spend.total_held_nano if spend else 0),
        rpm=limits.rpm,
        tpm=limits.tpm,
    )


async def _lock(services: AccountServices, conn: Connection, caller: Caller, key_id: int) -> ApiKey:
    """The key, locked. Raises NotFound, and InsufficientRole when it is somebody else's and the caller is no owner."""
    key = await services.identity.lock_key(conn, caller.account_id, key_id)
    if Act.ALL_KEYS not in caller.acts() and (key.user_id is None or key.user_id != caller.user_id):
        raise InsufficientRole(needed=f"the right to {Act.ALL_KEYS}", role=f"a {caller.role}")
    return key


async def _check(services: AccountServices, wanted: dict[str, Any]) -> None:
    """Raises InvalidRequest for a model that isn't served here, and an end that is past."""
    for model in wanted.get("models") or ():
        try:
            services.catalogue.find(model)
        except Problem as problem:
            raise InvalidRequest(reason=f"models: {problem.message}", param="models") from None
    expires = wanted.get("expires_at")
    if expires is not None and expires <= (now_s := (await services.ledger.time()).at_s):
        raise InvalidRequest(reason=f"expires_at: that is past; ledger time is {moment(now_s)}.", param="expires_at")


def _changed(key: ApiKey, wanted: dict[str, Any]) -> ApiKey:
    if "name" in wanted:
        key = replace(key, name=wanted["name"])
    if "scopes" in wanted:
        key = replace(key, scopes=frozenset(wanted["scopes"]))
    if "models" in wanted:
        key = replace(key, models=None if wanted["models"] is None else frozenset(wanted["models"]))
    if "expires_at" in wanted:
        key = replace(key, expires_at_s=wanted["expires_at"])
    return key


def _limited(limits: KeyLimits, key: ApiKey, wanted: dict[str, Any]) -> KeyLimits:
    return replace(
        limits,
        version=key.version,
        state=KeyState.ACTIVE,
        expires_at_s=key.expires_at_s,
        day_cap_nano=wanted.get("day_cap_usd", limits.day_cap_nano),
        total_cap_nano=wanted.get("total_cap_usd", limits.total_cap_nano),
        month_cap_nano=wanted.get("month_cap_usd", limits.month_cap_nano),
        rpm=wanted.get("rpm", limits.rpm),
        tpm=wanted.get("tpm", limits.tpm),
    )
