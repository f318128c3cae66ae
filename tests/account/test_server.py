"""The account API as clients meet it: over a socket, on a second worker too."""

import asyncio
import csv
import io
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import uvicorn

from freehold.clock import FrozenClock
from freehold.gateway.account.application import build_account_app
from freehold.identity.identity import Identity
from freehold.identity.settings import IdentitySettings
from freehold.ledger.problems import KeyRevoked

from .conftest import NOW, Office


@pytest.fixture
async def url(office: Office) -> AsyncIterator[str]:
    """The office's API on a port of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(office.app, lifespan="off", log_config=None, access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


async def test_a_long_export_arrives_whole(office: Office, url: str) -> None:
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    await asyncio.gather(*(office.charge(secret, 1_000 + i) for i in range(600)))
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {secret}"}) as client:
        async with client.get(f"{url}/v1/account/usage?format=csv") as answer:
            assert answer.status == 200 and answer.headers["content-type"] == "text/csv; charset=utf-8"
            sheet = list(csv.DictReader(io.StringIO(await answer.text())))
        async with client.get(f"{url}/v1/account/usage?group_by=key") as answer:
            added = (await answer.json())["data"][0]
    assert {int(row["cost_nano"]) for row in sheet} == set(range(1_000, 1_600))
    assert sum(int(row["cost_nano"]) for row in sheet) == added["cost_nano"]
    assert len(sheet) == added["calls"] == 600


async def test_a_body_of_50_mb_is_refused_by_name(url: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(800):
            yield b" " * 65_536

    async with aiohttp.ClientSession() as client:
        async with client.post(f"{url}/v1/auth/nonce", data=endless()) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "request_too_large"
        async with client.get(f"{url}/healthz") as answer:
            assert answer.status == 200


async def test_the_document_is_served(office: Office, url: str) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"{url}/openapi.json") as answer:
        assert await answer.json() == office.app.openapi()


async def test_a_revoked_key_is_refused_by_a_worker_that_knew_it(office: Office) -> None:
    identity = Identity(
        office.services.database, clock=FrozenClock(NOW), settings=IdentitySettings("127.0.0.1:8402", 402031)
    )
    services = replace(office.services, identity=identity)
    second = replace(office, services=services, app=build_account_app(services))
    account_id, secret = await office.local()
    await office.give(account_id, "1")
    await second.charge(secret, 1_000)
    key_id = (await identity.key(secret)).id
    await office.ok("DELETE", f"/v1/account/keys/{key_id}", office.admin, account=account_id)
    assert (await second.ask("GET", "/v1/account/balance", secret)).error["code"] == "key_revoked"
    with pytest.raises(KeyRevoked):
        await second.charge(secret, 1_000)
