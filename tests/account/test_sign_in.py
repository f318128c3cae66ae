import pytest
from eth_account import Account as Wallets
from eth_account.messages import encode_defunct

from freehold.problems import LedgerUnavailable

from .conftest import Office


async def test_the_first_sign_in_opens_an_account_with_its_days_allowance(office: Office) -> None:
    wallet = Wallets.create()
    session = await office.sign_in(wallet)
    assert session["created"] and session["address"] == wallet.address
    assert office.allowance.refreshed == [session["account_id"]]
    account = await office.ok("GET", "/v1/account", session["token"])
    assert account["kind"] == "wallet" and account["role"] == "owner" and account["address"] == wallet.address
    assert [member["role"] for member in account["members"]] == ["owner"]
    assert (await office.ok("GET", "/v1/account/balance", session["token"]))["available_nano"] == 0


async def test_a_second_sign_in_finds_the_account(office: Office) -> None:
    wallet = Wallets.create()
    first, second = await office.sign_in(wallet), await office.sign_in(wallet)
    assert second["account_id"] == first["account_id"] and not second["created"]


async def test_a_sign_in_stands_although_the_allowance_cannot_be_read(office: Office) -> None:
    office.allowance.fault = LedgerUnavailable(reason="down")
    session = await office.sign_in()
    assert (await office.ask("GET", "/v1/account", session["token"])).status == 200


async def test_the_challenge_says_everything_that_is_signed(office: Office) -> None:
    wallet = Wallets.create()
    challenge = await office.ok("POST", "/v1/auth/nonce", body={"address": wallet.address.lower()})
    assert challenge["address"] == wallet.address
    for name in ("nonce", "address", "domain", "uri", "chain_id", "statement", "issued_at", "expires_at"):
        assert str(challenge[name]) in challenge["message"]


@pytest.mark.parametrize(
    ("old", "new", "status", "named"),
    [
        ("127.0.0.1:8402 wants", "evil.example wants", 401, "its domain is evil.example"),
        ("Chain ID: 402031", "Chain ID: 1", 401, "its chain id is 1"),
        ("Version: 1", "Version: 2", 400, "Version is missing"),
    ],
)
async def test_a_message_for_elsewhere_is_refused(office: Office, old: str, new: str, status: int, named: str) -> None:
    wallet = Wallets.create()
    message = (await office.ok("POST", "/v1/auth/nonce", body={"address": wallet.address}))["message"].replace(old, new)
    signature = wallet.sign_message(encode_defunct(text=message)).signature.hex()
    reply = await office.ask("POST", "/v1/auth/wallet", body={"message": message, "signature": signature})
    assert reply.status == status and named in reply.error["message"] and reply.error["param"] == "message"


async def test_a_message_signs_in_once_and_only_its_signer(office: Office) -> None:
    wallet, thief = Wallets.create(), Wallets.create()
    message = (await office.ok("POST", "/v1/auth/nonce", body={"address": wallet.address}))["message"]
    stolen = thief.sign_message(encode_defunct(text=message)).signature.hex()
    reply = await office.ask("POST", "/v1/auth/wallet", body={"message": message, "signature": stolen})
    assert (reply.status, reply.error["code"]) == (401, "sign_in_refused")
    own = {"message": message, "signature": wallet.sign_message(encode_defunct(text=message)).signature.hex()}
    await office.ok("POST", "/v1/auth/wallet", body=own)
    again = await office.ask("POST", "/v1/auth/wallet", body=own)
    assert again.status == 401 and "already used" in again.error["message"]


async def test_signing_out_ends_the_session(office: Office) -> None:
    token = (await office.sign_in())["token"]
    assert await office.ok("POST", "/v1/auth/logout", token) == {"signed_out": True}
    reply = await office.ask("GET", "/v1/account", token)
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_session_ends_by_time(office: Office) -> None:
    token = (await office.sign_in())["token"]
    office.clock.advance(8 * 86_400)
    assert (await office.ask("GET", "/v1/account", token)).error["code"] == "session_expired"
