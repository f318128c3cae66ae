"""Advice over HTTP, from what the ledger has charged."""

from dataclasses import replace

from freehold.app.advice import Advice
from freehold.clock import DAY_S
from freehold.planner.model import Assumptions

from .conftest import NOW, TODAY, Office


async def used(office: Office, *, days: int = 20, nano: int = 2_000_000_000) -> str:
    """A key whose account was charged so much on each of the last days; today is left empty."""
    office.app.state.services = replace(office.services, plan=Advice())
    account_id, secret = await office.local()
    await office.give(account_id, "100")
    start = NOW + (days + 1) * DAY_S
    for day in range(days):
        await office.services.ledger.set_time(NOW + day * DAY_S, opened_day=TODAY.number + day)
        await office.charge(secret, nano)
    await office.services.ledger.set_time(start, opened_day=TODAY.number + days + 1)
    return secret


async def test_the_plan_is_of_the_accounts_own_days(office: Office) -> None:
    secret = await used(office)
    read = await office.ok("GET", "/v1/plan", secret, price=183, horizon_days=90)
    assert read["decision"] == "hold"
    assert read["size"] == 2
    assert read["assumptions"]["diem_price"] == 183
    assert read["assumptions"]["horizon_days"] == 90
    assert read["provenance"]["days"] == 21  # the last of them without a call
    assert read["usage_days"][0] == {
        "day": str(TODAY), "demand": 2.0, "used": 2.0, "overflow": 0.0, "idle": 0.0,
    }  # fmt: skip
    stated = {each["name"] for each in read["assumed"] if not each["default"]}
    assert {"diem_price", "horizon_days"} <= stated
    assert "hazard" not in stated
    assert read["assumptions"]["hazard"] == Assumptions(diem_price=1).hazard


async def test_the_day_that_turned_the_answer_is_told(office: Office) -> None:
    secret = await used(office, days=3)
    settled = await office.ok("GET", "/v1/plan", secret, price=183)
    assert settled["crossing"] is None
    turned = await office.ok(
        "GET", "/v1/plan", secret, price=85, horizon_days=100, resale=0, discount_rate=0, hazard=0, fee=0
    )
    assert turned["decision"] == "rent"  # used on three days of four, and κ = 0.85
    assert turned["crossing"]["now"] == "rent"
    assert turned["crossing"]["sentence"].startswith("The threshold was crossed on 2027-01-18")


async def test_without_a_price_or_a_market_it_is_asked_for(office: Office) -> None:
    secret = await used(office, days=1)
    refused = await office.ask("GET", "/v1/plan", secret)
    assert refused.status == 400
    assert refused.error["param"] == "price"


async def test_a_market_gives_the_price_that_isnt_stated(office: Office) -> None:
    secret = await used(office, days=1)

    async def market() -> tuple[float, str]:
        return 120.0, "the pool of the square"

    office.app.state.services = replace(office.services, plan=Advice(market))
    read = await office.ok("GET", "/v1/plan", secret)
    assert read["assumptions"]["diem_price"] == 120
    assert next(each["source"] for each in read["assumed"] if each["name"] == "diem_price") == "the pool of the square"
    stated = await office.ok("GET", "/v1/plan", secret, price=90)
    assert stated["assumptions"]["diem_price"] == 90
    assert {each["source"] for each in stated["assumed"]} == {""}


async def test_an_account_without_a_day_that_has_ended_has_no_plan(office: Office) -> None:
    office.app.state.services = replace(office.services, plan=Advice())
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    await office.charge(secret, 1_000)
    refused = await office.ask("GET", "/v1/plan", secret, price=100)
    assert refused.status == 400
    assert "ask again tomorrow" in refused.error["message"]


async def test_what_cant_be_assumed_is_refused_by_name(office: Office) -> None:
    secret = await used(office, days=1)
    wide = await office.ask("GET", "/v1/plan", secret, price=100, fee=2)
    assert wide.status == 400
    dear = await office.ask("GET", "/v1/plan", secret, price=100, rent_ratio=0.5, lease=0.9)
    assert dear.status == 400
    assert "lease" in dear.error["message"]


async def test_a_plan_needs_the_scope_to_read(office: Office) -> None:
    secret = await used(office, days=1)
    account_id = (await office.services.identity.key(secret)).account_id
    made = await office.ok(
        "POST", "/v1/account/keys", office.admin, {"name": "calls", "scopes": ["inference"]}, account=account_id
    )
    assert (await office.ask("GET", "/v1/plan", price=100)).status == 401
    assert (await office.ask("GET", "/v1/plan", made["secret"], price=100)).status == 403
    assert (await office.ask("GET", "/v1/plan", secret, price=100)).status == 200
