"""Paying without an account at a whole server: `freehold up` with two workers, its own chain, the SDK's client."""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
from eth_account import Account as Wallets
from tests.app.conftest import Server, environment, up
from tests.chain.lab import USDC, Anvil
from tests.x402.shop import ASKED, CHAT, USD
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

from freehold.chain.contracts import Contracts
from freehold.chain.deploy import deploy_dev
from freehold.chain.deployments import save
from freehold.chain.keystore import write
from freehold.chain.wallet import DevWallet, read
from x402 import x402Client

OTHER_CHAIN = 31_337

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


async def test_a_chain_of_another_id_is_paid_on_with_the_operators_own_keystore(
    up: Callable[..., Server], tmp_path: Path
) -> None:
    anvil = Anvil("--block-time", "1")
    await anvil.start()
    try:
        rpc = anvil.rpc
        deployed = replace(await deploy_dev(rpc, USDC), chain_id=OTHER_CHAIN)
        payer, operator = Wallets.create(), Wallets.create()
        deployer = await DevWallet.open(rpc, "deployer")
        usdc = Contracts.of(deployed).usdc
        await deployer.send(usdc, "mint", payer.address, USD, what="minting")
        await rpc.call("anvil_setChainId", OTHER_CHAIN)  # as far as anybody can tell, a chain of somebody else's
        await rpc.call("anvil_setBalance", operator.address, hex(10**18))
        save(tmp_path / "deployment.toml", deployed)
        write(tmp_path / "operator.json", bytes(operator.key), "word")
        (tmp_path / "word").write_text("word\n", "utf-8")
        server = await asyncio.to_thread(
            lambda: up(
                FREEHOLD_RPC_URL=f"http://127.0.0.1:{anvil.port}",
                FREEHOLD_DEPLOYMENT=str(tmp_path / "deployment.toml"),
                FREEHOLD_X402="true",
                FREEHOLD_OPERATOR_KEYSTORE=str(tmp_path / "operator.json"),
                FREEHOLD_OPERATOR_PASSWORD_FILE=str(tmp_path / "word"),
            )
        )
        client = x402Client()
        register_exact_evm_client(client, EthAccountSigner(payer))
        client.set_spend_controls({"allowed_assets": True})
        async with x402HttpxClient(client, base_url=str(server.credentials()["url"]), timeout=120) as http:
            answer = await http.post(CHAT, json=dict(ASKED))
        assert answer.status_code == 200, answer.text
        response = json.loads(base64.b64decode(answer.headers["payment-response"]))
        assert response["network"] == f"eip155:{OTHER_CHAIN}"
        sent = await rpc.call("eth_getTransactionByHash", response["transaction"])
        assert (sent["from"], int(sent["chainId"], 16)) == (operator.address.lower(), OTHER_CHAIN)
        assert int(await read(rpc, usdc, "balanceOf", payer.address)) == USD - int(response["amount"])
        assert server.stop() == 0
    finally:
        await anvil.stop()
