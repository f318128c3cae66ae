from collections.abc import Callable

import pytest
from eth_account.signers.local import LocalAccount

from freehold.identity.identity import require
from freehold.identity.model import Act, Caller, CallerKind, Role, Scope
from freehold.identity.problems import InsufficientRole, InsufficientScope
from freehold.problems import Conflict, InvalidRequest, NotFound

from .conftest import World

NewWallet = Callable[[], LocalAccount]


async def put(world: World, account_id: int, address: str, role: Role) -> int:
    async with world.database.transaction() as conn:
        return (await world.identity.put_member(conn, account_id, address, role, None)).user_id


async def test_a_member_chooses_among_the_accounts_it_has_a_part_in(world: World, new_wallet: NewWallet) -> None:
    owner, guest = await world.sign_in(new_wallet()), await world.sign_in(new_wallet())
    await put(world, owner.account.id, guest.account.address, Role.VIEWER)
    own = await world.identity.caller(guest.token)
    joined = await world.identity.caller(guest.token, account_id=owner.account.id)
    assert (own.account_id, own.role) == (guest.account.id, Role.OWNER)
    assert (joined.account_id, joined.role, joined.scopes) == (owner.account.id, Role.VIEWER, {Scope.READ})
    with pytest.raises(NotFound):
        await world.identity.caller(owner.token, account_id=guest.account.id)


async def test_who_was_invited_before_the_first_sign_in_gets_an_own_account_too(
    world: World, new_wallet: NewWallet
) -> None:
    owner, wallet = await world.sign_in(new_wallet()), new_wallet()
    user_id = await put(world, owner.account.id, wallet.address.lower(), Role.MEMBER)
    guest = await world.sign_in(wallet)
    assert guest.user_id == user_id and guest.created
    assert (await world.identity.caller(guest.token)).account_id == guest.account.id
    assert (await world.identity.caller(guest.token, account_id=owner.account.id)).role is Role.MEMBER


async def test_a_removed_members_session_no_longer_opens_the_account(world: World, new_wallet: NewWallet) -> None:
    owner, guest = await world.sign_in(new_wallet()), await world.sign_in(new_wallet())
    user_id = await put(world, owner.account.id, guest.account.address, Role.MEMBER)
    async with world.database.transaction() as conn:
        await world.identity.remove_member(conn, owner.account.id, user_id)
    with pytest.raises(NotFound):
        await world.identity.caller(guest.token, account_id=owner.account.id)
    async with world.database.transaction() as conn:
        with pytest.raises(NotFound):
            await world.identity.remove_member(conn, owner.account.id, user_id)


async def test_an_account_keeps_an_owner(world: World, new_wallet: NewWallet) -> None:
    owner, other = await world.sign_in(new_wallet()), new_wallet()
    async with world.database.transaction() as conn:
        with pytest.raises(Conflict):
            await world.identity.remove_member(conn, owner.account.id, owner.user_id)
    with pytest.raises(Conflict):
        await put(world, owner.account.id, owner.account.address, Role.VIEWER)
    await put(world, owner.account.id, other.address, Role.OWNER)
    async with world.database.transaction() as conn:
        await world.identity.remove_member(conn, owner.account.id, owner.user_id)
    assert [member.address for member in await world.identity.members(owner.account.id)] == [other.address]


async def test_members_are_named_by_an_address(world: World) -> None:
    with pytest.raises(InvalidRequest, match="not an address"):
        await put(world, await world.local(), "bob", Role.MEMBER)
    with pytest.raises(NotFound):
        await put(world, 999, "0x" + "1" * 40, Role.MEMBER)


async def test_a_key_acts_within_the_present_role_of_who_made_it(world: World, new_wallet: NewWallet) -> None:
    owner, guest = await world.sign_in(new_wallet()), await world.sign_in(new_wallet())
    account_id = owner.account.id
    user_id = await put(world, account_id, guest.account.address, Role.MEMBER)
    _, secret = await world.key(account_id, user_id=user_id, scopes=frozenset(Scope))
    member = await world.identity.caller(secret)
    await put(world, account_id, guest.account.address, Role.VIEWER)
    viewer = await world.identity.caller(secret)
    async with world.database.transaction() as conn:
        await world.identity.remove_member(conn, account_id, user_id)
    removed = await world.identity.caller(secret)
    assert Act.OWN_KEYS in member.acts() and Act.ALL_KEYS not in member.acts()
    assert viewer.acts() == {Act.SEE_OWN, Act.READ, Act.LIST_KEYS}
    assert removed.acts() == viewer.acts()
    assert (await world.identity.caller((await world.key(account_id, user_id=owner.user_id))[1])).role is Role.OWNER


ALLOWED = {
    (CallerKind.SESSION, Role.VIEWER): {Act.SEE_OWN, Act.READ, Act.LIST_KEYS},
    (CallerKind.SESSION, Role.MEMBER): {Act.SEE_OWN, Act.READ, Act.LIST_KEYS, Act.OWN_KEYS},
    (CallerKind.SESSION, Role.OWNER): set(Act),
    (CallerKind.OPERATOR, None): set(Act),
    (CallerKind.KEY, Role.OWNER, Scope.INFERENCE): {Act.SEE_OWN},
    (CallerKind.KEY, Role.OWNER, Scope.READ): {Act.SEE_OWN, Act.READ, Act.LIST_KEYS},
    (CallerKind.KEY, Role.OWNER, Scope.ADMIN): {Act.SEE_OWN, Act.LIST_KEYS, Act.OWN_KEYS, Act.ALL_KEYS},
    (CallerKind.KEY, Role.MEMBER, Scope.ADMIN): {Act.SEE_OWN, Act.LIST_KEYS, Act.OWN_KEYS},
    (CallerKind.KEY, Role.VIEWER, Scope.ADMIN): {Act.SEE_OWN, Act.LIST_KEYS},
    (CallerKind.KEY, Role.OWNER): set(),
}


@pytest.mark.parametrize("who", ALLOWED, ids=str)
@pytest.mark.parametrize("act", list(Act))
def test_what_each_caller_may_do(who: tuple[CallerKind, Role | None, *tuple[Scope, ...]], act: Act) -> None:
    kind, role, *scopes = who
    caller = Caller(kind, 1, frozenset(scopes), role)
    if act in ALLOWED[who]:
        require(caller, act)
        return
    with pytest.raises((InsufficientRole, InsufficientScope)) as caught:
        require(caller, act)
    lacks_scope = kind is CallerKind.KEY and act not in ALLOWED.get((kind, Role.OWNER, *scopes), set())
    assert isinstance(caught.value, InsufficientScope if lacks_scope else InsufficientRole)
