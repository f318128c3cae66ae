"""A shop: a real chain with the contracts, one or two workers that take payments, and wallets that pay."""

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from eth_abi.abi import encode
from eth_account import Account as Wallets
from eth_account.signers.local import LocalAccount
from tests.chain.lab import USDC, Anvil
from tests.contracts.compiled import compiled
from tests.gateway.house import InFlight, prepare, serve_on
from x402.http.clients.httpx import x402HttpxClient
from x402.http.x402_http_client import x402HTTPClient
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

from freehold.allowance.allowance import Allowance
from freehold.app.jobs import run_jobs
from freehold.chain.abi import Contract
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import created_address, deploy_dev
from freehold.chain.keywallet import KeyWallet
from freehold.chain.model import Deployment
from freehold.chain.reader import LogReader
from freehold.chain.rpc import Rpc
from freehold.chain.store import Store
from freehold.chain.wallet import DevWallet, Wallet, read
from freehold.clock import SystemClock
from freehold.db import Database
from freehold.gateway.account.application import build_account_app
from freehold.gateway.account.services import AccountServices, AccountSettings, ServerStatus
from freehold.gateway.door import Door
from freehold.gateway.replay import KEY_BYTES, Answers
from freehold.gateway.x402 import model
from freehold.gateway.x402.facilitator import TOKEN, Facilitator
from freehold.gateway.x402.model import Authorization
from freehold.gateway.x402.payments import Payments
from freehold.gateway.x402.settings import PaymentSettings
from freehold.gateway.x402.store import Key
from freehold.gateway.x402.store import Store as PaymentStore
from freehold.identity.identity import Identity
from freehold.identity.settings import IdentitySettings
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Charge
from freehold.pricing.book import Prices
from freehold.problems import Problem
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.model import Terms
from freehold.upstream.scripted import Scripted
from x402 import x402Client

CHAT = "/v1/chat/completions"
USD = 10**6
ASKED: Mapping[str, Any] = {
    "model": "scripted-echo",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Say something."}],
}


@dataclass
class Worker:
    """One worker, with a pool, a ledger epoch and a facilitator of its own."""

    url: str
    database: Database
    ledger: Ledger
    identity: Identity
    payments: Payments
    scripted: Scripted
    allowance: Allowance
    rpc: Rpc


@dataclass
class Shop:
    anvil: Anvil
    deployment: Deployment
    database: Database
    database_url: str
    workers: list[Worker] = field(default_factory=list)
    answer_key: bytes = field(default_factory=lambda: secrets.token_bytes(KEY_BYTES), repr=False)
    """One for all workers: each gives again what another one answered."""
    _miner: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self.workers[0].url

    @property
    def worker(self) -> Worker:
        return self.workers[0]

    async def wallet(self, usdc: int = 5 * USD) -> LocalAccount:
        """A new key, with so many base units of USDC and no coin for gas."""
        made: LocalAccount = Wallets.create()
        if usdc:
            deployer = await DevWallet.open(self.anvil.rpc, "deployer")
            usdc_contract = Contracts.of(self.deployment).usdc
            await deployer.send(usdc_contract, "mint", made.address, usdc, what="minting")
        return made

    async def contract_wallet(self, owner: str, usdc: int) -> str:
        """A new wallet that is a contract, with so many base units of USDC."""
        rpc = self.anvil.rpc
        deployer = await DevWallet.open(rpc, "deployer")
        nonce = int(await rpc.call("eth_getTransactionCount", deployer.address, "pending"), 16)
        data = compiled("ContractWallet")["ContractWallet"]["bytecode"] + encode(["address"], [owner]).hex()
        await rpc.call("eth_sendTransaction", {"from": deployer.address, "data": data, "gas": hex(3_000_000)})
        made = created_address(deployer.address, nonce)
        await deployer.send(Contracts.of(self.deployment).usdc, "mint", made, usdc, what="minting")
        return made

    async def usdc_of(self, address: str) -> int:
        return int(await read(self.anvil.rpc, Contracts.of(self.deployment).usdc, "balanceOf", address))

    async def treasury(self) -> int:
        return await self.usdc_of(self.deployment.operator)

    def payer(self, wallet: LocalAccount, client: Any = None) -> Any:
        """The SDK's own client, which is told that it may spend this token."""
        client = client or x402Client()
        register_exact_evm_client(client, EthAccountSigner(wallet))
        token = self.deployment.contracts["usdc"]
        network = f"eip155:{self.deployment.chain_id}"
        client.set_spend_controls(
            {"allowed_assets": [{"network": network, "asset": token, "max_amount_per_payment": str(100 * USD)}]}
        )
        return client

    def paying(self, wallet: LocalAccount) -> x402HttpxClient:
        return x402HttpxClient(self.payer(wallet), timeout=60, base_url=self.url)

    async def payment(self, wallet: LocalAccount, path: str = CHAT, body: Mapping[str, Any] = ASKED) -> dict[str, str]:
        """The header of a payment for one request, made by the SDK from what the server asks."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            asked = await http.post(path, json=dict(body))
            assert asked.status_code == 402, asked.text
        http_client = x402HTTPClient(self.payer(wallet))
        required = http_client.get_payment_required_response(asked.headers.get, None)
        payload = await http_client.create_payment_payload(required)
        return dict(http_client.encode_payment_signature_header(payload))

    async def signed(self, wallet: LocalAccount, units: int, **changes: Any) -> Authorization:
        """An authorization made by hand; `changes` are of its fields, and `domain_name` of its domain."""
        terms = await self.worker.payments.terms()
        now_s = int((await self.anvil.rpc.call("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
        name = changes.pop("domain_name", terms.name)
        key = changes.pop("key", wallet)
        made = Authorization(
            **{
                "payer": wallet.address,
                "pay_to": terms.pay_to,
                "value": units,
                "valid_after": 0,
                "valid_before": now_s + 600,
                "nonce": secrets.token_bytes(32),
                "signature": b"",
                **changes,
            }
        )
        digest = made.digest(replace(terms, name=name))
        return replace(made, signature=bytes(key.unsafe_sign_hash(digest).signature))

    async def header(self, signed: Authorization, **accepted: Any) -> dict[str, str]:
        """The header that carries it; `accepted` changes the offer that it says it accepts."""
        terms = await self.worker.payments.terms()
        sent = {
            "x402Version": 2,
            "accepted": {**model.offer(terms, units=signed.value, timeout_s=300), **accepted},
            "payload": {
                "signature": "0x" + signed.signature.hex(),
                "authorization": {
                    "from": signed.payer,
                    "to": signed.pay_to,
                    "value": str(signed.value),
                    "validAfter": str(signed.valid_after),
                    "validBefore": str(signed.valid_before),
                    "nonce": "0x" + signed.nonce.hex(),
                },
            },
        }
        return {"PAYMENT-SIGNATURE": base64.b64encode(json.dumps(sent).encode()).decode()}

    async def carry_out(self, signed: Authorization, *, sender: str = "frank") -> str:
        """Somebody else submits an authorization to the token; waits until it is mined."""
        wallet = await DevWallet.open(self.anvil.rpc, sender)
        token = Contract(TOKEN, address=self.deployment.contracts["usdc"], name="USDC")
        fields = (signed.payer, signed.pay_to, signed.value, signed.valid_after, signed.valid_before, signed.nonce)
        receipt = await wallet.send(token, "transferWithAuthorization", *fields, signed.signature, what="carrying out")
        return receipt.tx_hash

    async def outbid(self, payer: str, units: int) -> None:
        """The payer moves so many base units of USDC away, for a fee that puts this before all that waits."""
        call, usdc = self.anvil.rpc.call, Contracts.of(self.deployment).usdc
        await call("anvil_setBalance", payer, hex(10**20))
        await call("anvil_impersonateAccount", payer)
        away = {"from": payer, "to": usdc.address, "data": usdc.call("transfer", self.deployment.operator, units)}
        fees = {"gas": hex(200_000), "maxFeePerGas": hex(10**13), "maxPriorityFeePerGas": hex(10**13)}
        await call("eth_sendTransaction", {**away, **fees})

    async def carry_out_if_it_can(self, signed: Authorization) -> None:
        """As a stranger who races the operator; too late is no harm."""
        with contextlib.suppress(Problem):
            await self.carry_out(signed)

    async def state_of(self, key: Key) -> str:
        found = await PaymentStore(self.database).find(key)
        assert found is not None
        return found.state

    async def account_of(self, wallet: LocalAccount) -> int | None:
        found = await self.worker.identity.account_of_address(wallet.address)
        return found.id if found else None

    async def credit_of(self, wallet: LocalAccount) -> int:
        """nano-USD that the wallet's account can spend; 0 for who has none."""
        account_id = await self.account_of(wallet)
        return (await self.worker.ledger.balance(account_id)).available_nano() if account_id else 0

    async def charges_of(self, wallet: LocalAccount) -> list[Charge]:
        account_id = await self.account_of(wallet)
        return list((await self.worker.ledger.charges(account_id, limit=1_000)).charges) if account_id else []

    async def close_books(self) -> None:
        assert [*await self.worker.ledger.check(), *await self.worker.allowance.check()] == []

    async def stop_mining(self) -> None:
        if self._miner is not None:
            self._miner.cancel()
            await asyncio.wait([self._miner])
            self._miner = None

    def go_on_mining(self) -> None:
        """A block every few milliseconds, so that nobody waits for confirmations."""

        async def mine() -> None:
            while True:
                await self.anvil.mine()
                await asyncio.sleep(0.03)

        self._miner = asyncio.create_task(mine())


@asynccontextmanager
async def worker(
    shop: Shop,
    *,
    settings: PaymentSettings | None = None,
    jobs: bool = True,
    takes: bool = True,
    key: bytes | None = None,
) -> AsyncIterator[Worker]:
    """A worker on a free port; `jobs` False leaves the chain to others, `takes` False takes no payments.

    `key`: of the wallet that carries payments to the chain, instead of the node's own.
    """
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.connect(shop.database_url, max_size=10)
        stack.push_async_callback(database.close)
        rpc = await stack.enter_async_context(Rpc(f"http://127.0.0.1:{shop.anvil.port}"))
        ledger = await stack.enter_async_context(Ledger(database, clock=clock))
        identity = Identity(
            database, clock=clock, settings=IdentitySettings(domain="127.0.0.1", chain_id=shop.deployment.chain_id)
        )
        prices = Prices(database)
        await prices.refresh()
        scripted = Scripted(terms=Terms(failures=1_000_000))
        catalogue = Catalogue([scripted])
        allowance = Allowance(ledger, Store(database), identity, shop.deployment)

        async def sender() -> Wallet:
            return KeyWallet(rpc, key) if key else await DevWallet.open(rpc, "operator")

        payments = Payments(
            database,
            ledger=ledger,
            accounts=identity,
            facilitator=Facilitator(rpc, shop.deployment, sender),
            clock=clock,
            settings=settings or PaymentSettings(look_s=0.02),
        )
        if jobs:
            reader = LogReader(rpc, database, shop.deployment, accept_new_chain=True)
            running = asyncio.create_task(run_jobs(database, reader, allowance, ledger, payments))
            stack.push_async_callback(_cancel, running)
        door = Door(
            ledger=ledger,
            identity=identity,
            prices=prices,
            catalogue=catalogue,
            allowance=allowance,
            payments=payments if takes else None,
            answers=Answers(shop.answer_key),
        )
        stack.push_async_callback(door.finish)

        async def status() -> ServerStatus:
            return ServerStatus("0", 0.0, 1, True)

        services = AccountServices(
            database=database,
            ledger=ledger,
            identity=identity,
            prices=prices,
            catalogue=catalogue,
            allowance=allowance,
            deployment=shop.deployment,
            status=status,
            settings=AccountSettings(),
            payments=payments if takes else None,
        )
        server = await stack.enter_async_context(serve_on(InFlight(build_account_app(services), door)))
        made = Worker(f"http://127.0.0.1:{server.port}", database, ledger, identity, payments, scripted, allowance, rpc)
        shop.workers.append(made)
        yield made


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def opened(database: Database, database_url: str) -> AsyncIterator[Shop]:
    """A chain with the contracts, which mines all the time, and no worker yet."""
    anvil = Anvil("--no-mining")
    await anvil.start()
    try:
        await prepare(database)
        shop = Shop(anvil, await deploy_dev(anvil.rpc, USDC), database, database_url)
        shop.go_on_mining()
        yield shop
        await shop.stop_mining()
    finally:
        await anvil.stop()
