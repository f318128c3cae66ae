import dataclasses
import logging

import pytest

from freehold.identity.identity import Identity
from freehold.identity.model import ApiKey, CallerKind, Role, Scope
from freehold.identity.problems import InvalidApiKey, NotAnApiKey
from freehold.identity.tokens import new_token
from freehold.problems import LedgerUnavailable, NotFound

from .conftest import SETTINGS, World
from .lab import everything_stored


async def test_a_new_key_is_found_by_its_secret(world: World) -> None:
    account_id = await world.local()
    key_id, secret = await world.key(account_id, models=["smollm2-135m"], expires_at_s=1_900_000_000)
    key = await world.identity.key(secret)
    assert key == ApiKey(
        id=key_id,
        account_id=account_id,
        user_id=None,
        name="k",
        prefix=secret[:9],
        scopes=frozenset({Scope.INFERENCE, Scope.READ}),
        models=frozenset({"smollm2-135m"}),
        expires_at_s=1_900_000_000,
        revoked_at_s=None,
        created_at_s=1_800_000_000,
        version=1,
    )


async def test_a_secret_is_long_begins_with_fh_and_is_never_the_same(world: World) -> None:
    account_id = await world.local()
    secrets = {(await world.key(account_id))[1] for _ in range(5)}
    assert len(secrets) == 5
    assert all(secret.startswith("fh_") and len(secret) == 46 and secret.isascii() for secret in secrets)


async def test_secrets_are_stored_nowhere_and_logged_nowhere(
    world: World, new_wallet: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    admin = new_token(CallerKind.OPERATOR)
    await world.identity.ensure_admin_token(admin)
    _, secret = await world.key(await world.local())
    session = await world.sign_in(new_wallet())  # type: ignore[operator]
    await world.identity.key(secret)
    for token in (admin, secret, session.token):
        await world.identity.caller(token)
    stored = await everything_stored(world.database)
    shown = caplog.text + repr(world.identity) + repr(session) + repr(await world.identity.caller(secret))
    for token in (admin, secret, session.token):
        part = token[12:28]
        assert part not in stored
        assert part.encode().hex() not in stored
        assert part not in shown


@pytest.mark.parametrize("token", ["", "sk-abc", "fh_unknown", "fh_" + "x" * 500, "fh_\ud800", "fh_ü"])
async def test_a_token_that_is_not_known_is_refused(world: World, token: str) -> None:
    with pytest.raises(InvalidApiKey) as caught:
        await world.identity.key(token)
    assert caught.value.status == 401 and caught.value.code == "invalid_api_key"
    with pytest.raises(InvalidApiKey):
        await world.identity.caller(token)


@pytest.mark.parametrize("kind", [CallerKind.SESSION, CallerKind.OPERATOR])
async def test_a_session_or_admin_token_is_no_api_key(world: World, kind: CallerKind) -> None:
    with pytest.raises(NotAnApiKey):
        await world.identity.key(new_token(kind))


async def test_a_key_made_after_its_token_was_refused_is_found(world: World) -> None:
    account_id = await world.local()
    key_id, secret = await world.key(account_id)
    await world.database.execute("update identity.keys set hash = sha256('away') where id = $1", key_id)
    with pytest.raises(InvalidApiKey):
        await world.identity.key(secret)
    await world.database.execute("update identity.keys set hash = sha256($2) where id = $1", key_id, secret.encode())
    assert (await world.identity.key(secret)).id == key_id


async def test_a_key_in_memory_is_read_again_only_when_forgotten(world: World) -> None:
    account_id = await world.local()
    _, secret = await world.key(account_id)
    before = await world.identity.key(secret)
    async with world.database.transaction() as conn:
        locked = await world.identity.lock_key(conn, account_id, before.id)
        after = await world.identity.update_key(conn, dataclasses.replace(locked, name="new"))
    assert after.version == 2 and after.name == "new"
    assert await world.identity.key(secret) == before
    world.identity.forget(secret)
    assert await world.identity.key(secret) == after


async def test_memory_keeps_the_keys_used_last(world: World) -> None:
    small = Identity(world.database, clock=world.clock, settings=dataclasses.replace(SETTINGS, cached_keys=2))
    account_id = await world.local()
    secrets = [(await world.key(account_id))[1] for _ in range(3)]
    first, second, third = secrets
    for secret in (first, second, first, third):
        await small.key(secret)
    await world.database.execute("update identity.keys set name = 'changed'")
    assert (await small.key(first)).name == "k"
    assert (await small.key(third)).name == "k"
    assert (await small.key(second)).name == "changed"


async def test_a_revoked_key_stays_revoked_and_says_when(world: World) -> None:
    account_id = await world.local()
    key_id, secret = await world.key(account_id)
    world.clock.advance(10)
    async with world.database.transaction() as conn:
        revoked = await world.identity.revoke_key(conn, account_id, key_id)
    world.clock.advance(10)
    async with world.database.transaction() as conn:
        again = await world.identity.revoke_key(conn, account_id, key_id)
    assert revoked.revoked_at_s == 1_800_000_010 and revoked.version == 2
    assert again == revoked
    caller = await world.identity.caller(secret)
    assert caller.key == revoked


async def test_another_accounts_key_cannot_be_changed(world: World) -> None:
    mine, theirs = await world.local("mine"), await world.local("theirs")
    key_id, _ = await world.key(theirs)
    async with world.database.transaction() as conn:
        with pytest.raises(NotFound):
            await world.identity.lock_key(conn, mine, key_id)
        with pytest.raises(NotFound):
            await world.identity.revoke_key(conn, mine, key_id)


async def test_an_accounts_keys_are_listed_oldest_first(world: World) -> None:
    account_id, other = await world.local("a"), await world.local("b")
    ids = [(await world.key(account_id))[0] for _ in range(3)]
    await world.key(other)
    assert [key.id for key in await world.identity.keys(account_id)] == ids


async def test_the_operators_token_is_the_last_one_set_and_may_see_any_account(world: World) -> None:
    first, second = new_token(CallerKind.OPERATOR), new_token(CallerKind.OPERATOR)
    account_id = await world.local()
    await world.identity.ensure_admin_token(first)
    await world.identity.ensure_admin_token(second)
    with pytest.raises(InvalidApiKey):
        await world.identity.caller(first)
    assert (await world.identity.caller(second)).account_id == 0
    assert (await world.identity.caller(second, account_id=account_id)).account_id == account_id
    with pytest.raises(NotFound):
        await world.identity.caller(second, account_id=account_id + 1)


@pytest.mark.parametrize("token", ["fh_admin_short", "fh_" + "a" * 60, "x" * 60])
async def test_a_weak_operators_token_is_refused(world: World, token: str) -> None:
    with pytest.raises(ValueError, match="fh_admin_"):
        await world.identity.ensure_admin_token(token)


async def test_a_key_belongs_to_its_own_account_only(world: World) -> None:
    mine, theirs = await world.local("mine"), await world.local("theirs")
    _, secret = await world.key(mine)
    caller = await world.identity.caller(secret)
    assert (caller.kind, caller.account_id, caller.role) == (CallerKind.KEY, mine, Role.OWNER)
    with pytest.raises(NotFound):
        await world.identity.caller(secret, account_id=theirs)


async def test_without_the_database_a_known_key_is_known_and_another_is_not_called_wrong(world: World) -> None:
    account_id = await world.local()
    _, known = await world.key(account_id)
    _, other = await world.key(account_id)
    before = await world.identity.key(known)
    world.database.pool.terminate()
    assert await world.identity.key(known) == before
    with pytest.raises(LedgerUnavailable):
        await world.identity.key(other)
    for token in (known, new_token(CallerKind.SESSION), new_token(CallerKind.OPERATOR)):
        with pytest.raises(LedgerUnavailable):
            await world.identity.caller(token)
