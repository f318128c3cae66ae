import asyncio
from typing import Any

import pytest

from freehold.ledger.model import Difference
from freehold.ledger.problems import StalePrice
from freehold.upstream.model import Kind, Model
from freehold.upstream.scripted import Scripted

from .conftest import NOW, TODAY, Office

PRICE = {"input_usd_per_million": "0.2", "output_usd_per_million": "0.8", "label": "new"}


async def test_a_local_account_comes_with_a_key_that_works(office: Office) -> None:
    made = await office.ok("POST", "/v1/admin/accounts", office.admin, {"name": " team blue "})
    account = made["account"]
    assert (account["name"], account["kind"]) == ("team blue", "local")
    assert (await office.ok("GET", "/v1/account", made["secret"]))["address"] == account["address"]
    assert (await office.ok("GET", "/v1/admin/accounts", office.admin))["data"] == [account]
    more = await office.ok("POST", f"/v1/admin/accounts/{account['id']}/keys", office.admin, {"name": "second"})
    assert (await office.ok("GET", "/v1/account/key", more["secret"]))["name"] == "second"
    missing = await office.ask("POST", f"/v1/admin/accounts/{account['id'] + 1}/keys", office.admin, {"name": "k"})
    assert missing.status == 404


async def test_accounts_are_listed_in_pages(office: Office) -> None:
    ids = [(await office.local(f"a{i}"))[0] for i in range(5)]
    seen: list[int] = []
    after = 0
    while after is not None:
        page = await office.ok("GET", "/v1/admin/accounts", office.admin, after=after, limit=2)
        seen += [row["id"] for row in page["data"]]
        after = page["next_after"]
    assert seen == ids


async def test_credit_is_given_once_for_an_id(office: Office) -> None:
    account_id, secret = await office.local()
    body = {"account_id": account_id, "amount_usd": "2.5", "expires_in_days": 30, "id": "welcome"}
    given = await asyncio.gather(*(office.ok("POST", "/v1/admin/grants", office.admin, body) for _ in range(3)))
    assert {grant["id"] for grant in given} == {given[0]["id"]}
    assert (given[0]["source"], given[0]["amount"], given[0]["external_id"]) == ("promo", "2.50", "promo:welcome")
    assert given[0]["expires_at"] == "2027-02-14T08:00:00Z"
    await office.services.ledger.set_time(1_800_000_900, opened_day=20_833)
    again = await office.ok("POST", "/v1/admin/grants", office.admin, body)
    assert again == given[0]
    assert (await office.ok("GET", "/v1/account/balance", secret))["available"] == "2.50"


@pytest.mark.parametrize("change", [{"amount_usd": "3"}, {"expires_in_days": 31}, {"expires_in_days": None}])
async def test_an_id_used_for_another_grant_is_refused(office: Office, change: dict[str, Any]) -> None:
    account_id, secret = await office.local()
    body = {"account_id": account_id, "amount_usd": "2.5", "expires_in_days": 30, "id": "welcome"}
    await office.ok("POST", "/v1/admin/grants", office.admin, body)
    await office.services.ledger.set_time(1_800_000_900, opened_day=20_833)
    reply = await office.ask("POST", "/v1/admin/grants", office.admin, {**body, **change})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (409, "conflict", "id")
    assert (await office.ok("GET", "/v1/account/balance", secret))["available"] == "2.50"


async def test_credit_without_an_end_does_not_end(office: Office) -> None:
    account_id, _ = await office.local()
    assert (await office.give(account_id, "1"))["expires_at"] is None
    reply = await office.ask(
        "POST", "/v1/admin/grants", office.admin, {"account_id": account_id, "amount_usd": "0", "id": "none"}
    )
    assert (reply.status, reply.error["param"]) == (400, "amount_usd")
    missing = {"account_id": account_id + 1, "amount_usd": "1", "id": "x"}
    assert (await office.ask("POST", "/v1/admin/grants", office.admin, missing)).status == 404


async def test_a_new_price_is_a_new_version_that_the_ledger_asks_for(office: Office) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    made = await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, PRICE)
    assert made["version"] == 2 and made["output_usd_per_million"] == "0.80"
    assert made["output_nano_per_million"] == 800_000_000
    book = await office.ok("GET", "/v1/prices")
    assert book["version"] == 2 and book["data"][0]["label"] == "new"
    assert book["data"][0]["cached_input_usd_per_million"] == "0.20"
    old = await office.ok("GET", "/v1/prices", version=1)
    assert old["data"][0]["output_usd_per_million"] == "0.40"
    history = await office.ok("GET", "/v1/prices/scripted-echo/history")
    assert [(row["version"], row["input_usd_per_million"]) for row in history["data"]] == [(1, "0.10"), (2, "0.20")]
    await office.charge(secret, 1_000)


async def test_a_call_priced_by_the_old_book_is_sent_back(office: Office) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    old = office.services.prices.current()
    await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, PRICE)
    office.services.prices._current = old
    with pytest.raises(StalePrice):
        await office.charge(secret, 1_000)


async def test_the_same_price_again_adds_no_version(office: Office) -> None:
    first = await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, PRICE)
    again = await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, PRICE)
    assert first["version"] == again["version"] == 2


async def test_a_model_with_a_slash_has_a_price_and_a_history(office: Office) -> None:
    body = {"input_usd_per_million": "1"}
    await office.ok("PUT", "/v1/admin/prices/meta/llama-3", office.admin, body, force="true")
    history = await office.ok("GET", "/v1/prices/meta/llama-3/history")
    assert history["data"][0]["output_usd_per_million"] == "1.00"


async def test_a_model_that_nobody_serves_is_priced_only_by_force_and_near_names_are_told(office: Office) -> None:
    refused = await office.ask("PUT", "/v1/admin/prices/scripted-ecco", office.admin, PRICE)
    assert (refused.status, refused.error["code"], refused.error["param"]) == (404, "model_not_found", "model")
    assert "Near names: scripted-echo" in refused.error["message"] and "--force" in refused.error["message"]
    assert (await office.ok("GET", "/v1/prices"))["version"] == 1
    await office.ok("PUT", "/v1/admin/prices/scripted-ecco", office.admin, PRICE, force="true")
    again = await office.ok("PUT", "/v1/admin/prices/scripted-ecco", office.admin, {**PRICE, "label": "known now"})
    assert again["version"] == 3


async def test_a_price_has_a_rate_for_each_unit_and_tiers(office: Office) -> None:
    sent = {
        "input_usd_per_million": "3",
        "cached_input_usd_per_million": "0.3",
        "cache_write_usd_per_million": "3.75",
        "output_usd_per_million": "15",
        "tiers": [{"above_tokens": 200_000, "input_usd_per_million": "6", "output_usd_per_million": "22.5"}],
    }
    made = await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, sent)
    assert made["reasoning_usd_per_million"] == "15.00" and made["cache_write_1h_usd_per_million"] == "3.75"
    (tier,) = made["tiers"]
    assert (tier["above_tokens"], tier["input_usd_per_million"], tier["reasoning_nano_per_million"]) == (
        200_000,
        "6.00",
        22_500_000_000,
    )
    assert tier["cached_input_usd_per_million"] == "0.30"
    body = {"model": "scripted-echo", "input_tokens": 1, "cached_input_tokens": 200_000, "reasoning_tokens": 10}
    quote = await office.ok("POST", "/v1/price", body=body)
    assert quote["cost_nano"] == 6_000 + 200_000 * 300 + 10 * 22_500
    for lie in ([{"above_tokens": 5}], [{**sent["tiers"][0], "above_tokens": n} for n in (2, 1)]):
        refused = await office.ask("PUT", "/v1/admin/prices/scripted-echo", office.admin, {**sent, "tiers": lie})
        assert (refused.status, refused.error["param"]) == (400, "tiers")


async def test_a_price_for_later_is_announced_and_begins_by_ledger_time(office: Office) -> None:
    later = {**PRICE, "effective_at": "2027-01-15T09:00:00Z"}
    made = await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, later)
    assert (made["version"], made["effective_at"]) == (2, "2027-01-15T09:00:00Z")
    book = await office.ok("GET", "/v1/prices")
    assert (book["version"], book["data"][0]["input_usd_per_million"]) == (1, "0.10")
    (coming,) = book["coming"]
    assert (coming["model"], coming["version"], coming["input_usd_per_million"]) == ("scripted-echo", 2, "0.20")
    await office.services.ledger.set_time(NOW + 3_600, opened_day=TODAY.number)
    book = await office.ok("GET", "/v1/prices")
    assert (book["version"], book["data"][0]["input_usd_per_million"], book["coming"]) == (2, "0.20", [])
    assert book["effective_at"] == "2027-01-15T09:00:00Z"
    past = await office.ask("PUT", "/v1/admin/prices/scripted-echo", office.admin, later)
    assert (past.status, past.error["param"]) == (400, "effective_at")


async def test_a_price_written_anew_behind_a_change_stands_in_its_history_once(office: Office) -> None:
    later = {**PRICE, "effective_at": "2027-01-15T09:00:00Z"}
    await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, later)
    await office.ok("PUT", "/v1/admin/prices/scripted-exact", office.admin, PRICE)
    history = await office.ok("GET", "/v1/prices/scripted-echo/history")
    assert [(row["version"], row["effective_at"]) for row in history["data"]] == [
        (1, "1970-01-01T00:00:00Z"),
        (4, "2027-01-15T09:00:00Z"),
    ]


async def test_two_versions_differ_rate_by_rate(office: Office) -> None:
    await office.ok("PUT", "/v1/admin/prices/scripted-echo", office.admin, {**PRICE, "output_usd_per_million": "0.4"})
    await office.ok("PUT", "/v1/admin/prices/scripted-exact", office.admin, {"input_usd_per_million": "1"})
    found = await office.ok("GET", "/v1/prices/diff", from_=1)
    assert (found["before"], found["after"]) == ("version 1", "version 3")
    assert [
        (row["model"], row["unit"], row["before_usd_per_million"], row["after_usd_per_million"])
        for row in found["data"]
    ] == [
        ("scripted-echo", "input", "0.10", "0.20"),
        ("scripted-exact", "input", None, "1.00"),
    ]
    assert [row["model"] for row in (await office.ok("GET", "/v1/prices/diff"))["data"]] == ["scripted-exact"]
    assert (await office.ask("GET", "/v1/prices/diff", from_=9)).error["param"] == "version"


async def test_the_book_is_compared_with_what_is_published_for_the_models_served(office: Office) -> None:
    served = Model("mini", Kind.CHAT, 128_000, 16_000, "gpt-4o-mini")
    office.services.catalogue.replace([Scripted(models=[served])])
    await office.ok("PUT", "/v1/admin/prices/mini", office.admin, {"input_usd_per_million": "0.15"})
    found = await office.ok("GET", "/v1/admin/prices/published", office.admin)
    assert found["before"] == "version 2" and found["after"].startswith("genai-prices ")
    assert {row["model"] for row in found["data"]} == {"mini"}
    assert {row["unit"]: row["after_usd_per_million"] for row in found["data"]}["output"] == "0.60"
    assert "input" not in {row["unit"] for row in found["data"]}


async def test_what_a_call_would_cost_is_what_it_costs(office: Office) -> None:
    body = {"model": "scripted-echo", "input_tokens": 7, "output_tokens": 3}
    quote = await office.ok("POST", "/v1/price", body=body)
    assert quote == {"model": "scripted-echo", "price_version": 1, "cost": "0.0000019", "cost_nano": 1_900}
    missing = await office.ask("POST", "/v1/price", body={"model": "gpt"})
    assert (missing.status, missing.error["code"]) == (404, "model_not_priced")
    assert (await office.ask("GET", "/v1/prices/gpt/history")).status == 404
    assert (await office.ask("GET", "/v1/prices", version=9)).error["param"] == "version"


async def test_the_books_balance_and_a_difference_is_named(office: Office) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    await office.charge(secret, 1_000)
    assert await office.ok("GET", "/v1/admin/books", office.admin) == {"balanced": True, "differences": []}
    await office.services.database.execute("update ledger.grants set available = available + 5")
    read = await office.ok("GET", "/v1/admin/books", office.admin)
    assert read["balanced"] is False
    assert read["differences"][0]["account_id"] == account_id


async def test_a_grant_that_the_chain_does_not_back_unbalances_the_books(office: Office) -> None:
    office.allowance.differing = [Difference("the allowance of a day is what is staked", 7, "2027-01-15", "0", "5")]
    read = await office.ok("GET", "/v1/admin/books", office.admin)
    assert read["balanced"] is False
    assert [(row["account_id"], row["expected"], row["found"]) for row in read["differences"]] == [(7, "0", "5")]
