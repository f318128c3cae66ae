import asyncio
import logging

import pytest

from freehold.ledger.problems import KeyRevoked

from ..identity.lab import everything_stored
from .conftest import NOW, Office

CAPS = {"day_cap_usd": "1.5", "total_cap_usd": "20", "models": ["scripted-echo"], "expires_at": "2030-01-01T00:00:00Z"}


async def test_a_new_keys_secret_is_shown_once_and_its_limits_always(office: Office) -> None:
    token = (await office.sign_in())["token"]
    made = await office.ok("POST", "/v1/account/keys", token, {"name": "laptop", **CAPS})
    listed = (await office.ok("GET", "/v1/account/keys", token))["data"]
    assert made["secret"].startswith(made["prefix"])
    assert listed == [{name: value for name, value in made.items() if name != "secret"}]
    key = listed[0]
    assert (key["day_cap_usd"], key["day_cap_nano"]) == ("1.50", 1_500_000_000)
    assert (key["total_cap_usd"], key["total_cap_nano"]) == ("20.00", 20_000_000_000)
    assert key["models"] == ["scripted-echo"] and key["expires_at"] == "2030-01-01T00:00:00Z"
    assert key["scopes"] == ["inference", "read"] and key["state"] == "active"


async def test_secrets_are_stored_nowhere_and_logged_nowhere(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    session = (await office.sign_in())["token"]
    secret = (await office.ok("POST", "/v1/account/keys", session, {"name": "k"}))["secret"]
    _, first = await office.local()
    for token in (session, secret, first, office.admin):
        await office.ask("GET", "/v1/account/keys", token)
        await office.ask("GET", "/v1/account/keys", token + "x")
        await office.ask("POST", "/v1/account/keys", token, {"name": 3})
    stored = await everything_stored(office.services.database)
    for token in (session, secret, first, office.admin):
        part = token[12:28]
        assert part not in stored and part.encode().hex() not in stored
        assert part not in caplog.text


async def test_limits_per_month_and_per_minute_are_set_changed_and_taken_away(office: Office) -> None:
    token = (await office.sign_in())["token"]
    asked = {"month_cap_usd": "30", "rpm": 60, "tpm": 100_000}
    made = await office.ok("POST", "/v1/account/keys", token, {"name": "limited", **asked})
    path = f"/v1/account/keys/{made['id']}"
    assert (made["month_cap_nano"], made["rpm"], made["tpm"]) == (30_000_000_000, 60, 100_000)
    changed = await office.ok("PATCH", path, token, {"rpm": 5})
    assert (changed["month_cap_usd"], changed["rpm"], changed["tpm"]) == ("30.00", 5, 100_000)
    freed = await office.ok("PATCH", path, token, {"month_cap_usd": None, "rpm": None, "tpm": None})
    assert (freed["month_cap_nano"], freed["rpm"], freed["tpm"]) == (None, None, None)
    assert (freed["month_used_usd"], freed["month_held_usd"]) == ("0.00", "0.00")
    standing = await office.services.ledger.key_limits(made["account_id"], made["id"])
    assert (standing.month_cap_nano, standing.rpm, standing.tpm) == (None, None, None)


async def test_a_key_is_written_here_and_in_the_ledger_or_nowhere(office: Office) -> None:
    account_id, secret = await office.local()
    await office.services.database.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger refuse before insert or update on ledger.keys for each row execute function public.refuse()"
    )
    body = {"name": "half"}
    made = await office.ask("POST", "/v1/account/keys", office.admin, body, account=account_id)
    key_id = (await office.services.identity.key(secret)).id
    gone = await office.ask("DELETE", f"/v1/account/keys/{key_id}", office.admin, account=account_id)
    assert made.status == gone.status == 500 and made.error["code"] == "server_error"
    keys = await office.services.identity.keys(account_id)
    assert [(key.name, key.revoked_at_s) for key in keys] == [("first", None)]


async def test_a_revoked_keys_next_request_is_refused_everywhere(office: Office) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    await office.charge(secret, 1_000)
    key_id = (await office.services.identity.key(secret)).id
    revoked = await office.ok("DELETE", f"/v1/account/keys/{key_id}", office.admin, account=account_id)
    assert revoked["state"] == "revoked" and revoked["revoked_at"] == "2027-01-15T08:00:00Z"
    reply = await office.ask("GET", "/v1/account/balance", secret)
    assert (reply.status, reply.error["code"]) == (401, "key_revoked")
    with pytest.raises(KeyRevoked):
        await office.charge(secret, 1_000)
    again = await office.ok("DELETE", f"/v1/account/keys/{key_id}", office.admin, account=account_id)
    assert again == revoked


async def test_an_expired_key_is_refused_in_ledger_time(office: Office) -> None:
    account_id, _ = await office.local()
    body = {"name": "short", "expires_at": "2027-01-15T09:00:00Z"}
    secret = (await office.ok("POST", "/v1/account/keys", office.admin, body, account=account_id))["secret"]
    await office.ok("GET", "/v1/account/balance", secret)
    await office.services.ledger.set_time(NOW + 3600, opened_day=NOW // 86_400)
    reply = await office.ask("GET", "/v1/account/balance", secret)
    assert (reply.status, reply.error["code"]) == (401, "key_expired")
    listed = (await office.ok("GET", "/v1/account/keys", office.admin, account=account_id))["data"]
    assert [key["state"] for key in listed] == ["active", "expired"]


async def test_a_change_leaves_what_it_does_not_name_and_null_takes_a_limit_away(office: Office) -> None:
    token = (await office.sign_in())["token"]
    made = await office.ok("POST", "/v1/account/keys", token, {"name": "k", **CAPS})
    path = f"/v1/account/keys/{made['id']}"
    renamed = await office.ok("PATCH", path, token, {"name": "new"})
    assert renamed == {**{name: made[name] for name in renamed}, "name": "new"}
    freed = await office.ok("PATCH", path, token, {"day_cap_usd": None, "models": None, "expires_at": None})
    assert (freed["day_cap_nano"], freed["models"], freed["expires_at"]) == (None, None, None)
    assert freed["total_cap_nano"] == 20_000_000_000
    limits = await office.services.ledger.key_limits(made["account_id"], made["id"])
    key = await office.services.identity.key(made["secret"])
    assert limits.version == key.version == 3 and limits.expires_at_s is None
    await office.ok("GET", "/v1/account/key", made["secret"])


async def test_changes_at_once_all_hold(office: Office) -> None:
    token = (await office.sign_in())["token"]
    made = await office.ok("POST", "/v1/account/keys", token, {"name": "k"})
    path = f"/v1/account/keys/{made['id']}"
    changes = [{"name": "n"}, {"day_cap_usd": "2"}, {"total_cap_usd": "3"}, {"scopes": ["read"]}]
    await asyncio.gather(*(office.ok("PATCH", path, token, change) for change in changes))
    key = (await office.ok("GET", "/v1/account/keys", token))["data"][0]
    assert (key["name"], key["day_cap_usd"], key["total_cap_usd"], key["scopes"]) == ("n", "2.00", "3.00", ["read"])
    limits = await office.services.ledger.key_limits(made["account_id"], made["id"])
    assert limits.version == 5


async def test_a_revoked_key_is_not_changed(office: Office) -> None:
    token = (await office.sign_in())["token"]
    made = await office.ok("POST", "/v1/account/keys", token, {"name": "k", **CAPS})
    path = f"/v1/account/keys/{made['id']}"
    gone = await office.ok("DELETE", path, token)
    assert gone["day_cap_usd"] == "1.50"
    reply = await office.ask("PATCH", path, token, {"name": "back"})
    assert (reply.status, reply.error["code"]) == (409, "conflict")


async def test_a_key_tells_what_it_spent(office: Office) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    await office.charge(secret, 30_000)
    own = await office.ok("GET", "/v1/account/key", secret)
    assert (own["day_used_usd"], own["day_used_nano"], own["total_used_nano"]) == ("0.00003", 30_000, 30_000)
    assert own["total_held_nano"] == 0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["all"]}, "scopes.0"),
        ({"models": []}, "models"),
        ({"models": ["scripted-ecko"]}, "models"),
        ({"expires_at": "2027-01-15T08:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"day_cap_usd": 0.1}, "day_cap_usd"),
        ({"month_cap_usd": "-1"}, "month_cap_usd"),
        ({"rpm": 0}, "rpm"),
        ({"tpm": "10"}, "tpm"),
        ({"tpm": 2**31}, "tpm"),
        ({"day_cap_usd": "-1"}, "day_cap_usd"),
        ({"day_cap_usd": "0.0000000001"}, "day_cap_usd"),
        ({"total_cap_usd": "99999999999"}, "total_cap_usd"),
        ({"day_limit": "1"}, "day_limit"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_made(
    office: Office, change: dict[str, object], param: str
) -> None:
    token = (await office.sign_in())["token"]
    reply = await office.ask("POST", "/v1/account/keys", token, {"name": "k", **change})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_request", param)
    assert (await office.ok("GET", "/v1/account/keys", token))["data"] == []
