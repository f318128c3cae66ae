"""Signed receipts, their proofs and closed days, over the account API."""

from typing import Any

import pytest

from freehold.clock import Day
from freehold.ledger import jobs as ledger_jobs
from freehold.receipts import wire

from .conftest import TODAY, Office


async def spent(office: Office, *costs: int) -> tuple[int, str, list[str]]:
    """An account with so many calls: its id, its key, the receipts' names."""
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    charges = [await office.charge(secret, cost) for cost in costs]
    return account_id, secret, [f"req_{charge.request_id.hex}" for charge in charges]


async def tomorrow(office: Office) -> None:
    day = TODAY.next()
    await office.services.ledger.set_time(day.start_s + 1, opened_day=day.number)
    await ledger_jobs.once(office.services.ledger)
    assert office.services.receipts is not None
    assert await office.services.receipts.close_next() is not None


async def test_a_receipt_is_signed_at_once_and_proven_once_its_day_is_closed(office: Office) -> None:
    _, secret, (name, other) = await spent(office, 1_000, 2_000)
    before = await office.ok("GET", f"/v1/account/receipts/{name}", secret)
    domain, signed = wire.read(before["signed"])
    assert (domain.operator, signed.receipt.cost_nano) == ("0x" + "33" * 20, 1_000)
    assert signed.signature is not None and signed.root is None
    refused = await office.ask("GET", f"/v1/account/receipts/{name}/proof", secret)
    assert (refused.status, refused.error["code"]) == (409, "conflict")
    assert "isn't closed" in refused.error["message"] and refused.headers["retry-after"] == "60"
    await tomorrow(office)
    after = await office.ok("GET", f"/v1/account/receipts/{name}", secret)
    proof = await office.ok("GET", f"/v1/account/receipts/{name}/proof", secret)
    assert proof["hash"] == before["signed"]["hash"] == after["signed"]["hash"]
    assert after["signed"]["proof"] == {"root": proof["root"], "siblings": proof["siblings"]}
    assert len(proof["siblings"]) == 1
    theirs = await office.ok("GET", f"/v1/account/receipts/{other}/proof", secret)
    assert theirs["root"] == proof["root"] and theirs["siblings"] != proof["siblings"]


async def test_a_closed_day_tells_its_root_count_totals_and_signature(office: Office) -> None:
    await spent(office, 1_000, 2_000)
    name = str(TODAY)
    assert (await office.ask("GET", f"/v1/epochs/{name}")).status == 404
    await tomorrow(office)
    day = await office.ok("GET", f"/v1/epochs/{name}")
    assert (day["day"], day["number"], day["count"]) == (name, TODAY.number, 2)
    assert day["totals"]["promo"] == {
        "opening": "0.00",
        "opening_nano": 0,
        "granted": "1.00",
        "granted_nano": 10**9,
        "used": "0.000003",
        "used_nano": 3_000,
        "expired": "0.00",
        "expired_nano": 0,
        "closing": "0.999997",
        "closing_nano": 10**9 - 3_000,
    }
    assert len(day["signature"]) == 132 and day["signer"].startswith("0x")
    assert (day["published"], day["published_root"]) == (False, None)
    assert await office.ok("GET", f"/v1/epochs/{TODAY.number}") == day
    assert await office.ok("GET", "/v1/epochs") == {"data": [day], "next_before": None}
    assert (await office.ok("GET", "/v1/epochs", before=name))["data"] == []


@pytest.mark.parametrize("path", ["/v1/epochs/yesterday", "/v1/epochs?before=2027-13-01", "/v1/epochs/99999999"])
async def test_what_is_no_day_is_refused(office: Office, path: str) -> None:
    assert (await office.raw("GET", path)).status == 400


async def test_a_months_receipts_come_in_pages_without_a_gap(office: Office) -> None:
    _, secret, names = await spent(office, *range(1_000, 1_007))
    seen: list[Any] = []
    cursor = None
    while True:
        page = await office.ok("GET", "/v1/account/receipts", secret, month=str(TODAY)[:7], limit=3, cursor=cursor)
        seen += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [row["receipt"]["request_id"] for row in seen] == names
    for row in seen:
        wire.read(row)
    assert (await office.ok("GET", "/v1/account/receipts", secret, month="2027-02"))["data"] == []
    broken = await office.ask("GET", "/v1/account/receipts", secret, month="2027-01", cursor="x-y")
    assert (broken.status, broken.error["param"]) == (400, "cursor")


async def test_another_accounts_receipt_is_not_shown(office: Office) -> None:
    _, _, (name,) = await spent(office, 1_000)
    _, stranger = await office.local("other")
    for path in (f"/v1/account/receipts/{name}", f"/v1/account/receipts/{name}/proof"):
        assert (await office.ask("GET", path, stranger)).status == 404
    assert (await office.ok("GET", "/v1/account/receipts", stranger, month=str(Day(TODAY.number))[:7]))["data"] == []
