from eth_account import Account as Wallets

from .conftest import NOW, TODAY, Office


async def test_a_balance_shows_each_purse_and_the_days_ahead(office: Office) -> None:
    account_id, secret = await office.local()
    office.allowance.daily_nano[account_id] = 500_000_000
    await office.give(account_id, "0.25")
    await office.allowance.refresh(account_id)
    await office.charge(secret, 100_000_000)
    read = await office.ok("GET", "/v1/account/balance", secret)
    purses = {purse["source"]: purse for purse in read["purses"]}
    assert purses["allowance"]["granted"] == "0.50" and purses["allowance"]["used_nano"] == 100_000_000
    assert purses["promo"]["available"] == "0.25" and purses["promo"]["available_nano"] == 250_000_000
    assert (read["available"], read["available_nano"]) == ("0.65", 650_000_000)
    assert (read["held"], read["day"], read["reset_at"]) == ("0.00", "2027-01-15", "2027-01-16T00:00:00Z")
    assert read["ledger_time"] == "2027-01-15T08:00:00Z" and read["provisional"] is False
    assert read["next_days"][0] == {
        "day": "2027-01-16",
        "amount": "0.50",
        "amount_nano": 500_000_000,
        "source": "allowance",
    }
    assert len(read["next_days"]) == 7


async def test_a_balance_brings_in_todays_allowance_first(office: Office) -> None:
    account_id, secret = await office.local()
    office.allowance.daily_nano[account_id] = 1_000_000_000
    assert (await office.ok("GET", "/v1/account/balance", secret))["available"] == "1.00"
    await office.ok("GET", "/v1/account/balance", secret)
    assert office.allowance.refreshed == [account_id]
    await office.services.ledger.set_time(NOW + 86_400, opened_day=TODAY.number + 1)
    assert (await office.ok("GET", "/v1/account/balance", secret))["available"] == "1.00"
    assert office.allowance.refreshed == [account_id, account_id]


async def test_members_come_change_and_go_and_their_keys_with_them(office: Office) -> None:
    owner, guest = await office.sign_in(), await office.sign_in()
    token, account_id = owner["token"], owner["account_id"]
    body = {"address": guest["address"], "role": "member", "name": "Guest"}
    member = await office.ok("POST", "/v1/account/members", token, body)
    key = await office.ok("POST", "/v1/account/keys", guest["token"], {"name": "theirs"}, account=account_id)
    await office.ok("GET", "/v1/account/balance", key["secret"])

    await office.ok("POST", "/v1/account/members", token, {**body, "role": "viewer"})
    assert (await office.ask("GET", "/v1/account/balance", key["secret"])).error["code"] == "key_revoked"

    await office.ok("POST", "/v1/account/members", token, body)
    again = await office.ok("POST", "/v1/account/keys", guest["token"], {"name": "more"}, account=account_id)
    left = await office.ok("DELETE", f"/v1/account/members/{member['user_id']}", token)
    assert [row["address"] for row in left["data"]] == [owner["address"]]
    assert (await office.ask("GET", "/v1/account/balance", again["secret"])).error["code"] == "key_revoked"
    assert (await office.ask("GET", "/v1/account", guest["token"], account=account_id)).status == 404
    assert (await office.ask("DELETE", f"/v1/account/members/{member['user_id']}", token)).status == 404


async def test_the_last_owner_stays(office: Office) -> None:
    session = await office.sign_in()
    members = (await office.ok("GET", "/v1/account/members", session["token"]))["data"]
    reply = await office.ask("DELETE", f"/v1/account/members/{members[0]['user_id']}", session["token"])
    assert (reply.status, reply.error["code"]) == (409, "conflict")
    body = {"address": session["address"], "role": "viewer"}
    assert (await office.ask("POST", "/v1/account/members", session["token"], body)).status == 409


async def test_the_operator_says_which_account(office: Office) -> None:
    account_id, _ = await office.local("blue")
    reply = await office.ask("GET", "/v1/account", office.admin)
    assert (reply.status, reply.error["param"]) == (400, "account")
    assert (await office.ok("GET", "/v1/account", office.admin, account=account_id))["name"] == "blue"
    assert (await office.ask("GET", "/v1/account", office.admin, account=account_id + 1)).status == 404


async def test_a_wallet_can_be_given_a_part_in_a_local_account(office: Office) -> None:
    account_id, _ = await office.local()
    wallet = Wallets.create()
    body = {"address": wallet.address, "role": "owner"}
    await office.ok("POST", "/v1/account/members", office.admin, body, account=account_id)
    session = await office.sign_in(wallet)
    assert session["account_id"] != account_id
    assert (await office.ok("GET", "/v1/account", session["token"], account=account_id))["role"] == "owner"
