"""Paying without an account at a whole server: `freehold up` with two workers, its own chain, the SDK's client."""

import asyncio
import json
from collections.abc import Callable

import httpx
from eth_account import Account as Wallets
from tests.app.conftest import Server, environment, up
from tests.x402.shop import ASKED, CHAT
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

from x402 import x402Client

__all__ = ["environment", "up"]


async def test_a_stranger_pays_for_a_call_at_a_server_with_two_workers(up: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(up, "--workers", "2")
    url = str(server.credentials()["url"])
    wallet = Wallets.create()
    for words in (("dev", "fund", "alice"), ("transfer", "2", "usdc", wallet.address, "--from", "alice")):
        done = await asyncio.to_thread(server.cli, *words, "--data", str(server.data))
        assert done.returncode == 0, done.stderr
    client = x402Client()
    register_exact_evm_client(client, EthAccountSigner(wallet))
    client.set_spend_controls({"allowed_assets": True})
    async with x402HttpxClient(client, base_url=url) as http:  # with httpx's own timeout
        answers = [await http.post(CHAT, json={**ASKED, "max_tokens": 8 + number}) for number in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
    checked = await asyncio.to_thread(server.cli, "books", "check", "--json", "--data", str(server.data))
    assert checked.returncode == 0, checked.stdout
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/v1/models")).status_code == 200
    listed = await asyncio.to_thread(server.cli, "accounts", "list", "--json", "--data", str(server.data))
    assert wallet.address in json.dumps(json.loads(listed.stdout))


async def test_a_server_whose_payments_are_off_asks_for_a_key(up: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(up, FREEHOLD_X402="false")
    async with httpx.AsyncClient(base_url=str(server.credentials()["url"])) as http:
        assert (await http.post(CHAT, json=dict(ASKED))).status_code == 401
