"""Who may read the numbers, and that the ledger's state is among them."""

from dataclasses import replace
from pathlib import Path

from freehold.gateway.account.application import build_account_app
from freehold.gateway.metrics import Metrics
from freehold.metrics import Numbers

from .conftest import NOW, Office


async def test_the_ledgers_and_the_chains_state_are_shown(office: Office, tmp_path: Path) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "0.00000001")
    await office.charge(secret, 10, came_to_nano=25)
    Metrics(numbers := Numbers.shared(tmp_path))
    office.app = build_account_app(replace(office.services, metrics=tmp_path))
    reply = await office.ask("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    shown = set(reply.body.decode().splitlines())
    assert {
        "freehold_workers 1",
        "freehold_holds_open 0",
        'freehold_absorbed_usd{cause="overage"} 0.000000015',
        'freehold_absorbed_usd{cause="unsettled"} 0',
        "freehold_chain_head_block 12",
        "freehold_chain_confirmed_block 10",
        "freehold_ledger_time_provisional 0",
    } <= shown
    assert any(line.startswith(f"freehold_ledger_time_seconds {NOW}") for line in shown)
    numbers.put(numbers.slot("freehold_workers"), 0)


async def test_only_this_machine_and_the_operator_read_the_numbers(office: Office) -> None:
    _, secret = await office.local()
    assert (await office.ask("GET", "/metrics")).status == 200
    assert (await office.ask("GET", "/metrics", office.admin)).status == 200
    assert (await office.ask("GET", "/metrics", secret)).status == 403
    assert (await office.ask("GET", "/metrics", "fh_" + "a" * 40)).status == 401
    for header in ("x-forwarded-for", "forwarded", "via"):
        assert (await office.raw("GET", "/metrics", headers={header: "203.0.113.9"})).status == 401
    public = replace(office.services.settings, public_url="https://ai.example")
    office.app = build_account_app(replace(office.services, settings=public))
    assert (await office.ask("GET", "/metrics")).status == 401
    assert (await office.ask("GET", "/metrics", office.admin)).status == 200
