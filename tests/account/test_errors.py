"""Nothing that is sent is answered by a fault: every refusal has OpenAI's shape and names the field."""

import copy
import json
from typing import Any

import pytest

from freehold.gateway.account.application import describe

from .conftest import Office, segment

WRONG: list[Any] = [
    None, True, -1, 0, 1.5, 2**31, 2**63, 2**70, 1e308, float("nan"), "", " ", "x", "x" * 9_000, "0", "-1", "1e9",
    "NaN", "\x00", "a\x00b", "a\ud800b", "ü😀", "'; drop table x; --", "../..", "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00Z", "2027-13-01", "१२", [], [None], [[]], ["x"] * 200, {}, {"a": 1},
]  # fmt: skip
GOOD = {
    "name": "n", "address": "0x" + "1" * 40, "message": "m", "signature": "0x", "role": "viewer", "account_id": 1,
    "amount": "1", "amount_usd": "1", "id": "i", "input_usd_per_million": "1", "model": "scripted-echo",
}  # fmt: skip


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """The account API's; calls of models are the door's, which tests/gateway asks."""
    return [
        (verb.upper(), path, operation)
        for path, verbs in describe()["paths"].items()
        for verb, operation in verbs.items()
        if operation["tags"] != ["inference"]
    ]


def fields(operation: dict[str, Any]) -> tuple[list[str], list[str]]:
    """A body's fields, and those of them that must be there."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return [], []
    name = content["schema"]["$ref"].rpartition("/")[2]
    schema = describe()["components"]["schemas"][name]
    return list(schema["properties"]), schema.get("required", [])


@pytest.mark.parametrize(("method", "path", "operation"), operations(), ids=lambda x: x if isinstance(x, str) else "")
async def test_no_value_of_any_field_is_a_fault(
    office: Office, method: str, path: str, operation: dict[str, Any]
) -> None:
    account_id, secret = await office.local()
    token = secret if path == "/v1/account/key" else office.admin
    names, required = fields(operation)
    good = {name: GOOD[name] for name in required}
    here = path.format_map(
        {"user_id": 1, "key_id": 1, "receipt_id": "req_" + "0" * 32, "account_id": account_id, "model": "m", "day": 1}
    )
    account = f"?account={account_id}" if path.startswith("/v1/account") and token is office.admin else ""
    places = [name.get("name") for name in operation.get("parameters", []) if name["in"] == "path"]
    queries = [name.get("name") for name in operation.get("parameters", []) if name["in"] == "query"]

    async def probe(target: str, body: Any) -> None:
        sent = b"" if body is None and not names else json.dumps(body).encode()
        reply = await office.raw(method, target, token, sent)
        said = (method, target, body, reply.body)
        assert reply.status < 500, said
        if reply.status >= 400:
            assert reply.error["code"], said

    for wrong in WRONG:
        text = segment(wrong if isinstance(wrong, str) and "\ud800" not in wrong else json.dumps(wrong))[:2_000]
        for name in names:
            await probe(here + account, {**copy.deepcopy(good), name: wrong})
        for name in queries:
            await probe(f"{here}?{name}={text}" + account.replace("?", "&"), good)
        for name in places:
            await probe(path.replace(f"{{{name}}}", text or "x").format_map({"receipt_id": "x"}) + account, good)
        if names:
            await probe(here + account, wrong)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name": }',
        b"\xff\xfe",
        b"[" * 5_000,
        b"null",
        b'{"name": "a", "name": "\\ud800"}',
        b'{"name": NaN}',
    ],
)
async def test_a_malformed_body_is_named(office: Office, body: bytes) -> None:
    reply = await office.raw("POST", "/v1/admin/accounts", office.admin, body)
    assert (reply.status, reply.error["code"]) == (400, "invalid_request")


async def test_a_wrong_field_and_a_misspelt_one_are_named(office: Office) -> None:
    account_id, _ = await office.local()
    body = {"account_id": account_id, "amount_usd": "much", "id": "a"}
    wrong = await office.ask("POST", "/v1/admin/grants", office.admin, body)
    assert (wrong.status, wrong.error["param"]) == (400, "amount_usd")
    assert wrong.error["message"] == "amount_usd: USD amount 'much' is not a plain decimal number, such as 12.5."
    misspelt = await office.ask("POST", "/v1/admin/grants", office.admin, {**body, "amount_usd": "1", "expiry": 3})
    assert misspelt.error["message"] == "expiry is not a field of this request."
    missing = await office.ask("POST", "/v1/admin/grants", office.admin, {"amount_usd": "1", "id": "a"})
    assert (missing.error["message"], missing.error["param"]) == ("account_id is missing.", "account_id")


async def test_an_unknown_route_and_a_wrong_method_are_refused(office: Office) -> None:
    unknown = await office.ask("GET", "/v1/accounts")
    assert (unknown.status, unknown.error["code"]) == (404, "not_found")
    assert "/openapi.json" in unknown.error["message"]
    wrong = await office.ask("PUT", "/v1/account/balance")
    assert (wrong.status, wrong.error["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "GET")


async def test_a_body_that_is_too_long_is_not_read(office: Office) -> None:
    told = await office.raw("POST", "/v1/auth/nonce", body=b"{}", headers={"content-length": str(50_000_000)})
    assert (told.status, told.error["code"]) == (413, "request_too_large")
    untold = await office.raw("POST", "/v1/auth/nonce", body=b" " * 70_000, headers={"content-length": "0"})
    assert (untold.status, untold.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("sent", ["", "Basic abc", "Bearer", "Bearer ", "Bearer sk-other", "bearer fh_", "fh_x"])
async def test_credentials_of_another_form_are_refused(office: Office, sent: str) -> None:
    reply = await office.raw("GET", "/v1/account", headers={"authorization": sent} if sent else {})
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["x-should-retry"] == "false"


async def test_a_fault_shows_a_request_id_and_nothing_else(office: Office) -> None:
    account_id, _ = await office.local()
    await office.services.database.execute("alter table identity.members rename to elsewhere")
    reply = await office.ask("GET", "/v1/account", office.admin, account=account_id)
    assert (reply.status, reply.error["code"]) == (500, "server_error")
    assert reply.headers["x-request-id"] in reply.error["message"]
    assert "elsewhere" not in reply.body.decode() and "members" not in reply.body.decode()


async def test_every_answer_has_a_request_id_and_is_not_cached(office: Office) -> None:
    for path in ("/healthz", "/v1/account", "/nowhere"):
        reply = await office.ask("GET", path)
        assert reply.headers["x-request-id"].startswith("req_")
        assert reply.headers["cache-control"] == "no-store"
