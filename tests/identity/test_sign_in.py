import asyncio
from collections.abc import Callable

import pytest
from eth_account.signers.local import LocalAccount

from freehold.identity.identity import Identity
from freehold.identity.model import Account, CallerKind, Member, Role, Scope
from freehold.identity.problems import InvalidApiKey, InvalidSignInMessage, SessionExpired, SignInRefused
from freehold.problems import InvalidRequest

from .conftest import SETTINGS, World, signed

NewWallet = Callable[[], LocalAccount]


async def test_the_first_sign_in_makes_an_account_that_its_wallet_owns(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    session = await world.sign_in(wallet)
    assert session.created
    assert session.account == Account(1, wallet.address, "wallet", wallet.address, 1_800_000_000)
    members = await world.identity.members(1)
    assert members == [Member(1, session.user_id, wallet.address, wallet.address, Role.OWNER)]
    caller = await world.identity.caller(session.token)
    assert (caller.kind, caller.account_id, caller.role) == (CallerKind.SESSION, 1, Role.OWNER)
    assert caller.scopes == frozenset(Scope)


async def test_a_later_sign_in_finds_the_same_account(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    first, second = await world.sign_in(wallet), await world.sign_in(wallet)
    assert second.account == first.account and not second.created
    assert second.token != first.token
    assert world.numbers.last == 1


async def test_two_first_sign_ins_at_once_make_one_account(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    sessions = await asyncio.gather(*(world.sign_in(wallet) for _ in range(4)))
    assert {session.account.id for session in sessions} == {sessions[0].account.id}
    assert [session.created for session in sessions].count(True) == 1
    assert len(await world.identity.accounts()) == 1


async def test_nothing_is_made_when_the_ledgers_half_fails(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    challenge = await world.identity.nonce(wallet.address)

    async def fails(_conn: object) -> int:
        raise RuntimeError("no ledger")

    with pytest.raises(RuntimeError):
        await world.identity.sign_in(challenge.message, signed(wallet, challenge.message), create_account=fails)
    assert await world.identity.accounts() == []
    session = await world.identity.sign_in(
        challenge.message, signed(wallet, challenge.message), create_account=world.numbers.create_account
    )
    assert session.created


async def refused(world: World, message: str, signature: str, named: str) -> None:
    with pytest.raises((SignInRefused, InvalidSignInMessage), match=named):
        await world.identity.sign_in(message, signature, create_account=world.numbers.create_account)
    assert await world.database.fetchval("select count(*) from identity.sessions") == 0


async def test_a_nonce_signs_in_once(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    message = (await world.identity.nonce(wallet.address)).message
    session = await world.identity.sign_in(
        message, signed(wallet, message), create_account=world.numbers.create_account
    )
    await world.identity.sign_out(session.token)
    await refused(world, message, signed(wallet, message), "already used")


async def test_a_nonce_used_by_many_at_once_signs_in_once(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    message = (await world.identity.nonce(wallet.address)).message
    results = await asyncio.gather(
        *(
            world.identity.sign_in(message, signed(wallet, message), create_account=world.numbers.create_account)
            for _ in range(6)
        ),
        return_exceptions=True,
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, SignInRefused) for result in results if isinstance(result, BaseException))


async def test_a_nonce_of_another_address_is_refused(world: World, new_wallet: NewWallet) -> None:
    mine, theirs = new_wallet(), new_wallet()
    message = (await world.identity.nonce(theirs.address)).message.replace(theirs.address, mine.address)
    await refused(world, message, signed(mine, message), "not issued here for this address")


async def test_a_nonce_made_up_is_refused(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    challenge = await world.identity.nonce(wallet.address)
    message = challenge.message.replace(challenge.nonce, "a" * 24)
    await refused(world, message, signed(wallet, message), "not issued here")


async def test_a_nonce_expires(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    message = (await world.identity.nonce(wallet.address)).message
    endless = "\n".join(line for line in message.split("\n") if not line.startswith("Expiration"))
    world.clock.advance(SETTINGS.nonce_s)
    await refused(world, message, signed(wallet, message), "expired at")
    await refused(world, endless, signed(wallet, endless), "nonce has expired")


async def test_a_message_changed_after_signing_is_refused(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    message = (await world.identity.nonce(wallet.address)).message
    signature = signed(wallet, message)
    await refused(world, message.replace("moves no funds", "moves all funds"), signature, "signed by another key")


async def test_somebody_elses_signature_is_refused(world: World, new_wallet: NewWallet) -> None:
    wallet, thief = new_wallet(), new_wallet()
    message = (await world.identity.nonce(wallet.address)).message
    await refused(world, message, signed(thief, message), "signed by another key")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("127.0.0.1:8402 wants", "evil.example wants", "its domain is evil.example"),
        ("http://127.0.0.1:8402", "http://evil.example", "its URI is"),
        ("Chain ID: 402031", "Chain ID: 1", "its chain id is 1"),
        ("Version: 1", "Version: 3", "Version"),
    ],
)
async def test_a_message_for_another_server_or_chain_is_refused(
    world: World, new_wallet: NewWallet, old: str, new: str, named: str
) -> None:
    wallet = new_wallet()
    message = (await world.identity.nonce(wallet.address)).message.replace(old, new)
    await refused(world, message, signed(wallet, message), named)


async def test_a_nonce_is_asked_for_with_an_address(world: World) -> None:
    with pytest.raises(InvalidRequest, match="not an address") as caught:
        await world.identity.nonce("bob")
    assert caught.value.param == "address"


async def test_expired_nonces_and_sessions_are_cleaned_away(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    await world.sign_in(wallet)
    await world.identity.nonce(wallet.address)
    world.clock.advance(SETTINGS.session_s)
    await world.sign_in(wallet)
    assert await world.database.fetchval("select count(*) from identity.nonces") == 1
    assert await world.database.fetchval("select count(*) from identity.sessions") == 1


async def test_a_session_ends_by_time(world: World, new_wallet: NewWallet) -> None:
    session = await world.sign_in(new_wallet())
    world.clock.advance(SETTINGS.session_s - 1)
    await world.identity.caller(session.token)
    world.clock.advance(1)
    with pytest.raises(SessionExpired):
        await world.identity.caller(session.token)


async def test_a_session_ends_by_signing_out_and_others_go_on(world: World, new_wallet: NewWallet) -> None:
    wallet = new_wallet()
    first, second = await world.sign_in(wallet), await world.sign_in(wallet)
    await world.identity.sign_out(first.token)
    with pytest.raises(InvalidApiKey):
        await world.identity.caller(first.token)
    with pytest.raises(InvalidApiKey):
        await world.identity.sign_out(first.token)
    await world.identity.caller(second.token)


async def test_a_local_accounts_address_is_derived_and_its_own(world: World) -> None:
    first, second = await world.local("a"), await world.local("b")
    one, two = await world.identity.account(first), await world.identity.account(second)
    assert one.kind == "local" and one.name == "a"
    assert one.address != two.address
    assert await world.identity.account_of_address(one.address.lower()) == one
    assert await world.identity.addresses() == {one.address: first, two.address: second}
    await world.database.execute("update identity.instance set salt = sha256('another installation')")
    elsewhere = Identity(world.database, clock=world.clock, settings=SETTINGS)
    async with world.database.transaction() as conn:
        await conn.execute("delete from identity.accounts where id = $1", first)
        again = await elsewhere.create_local_account(conn, first, "a")
    assert again.address != one.address
