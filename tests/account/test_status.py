from dataclasses import replace

from freehold.clock import FrozenClock
from freehold.gateway.account.application import build_account_app

from .conftest import Office


async def test_the_server_is_ready_when_database_time_and_reader_are(office: Office) -> None:
    ready = await office.ask("GET", "/readyz")
    assert ready.status == 200
    assert ready.json() == {"ready": True, "database": True, "ledger_time": True, "reader": True}


async def test_it_is_not_ready_without_its_reader(office: Office) -> None:
    office.status = replace(office.status, reader_alive=False)
    reply = await office.ask("GET", "/readyz")
    assert reply.status == 503 and reply.json()["reader"] is False
    assert (await office.ok("GET", "/v1/status"))["ready"] is False


async def test_it_is_not_ready_before_ledger_time_was_set(office: Office) -> None:
    await office.services.database.execute("update ledger.clock set opened_day = -1")
    reply = await office.ask("GET", "/readyz")
    assert reply.status == 503 and reply.json()["ledger_time"] is False


async def test_without_its_database_it_lives_but_is_not_ready(office: Office) -> None:
    token = (await office.sign_in())["token"]
    await office.services.database.pool.expire_connections()
    office.services.database.pool.terminate()
    assert (await office.ask("GET", "/healthz")).json() == {"alive": True}
    reply = await office.ask("GET", "/readyz")
    assert reply.status == 503 and reply.json()["database"] is False
    for path, who in (("/v1/status", None), ("/v1/account", token), ("/v1/prices", None)):
        refused = await office.ask("GET", path, who)
        assert (refused.status, refused.error["code"]) == (503, "ledger_unavailable")
        assert "again" in refused.error["message"]


async def test_status_tells_version_models_and_time(office: Office) -> None:
    assert await office.ok("GET", "/v1/status") == {
        "ready": True,
        "version": "0.1.0",
        "url": "http://127.0.0.1:8402",
        "started_at": "2027-01-15T08:00:00Z",
        "workers": 1,
        "models": ["scripted-echo", "scripted-exact", "scripted-embedding"],
        "upstreams": ["scripted"],
        "health": [{"name": "scripted", "circuit": "closed", "failures": 0, "running": 0}],
        "ledger_time": "2027-01-15T08:00:00Z",
        "provisional": False,
        "day": "2027-01-15",
        "day_opened": True,
        "head": 12,
        "confirmed": 10,
    }


async def test_the_chain_is_told_and_its_node_only_on_the_dev_chain(office: Office) -> None:
    read = await office.ok("GET", "/v1/chain")
    assert (read["chain_id"], read["rpc_url"], read["head"], read["confirmed"]) == (
        402031,
        "http://127.0.0.1:8545",
        12,
        10,
    )
    assert read["contracts"]["vault"] == "0x" + "22" * 20 and read["operator"] == "0x" + "33" * 20
    elsewhere = replace(office.services, deployment=replace(office.services.deployment, chain_id=1))
    other = Office(build_account_app(elsewhere), elsewhere, office.allowance, FrozenClock(), "", office.status)
    assert (await other.ok("GET", "/v1/chain"))["rpc_url"] is None
