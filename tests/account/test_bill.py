"""A month's bill over HTTP: JSON, CSV and a page."""

import csv
import io
from html.parser import HTMLParser
from typing import Any

import pytest

from freehold.clock import DAY_S, Month
from freehold.ledger.model import FOREVER_S, Charge, Source

from .conftest import NOW, TODAY, Office

JANUARY = Month.of(NOW)
TX = "0x" + "ab" * 32


async def busy(office: Office) -> tuple[int, str, list[Charge]]:
    """An account with an allowance, a deposit and a gift; calls that one purse or two paid."""
    account_id, secret = await office.local("Ann & <b>Co</b>")
    office.allowance.daily_nano[account_id] = 300
    await office.allowance.refresh(account_id)
    name = f"evt:402031:0x{'cd' * 32}:{TX}:4"
    await office.services.ledger.grant(
        account_id, Source.PREPAID, 5_000_000_001, name, starts_at_s=NOW, expires_at_s=FOREVER_S
    )
    made = [await office.charge(secret, cost) for cost in (100, 1_000, 7)]
    made.append(await office.charge(secret, 1, model="=cmd()|x"))
    return account_id, secret, made


async def text(office: Office, secret: str, form: str, **query: str) -> tuple[dict[str, str], str]:
    reply = await office.ask("GET", "/v1/account/bill", secret, format=form, **query)
    assert reply.status == 200
    return dict(reply.headers), reply.body.decode()


async def test_a_bill_has_every_sum_of_its_month(office: Office) -> None:
    account_id, secret, made = await busy(office)
    read = await office.ok("GET", "/v1/account/bill", secret)
    assert (read["account_id"], read["month"], read["final"], read["calls"]) == (account_id, "2027-01", False, 4)
    assert (read["starts_at"], read["ends_at"]) == ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z")
    assert read["used_nano"] == sum(charge.cost_nano for charge in made) == 1_108
    purses = {purse["source"]: purse for purse in read["purses"]}
    assert (purses["allowance"]["granted_nano"], purses["allowance"]["used_nano"]) == (300, 300)
    assert (purses["prepaid"]["granted"], purses["prepaid"]["used_nano"]) == ("5.000000001", 808)
    assert read["closing_nano"] == 5_000_000_001 - 808
    assert read["top_ups"] == [
        {
            "at": "2027-01-15T08:00:00Z",
            "reference": f"evt:402031:0x{'cd' * 32}:{TX}:4",
            "transaction": TX,
            "amount": "5.000000001",
            "amount_nano": 5_000_000_001,
        }
    ]
    groups = {by: {row["group"]: (row["calls"], row["cost_nano"]) for row in read[f"by_{by}"]} for by in BY}
    assert groups["day"] == {"2027-01-15": (4, 1_108)}
    assert groups["model"] == {"=cmd()|x": (1, 1), "scripted-echo": (3, 1_107)}
    assert groups["purse"] == {"allowance": (2, 300), "prepaid": (2, 808)}
    assert [(row["key_name"], row["calls"]) for row in read["by_key"]] == [("first", 4)]
    assert sum(line["cost_nano"] for line in read["lines"]) == read["used_nano"]
    assert (read["absorbed_nano"], read["absorbed_by_cause"]) == (0, [])


BY = ("day", "model", "key", "purse")


async def test_a_month_that_is_over_is_final_and_the_next_one_opens_with_its_balance(office: Office) -> None:
    _, secret, _ = await busy(office)
    await office.services.ledger.set_time(JANUARY.end_s + DAY_S, opened_day=TODAY.number)
    january = await office.ok("GET", "/v1/account/bill", secret, month="2027-01")
    february = await office.ok("GET", "/v1/account/bill", secret)
    assert (january["final"], february["final"]) == (True, False)
    assert february["month"] == "2027-02"
    assert february["opening_nano"] == january["closing_nano"]
    assert (february["calls"], february["used_nano"], february["lines"]) == (0, 0, [])


async def test_what_the_operator_bore_is_shown_as_not_billed(office: Office) -> None:
    _, secret = await office.local()
    account = (await office.services.identity.key(secret)).account_id
    await office.give(account, "0.00000001")
    await office.charge(secret, 10, came_to_nano=25)
    read = await office.ok("GET", "/v1/account/bill", secret)
    assert (read["used_nano"], read["absorbed_nano"]) == (10, 15)
    assert read["absorbed_by_cause"] == [{"cause": "overage", "amount": "0.000000015", "amount_nano": 15}]
    assert "Not billed" in (await text(office, secret, "html"))[1]
    assert "not billed: overage" in (await text(office, secret, "csv"))[1]


@pytest.mark.parametrize("month", ["2027-13", "2027-1", "now", "", "2027-02", "9999-01", "2027-01-01"])
async def test_a_month_that_is_none_or_has_not_begun_is_refused(office: Office, month: str) -> None:
    _, secret = await office.local()
    reply = await office.ask("GET", "/v1/account/bill", secret, month=month)
    assert (reply.status, reply.error["param"]) == (400, "month")


async def test_a_bill_needs_a_reader_of_this_account(office: Office) -> None:
    account_id, _, _ = await busy(office)
    _, other = await office.local("other")
    assert (await office.ask("GET", "/v1/account/bill")).status == 401
    assert (await office.ok("GET", "/v1/account/bill", other))["calls"] == 0
    limited = {"name": "calls only", "scopes": ["inference"]}
    made = await office.ok("POST", f"/v1/admin/accounts/{account_id}/keys", office.admin, limited)
    assert (await office.ask("GET", "/v1/account/bill", made["secret"])).status == 403
    assert (await office.ok("GET", "/v1/account/bill", office.admin, account=account_id))["calls"] == 4


async def test_the_rows_of_the_csv_sum_to_the_closing_balances_and_run_no_formula(office: Office) -> None:
    _, secret, _ = await busy(office)
    headers, body = await text(office, secret, "csv")
    assert headers["content-type"] == "text/csv; charset=utf-8"
    assert headers["content-disposition"] == 'attachment; filename="bill-2027-01.csv"'
    rows = list(csv.DictReader(io.StringIO(body)))
    closing = sum(int(row["amount_nano"]) for row in rows if row["what"].startswith("closing"))
    moved = sum(int(row["amount_nano"]) for row in rows if not row["what"].startswith(("closing", "not billed")))
    assert closing == moved == 5_000_000_001 - 808
    assert {row["what"] for row in rows if row["what"].startswith("closing")} == {"closing so far"}
    charges = [row for row in rows if row["what"] == "charge"]
    assert sum(int(row["calls"]) for row in charges) == 4
    assert "'=cmd()|x" in {row["model"] for row in charges}
    assert all(row["amount_usd"].startswith("-0.") for row in charges)
    assert [row["transaction"] for row in rows if row["what"] == "top-up"] == [TX]


class Page(HTMLParser):
    """The tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_page_needs_nothing_else_and_escapes_names(office: Office) -> None:
    _, secret, _ = await busy(office)
    headers, body = await text(office, secret, "html")
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    page = Page(body)
    assert {tag for tag, _ in page.tags}.isdisjoint({"b", "script", "link", "img", "iframe"})
    assert not {"src", "href"} & {name for _, attributes in page.tags for name in attributes}
    assert "url(" not in body
    assert "Ann & <b>Co</b>" in page.text
    assert "Bill of 2027-01 so far" in page.text
    for shown in ("5.000000001", TX, "0.000001108", "scripted-echo", "=cmd()|x"):
        assert shown in page.text
    bars = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert [bar["class"] for bar in bars] == ["allowance", "prepaid"]
    tops = [(int(bar["y"]), int(bar["height"])) for bar in bars]
    assert tops[0][0] + tops[0][1] == 180 and tops[1][0] + tops[1][1] == tops[0][0]


async def test_an_empty_month_is_a_page_and_a_table_too(office: Office) -> None:
    _, secret = await office.local()
    page = Page((await text(office, secret, "html", month="2026-12"))[1])
    assert "Bill of 2026-12" in page.text and "so far" not in page.text
    assert not [tag for tag, _ in page.tags if tag == "svg"]
    rows = list(csv.DictReader(io.StringIO((await text(office, secret, "csv", month="2026-12"))[1])))
    assert {row["amount_nano"] for row in rows} == {"0"}
    assert (await office.ok("GET", "/v1/account/bill", secret, month="1970-01"))["closing"] == "0.00"


async def test_what_expired_and_what_a_reorg_took_is_on_the_bill_and_in_the_csv(office: Office) -> None:
    account_id, secret = await office.local()
    ledger = office.services.ledger
    await ledger.grant(account_id, Source.PREPAID, 1_000, "evt:1:b:t:0", starts_at_s=NOW, expires_at_s=FOREVER_S)
    await office.charge(secret, 600)
    await ledger.reverse(account_id, "evt:1:b:t:0", 0, "reorg")
    await ledger.grant(account_id, Source.PROMO, 50, "short", starts_at_s=NOW, expires_at_s=NOW + 60)
    await ledger.set_time(NOW + 120, opened_day=TODAY.number)
    await ledger.expire()
    read = await office.ok("GET", "/v1/account/bill", secret)
    purses = {purse["source"]: purse for purse in read["purses"]}
    assert (purses["prepaid"]["reversed_nano"], purses["promo"]["expired_nano"]) == (400, 50)
    assert read["absorbed_by_cause"] == [{"cause": "reorg", "amount": "0.0000006", "amount_nano": 600}]
    rows = list(csv.DictReader(io.StringIO((await text(office, secret, "csv"))[1])))
    shown = {(row["what"], row["purse"]): int(row["amount_nano"]) for row in rows}
    assert (shown["reversed", "prepaid"], shown["expired", "promo"]) == (-400, -50)
