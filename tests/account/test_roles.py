"""Who may do what: every route of the API against every kind of caller."""

from collections.abc import Mapping
from typing import Any

import pytest
from eth_account import Account as Wallets

from freehold.gateway.account.application import describe

from .conftest import Office

ANY = dict.fromkeys(("viewer", "member", "owner", "inference", "read", "admin", "member-admin", "operator"), 200)
READS = {**ANY, "inference": 403, "admin": 403, "member-admin": 403}
LISTS = {**ANY, "inference": 403}
MANAGES = {**ANY, "viewer": 403, "inference": 403, "read": 403}
OWNS = {**MANAGES, "member": 403, "member-admin": 403}
MEMBERS = {**OWNS, "admin": 403}
OPERATES = {**dict.fromkeys(ANY, 403), "operator": 200}
OPEN = {**ANY, "nobody": 200, "unknown": 200, "revoked": 200}

ADDRESS = Wallets.create().address
GRANT = {"account_id": 1, "amount_usd": "1", "id": "a"}

TABLE: Mapping[tuple[str, str], tuple[Any, Mapping[str, int]]] = {
    ("GET", "/v1/account"): (None, READS),
    ("GET", "/v1/account/balance"): (None, ANY),
    ("GET", "/v1/account/members"): (None, READS),
    ("POST", "/v1/account/members"): ({"address": ADDRESS, "role": "viewer"}, MEMBERS),
    ("DELETE", "/v1/account/members/{user_id}"): (None, MEMBERS),
    ("GET", "/v1/account/keys"): (None, LISTS),
    ("POST", "/v1/account/keys"): ({"name": "new"}, MANAGES),
    ("PATCH", "/v1/account/keys/{key_id}"): ({"name": "other"}, OWNS),
    ("DELETE", "/v1/account/keys/{key_id}"): (None, OWNS),
    ("GET", "/v1/account/key"): (None, {**ANY, "viewer": 400, "member": 400, "owner": 400, "operator": 400}),
    ("GET", "/v1/account/usage"): (None, READS),
    ("GET", "/v1/account/bill"): (None, READS),
    ("GET", "/v1/account/receipts/{receipt_id}"): (None, {**ANY, "inference": 404, "admin": 404, "member-admin": 404}),
    ("GET", "/v1/account/receipts"): (None, READS),
    ("GET", "/v1/account/receipts/{receipt_id}/proof"): (
        None,
        {**dict.fromkeys(ANY, 409), "inference": 404, "admin": 404, "member-admin": 404},
    ),
    ("GET", "/v1/epochs"): (None, OPEN),
    ("GET", "/v1/epochs/{day}"): (None, dict.fromkeys(OPEN, 404)),
    ("POST", "/v1/admin/accounts"): ({"name": "new"}, OPERATES),
    ("GET", "/v1/admin/accounts"): (None, OPERATES),
    ("POST", "/v1/admin/accounts/{account_id}/keys"): ({"name": "new"}, OPERATES),
    ("POST", "/v1/admin/grants"): (GRANT, OPERATES),
    ("PUT", "/v1/admin/prices/{model}"): ({"input_usd_per_million": "1"}, OPERATES),
    ("GET", "/v1/admin/books"): (None, OPERATES),
    ("GET", "/v1/prices"): (None, OPEN),
    ("GET", "/v1/prices/diff"): (None, OPEN),
    ("GET", "/v1/admin/prices/published"): (None, OPERATES),
    ("GET", "/v1/prices/{model}/history"): (None, OPEN),
    ("POST", "/v1/price"): ({"model": "scripted-echo"}, OPEN),
    ("GET", "/v1/chain"): (None, OPEN),
    ("GET", "/v1/status"): (None, OPEN),
    ("GET", "/healthz"): (None, OPEN),
    ("GET", "/readyz"): (None, OPEN),
    ("POST", "/v1/auth/nonce"): ({"address": ADDRESS}, OPEN),
}
ELSEWHERE = {
    ("POST", "/v1/auth/wallet"),
    ("POST", "/v1/auth/logout"),
    ("GET", "/metrics"),
    ("POST", "/v1/admin/reload"),
    ("GET", "/v1/plan"),
    ("POST", "/v1/account/top-up"),
}
"""Tested with sign-in: they take what only a wallet or a session has; with the metrics, whose readers may come without
a token; with the supervisor, who does what the operator asks; with x402, which pays; and with usage of past days,
without which there is no plan."""


def test_every_route_is_in_the_table() -> None:
    routes = {
        (verb.upper(), path)
        for path, verbs in describe()["paths"].items()
        for verb, operation in verbs.items()
        if operation["tags"] != ["inference"]
    }
    assert routes == set(TABLE) | ELSEWHERE


@pytest.mark.parametrize("route", TABLE, ids=" ".join)
async def test_what_each_caller_may_do(office: Office, route: tuple[str, str]) -> None:
    method, template = route
    owner, member, viewer = await office.sign_in(), await office.sign_in(), await office.sign_in()
    account_id = owner["account_id"]
    for session, role in ((member, "member"), (viewer, "viewer")):
        body = {"address": session["address"], "role": role}
        await office.ok("POST", "/v1/account/members", owner["token"], body)

    async def key(token: str, *scopes: str) -> Any:
        body = {"name": "k", "scopes": list(scopes)}
        return await office.ok("POST", "/v1/account/keys", token, body, account=account_id)

    callers = {
        "viewer": viewer["token"],
        "member": member["token"],
        "owner": owner["token"],
        "inference": (await key(owner["token"], "inference"))["secret"],
        "read": (await key(owner["token"], "read"))["secret"],
        "admin": (await key(owner["token"], "admin"))["secret"],
        "member-admin": (await key(member["token"], "admin"))["secret"],
        "operator": office.admin,
        "nobody": None,
        "unknown": "fh_" + "0" * 43,
        "revoked": (await key(owner["token"], "inference", "read", "admin"))["secret"],
    }
    dead = (await office.services.identity.key(callers["revoked"])).id
    await office.ok("DELETE", f"/v1/account/keys/{dead}", owner["token"])
    await office.give(account_id, "1")
    caller_key = await key(owner["token"], "inference")
    charge = await office.charge(caller_key["secret"], 1_000)
    sent, allowed = TABLE[route]

    for name, token in callers.items():
        body = {**sent, "account_id": account_id, "id": name} if sent is GRANT else sent
        guest = await office.ok(
            "POST", "/v1/account/members", owner["token"], {"address": Wallets.create().address, "role": "viewer"}
        )
        path = template.format(
            user_id=guest["user_id"],
            key_id=(await key(owner["token"], "read"))["id"] if "{key_id}" in template else 0,
            receipt_id=f"req_{charge.request_id.hex}",
            account_id=account_id,
            model="scripted-echo",
            day="2027-01-14",
        )
        query = {"account": account_id} if token and template.startswith("/v1/account") else {}
        if template == "/v1/account/receipts":
            query["month"] = "2027-01"
        reply = await office.ask(method, path, token, body, **query)
        expected = allowed.get(name, 401)
        assert reply.status == expected or (expected == 200 and reply.status == 201), (name, reply.status, reply.body)
        if reply.status >= 400:
            assert (
                reply.error["code"]
                in {
                    400: ("invalid_request",),
                    401: ("invalid_api_key", "key_revoked"),
                    403: ("insufficient_scope", "insufficient_role", "operator_only"),
                    404: ("not_found",),
                    409: ("conflict",),
                }[reply.status]
            )


async def test_a_member_manages_own_keys_and_no_others(office: Office) -> None:
    owner, member = await office.sign_in(), await office.sign_in()
    account_id = owner["account_id"]
    await office.ok("POST", "/v1/account/members", owner["token"], {"address": member["address"], "role": "member"})
    own = await office.ok("POST", "/v1/account/keys", member["token"], {"name": "mine"}, account=account_id)
    other = await office.ok("POST", "/v1/account/keys", owner["token"], {"name": "theirs"})
    made_by_operator = await office.ok("POST", "/v1/account/keys", office.admin, {"name": "o"}, account=account_id)
    for key, status in ((own, 200), (other, 403), (made_by_operator, 403)):
        for method, body in (("PATCH", {"name": "x"}), ("DELETE", None)):
            path = f"/v1/account/keys/{key['id']}"
            assert (await office.ask(method, path, member["token"], body, account=account_id)).status == status
    gone = await office.ask("DELETE", f"/v1/account/keys/{other['id']}", owner["token"])
    assert gone.status == 200


async def test_a_callers_own_account_is_all_it_sees(office: Office) -> None:
    mine, theirs = await office.sign_in(), await office.sign_in()
    key = await office.ok("POST", "/v1/account/keys", theirs["token"], {"name": "k"})
    assert (await office.ask("GET", "/v1/account", mine["token"], account=theirs["account_id"])).status == 404
    assert (await office.ask("DELETE", f"/v1/account/keys/{key['id']}", mine["token"])).status == 404
    assert (await office.ask("GET", "/v1/account/balance", key["secret"], account=mine["account_id"])).status == 404


async def test_an_inference_key_sees_its_own_receipts_only(office: Office) -> None:
    session = await office.sign_in()
    await office.give(session["account_id"], "1")
    keys = [
        await office.ok("POST", "/v1/account/keys", session["token"], {"name": "k", "scopes": ["inference"]})
        for _ in range(2)
    ]
    charge = await office.charge(keys[0]["secret"], 5_000)
    path = f"/v1/account/receipts/req_{charge.request_id.hex}"
    assert (await office.ok("GET", path, keys[0]["secret"]))["cost_nano"] == 5_000
    assert (await office.ask("GET", path, keys[1]["secret"])).status == 404
