import csv
import io
from typing import Any
from uuid import UUID

import pytest

from .conftest import NOW, TODAY, Office, Reply


def rows(reply: Reply) -> list[dict[str, str]]:
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(reply.body.decode())))


async def spender(office: Office, usd: str = "1") -> tuple[int, str]:
    account_id, secret = await office.local()
    await office.give(account_id, usd)
    return account_id, secret


async def test_a_charge_is_a_row_and_a_receipt(office: Office) -> None:
    _, secret = await spender(office)
    number = UUID(int=7)
    await office.charge(secret, 1_200_000, request=number)
    row = (await office.ok("GET", "/v1/account/usage", secret))["data"][0]
    assert row == {
        "request_id": f"req_{number.hex}",
        "at": "2027-01-15T08:00:00Z",
        "day": "2027-01-15",
        "key_id": (await office.services.identity.key(secret)).id,
        "key_name": "first",
        "model": "scripted-echo",
        "usage": {"input": 3, "output": 12_000},
        "price_version": 1,
        "cost": "0.0012",
        "cost_nano": 1_200_000,
        "held": "0.0012",
        "held_nano": 1_200_000,
        "absorbed": "0.00",
        "absorbed_nano": 0,
        "legs": [
            {"source": "promo", "grant_id": row["legs"][0]["grant_id"], "amount": "0.0012", "amount_nano": 1_200_000}
        ],
        "outcome": "complete",
        "estimated": False,
    }
    for name in (f"req_{number.hex}", number.hex):
        found = await office.ok("GET", f"/v1/account/receipts/{name}", secret)
        assert found.pop("signed")["receipt"]["request_id"] == row["request_id"]
        assert found == row
    missing = await office.ask("GET", f"/v1/account/receipts/req_{UUID(int=8).hex}", secret)
    assert missing.status == 404 and f"req_{UUID(int=8).hex}" in missing.error["message"]
    assert (await office.ask("GET", "/v1/account/receipts/nonsense", secret)).error["param"] == "receipt_id"


async def test_a_call_over_two_purses_names_both(office: Office) -> None:
    account_id, secret = await spender(office)
    office.allowance.daily_nano[account_id] = 300
    await office.allowance.refresh(account_id)
    await office.charge(secret, 1_000)
    row = (await office.ok("GET", "/v1/account/usage", secret))["data"][0]
    assert [(leg["source"], leg["amount_nano"]) for leg in row["legs"]] == [("allowance", 300), ("promo", 700)]
    group = (await office.ok("GET", "/v1/account/usage", secret, group_by="day"))["data"][0]
    assert group["by_source_nano"] == {"allowance": 300, "promo": 700}
    assert group["by_source"] == {"allowance": "0.0000003", "promo": "0.0000007"}


async def test_pages_neither_skip_nor_repeat_while_calls_come_in(office: Office) -> None:
    _, secret = await spender(office)
    costs = [1_000 + i for i in range(11)]
    for cost in costs:
        await office.charge(secret, cost)
    seen: list[int] = []
    cursor = None
    for page in range(10):
        read = await office.ok("GET", "/v1/account/usage", secret, limit=3, cursor=cursor)
        seen += [row["cost_nano"] for row in read["data"]]
        await office.charge(secret, 50_000 + page)
        cursor = read["next_cursor"]
        if cursor is None:
            break
    assert seen == costs[::-1]


async def test_csv_says_what_json_says(office: Office) -> None:
    account_id, secret = await spender(office)
    office.allowance.daily_nano[account_id] = 1_500
    await office.allowance.refresh(account_id)
    for cost in (1_000, 1_000, 70_000_000):
        await office.charge(secret, cost)
    data = (await office.ok("GET", "/v1/account/usage", secret))["data"]
    sheet = rows(await office.ask("GET", "/v1/account/usage", secret, format="csv"))
    assert [plain(row) for row in data] == sheet
    by_key = (await office.ok("GET", "/v1/account/usage", secret, group_by="key"))["data"]
    groups = rows(await office.ask("GET", "/v1/account/usage", secret, group_by="key", format="csv"))
    assert len(groups) == len(by_key) == 1
    for name in ("group", "key_name", "calls", "cost_nano"):
        assert groups[0][name] == str(by_key[0][name])
    assert groups[0]["output"] == str(by_key[0]["usage"]["output"])
    assert groups[0]["allowance_usd"] == by_key[0]["by_source"]["allowance"] == "0.0000015"
    assert groups[0]["prepaid_usd"] == "0.00"


def plain(row: dict[str, Any]) -> dict[str, str]:
    """A JSON row as CSV has it."""
    paid = {leg["source"]: leg["amount"] for leg in row["legs"]}
    names = ("at", "day", "request_id", "key_id", "key_name", "model")
    units = ("input", "cached_input", "cache_write", "cache_write_1h", "input_audio", "cached_audio")
    units += ("output", "reasoning", "output_audio")
    return {
        **{name: str(row[name]) for name in names},
        **{unit: str(row["usage"].get(unit, 0)) for unit in units},
        "cost_usd": row["cost"],
        "cost_nano": str(row["cost_nano"]),
        **{f"{source}_usd": paid.get(source, "0.00") for source in ("allowance", "strip", "promo", "prepaid")},
        "absorbed_usd": row["absorbed"],
        "outcome": row["outcome"],
        "estimated": str(row["estimated"]).lower(),
        "price_version": str(row["price_version"]),
    }


async def test_csv_exports_everything_unless_a_limit_is_given(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.gateway.account.usage._A_PAGE", 2)
    _, secret = await spender(office)
    for cost in range(1_000, 1_007):
        await office.charge(secret, cost)
    whole = await office.ask("GET", "/v1/account/usage", secret, format="csv")
    assert [row["cost_nano"] for row in rows(whole)] == [str(cost) for cost in range(1_006, 999, -1)]
    part = await office.ask("GET", "/v1/account/usage", secret, format="csv", limit=3)
    rest = await office.ask("GET", "/v1/account/usage", secret, format="csv", cursor=part.headers["x-next-cursor"])
    assert rows(part) + rows(rest) == rows(whole)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
async def test_a_keys_name_is_no_formula_in_a_spreadsheet(office: Office, name: str) -> None:
    account_id, _ = await spender(office)
    made = await office.ok("POST", "/v1/account/keys", office.admin, {"name": name}, account=account_id)
    await office.charge(made["secret"], 1_000, model="=model")
    row = rows(await office.ask("GET", "/v1/account/usage", made["secret"], format="csv"))[0]
    assert (row["key_name"], row["model"]) == (f"'{name}", "'=model")
    grouped = rows(await office.ask("GET", "/v1/account/usage", made["secret"], format="csv", group_by="key"))
    assert grouped[0]["key_name"] == f"'{name}"


async def test_rows_are_chosen_by_time_key_and_model(office: Office) -> None:
    account_id, first = await spender(office)
    second = (await office.ok("POST", "/v1/account/keys", office.admin, {"name": "b"}, account=account_id))["secret"]
    await office.charge(first, 1_000)
    await office.services.ledger.set_time(NOW + 3_600, opened_day=TODAY.number)
    await office.charge(second, 2_000, model="other")
    key_id = (await office.services.identity.key(second)).id

    async def costs(**query: Any) -> list[int]:
        read = await office.ok("GET", "/v1/account/usage", first, **query)
        return [row["cost_nano"] for row in read["data"]]

    assert await costs() == [2_000, 1_000]
    assert await costs(from_="2027-01-15T09:00:00Z") == [2_000]
    assert await costs(to="2027-01-15T10:00:00+01:00") == [1_000]
    assert await costs(from_="2027-01-15", to="2027-01-16") == [2_000, 1_000]
    assert await costs(from_="2027-01-16") == []
    assert await costs(key_id=key_id) == [2_000]
    assert await costs(model="scripted-echo") == [1_000]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("day", {"2027-01-15T00:00:00Z": 6_000, "2027-01-16T00:00:00Z": 4_000}),
        ("hour", {"2027-01-15T08:00:00Z": 1_000, "2027-01-15T09:00:00Z": 5_000, "2027-01-16T00:00:00Z": 4_000}),
        ("model", {"scripted-echo": 7_000, "other": 3_000}),
        ("key", {"first": 5_000, "b": 5_000}),
    ],
)
async def test_usage_adds_up_by(office: Office, by: str, groups: dict[str, int]) -> None:
    account_id, first = await spender(office)
    second = (await office.ok("POST", "/v1/account/keys", office.admin, {"name": "b"}, account=account_id))["secret"]
    await office.charge(first, 1_000)
    await office.services.ledger.set_time(NOW + 3_600, opened_day=TODAY.number)
    await office.charge(second, 2_000)
    await office.charge(second, 3_000, model="other")
    await office.services.ledger.set_time(TODAY.end_s, opened_day=TODAY.number + 1)
    await office.charge(first, 4_000)
    read = (await office.ok("GET", "/v1/account/usage", first, group_by=by))["data"]
    name = "key_name" if by == "key" else "group"
    assert {row[name]: row["cost_nano"] for row in read} == groups
    assert sum(row["calls"] for row in read) == 4
    assert sum(row["usage"]["output"] for row in read) == 100


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"group_by": "week"}, "group_by"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"cursor": "zzz"}, "cursor"),
        ({"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5Ljk="}, "cursor"),
        ({"from": "yesterday"}, "from"),
        ({"format": "xml"}, "format"),
        ({"group_by": "day", "cursor": "a"}, "group_by"),
    ],
)
async def test_a_wrong_question_names_the_field(office: Office, query: dict[str, Any], param: str) -> None:
    _, secret = await spender(office)
    reply = await office.ask("GET", "/v1/account/usage", secret, **query)
    assert (reply.status, reply.error["param"]) == (400, param)
