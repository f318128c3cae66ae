"""A chain that isn't the dev chain, contracts deployed on it by keys alone, and servers of two operators beside each other."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from tests.app.conftest import ROOT, Server
from tests.chain.foreign import CHAIN_ID, CONFIRMATIONS, PASSWORD, Key, funded, keep, mining, put_usdc
from tests.chain.lab import START_S, Anvil

from freehold.app.first import RECEIPT_KEY, ensure_key
from freehold.chain import deployments, governance, verbs
from freehold.chain.deploy import LEAST_DELAY_S, Parameters
from freehold.chain.journal import Journal
from freehold.chain.model import Deployment
from freehold.chain.rollout import Rollout, begin
from freehold.clock import Day
from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Source
from freehold.receipts.signing import ReceiptKey

ONE = 10**18
WAIT_S = 240.0
"""What a busy machine may take; nothing here takes so long."""


async def until(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for it. Fails by saying what was awaited."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not await true():  # noqa: ASYNC110 - asked over HTTP
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"still not so: {what}") from None


@dataclass
class Gateway:
    """One operator's server, with a database of its own."""

    server: Server
    deployment: Deployment
    file: Path
    database_url: str

    async def get(self, path: str, token: str | None = None) -> Any:
        status, read = await asyncio.to_thread(self.server.call, path, token=token)
        assert status == 200, read
        return read

    async def post(self, path: str, body: object, token: str | None = None) -> Any:
        status, read = await asyncio.to_thread(self.server.call, path, body, token=token)
        assert status in (200, 201), read
        return read

    async def sign_in(self, wallet: Key) -> "Customer":
        """An account for the wallet, and a key of it."""
        asked = await self.post("/v1/auth/nonce", {"address": wallet.address})
        signature = await wallet.sign(asked["message"])
        made = await self.post("/v1/auth/wallet", {"message": asked["message"], "signature": signature})
        body = {"name": "first", "scopes": ["inference", "read"]}
        key = (await self.post("/v1/account/keys", body, made["token"]))["secret"]
        return Customer(self, int(made["account_id"]), key)

    async def confirmed(self, block: int) -> None:
        async def there() -> bool:
            return int((await self.get("/v1/status"))["confirmed"] or 0) >= block

        await until(there, f"{self.server.data.name} has read block {block}")

    async def in_day(self, day: Day) -> None:
        async def there() -> bool:
            status = await self.get("/v1/status")
            return bool(status["day_opened"]) and status["day"] == str(day)

        await until(there, f"{self.server.data.name} has opened {day}")

    async def closed(self, day: Day, *, published: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def there() -> bool:
            for row in (await self.get("/v1/epochs"))["data"]:
                if row["day"] == str(day) and row["published"] is published:
                    found.update(row)
            return bool(found)

        await until(there, f"{day} is closed, and {'published' if published else 'not published'}")
        return found

    async def granted(self, account_id: int) -> dict[int, int]:
        """nano-USD of allowance by the day that it was granted for, as this operator's own ledger has it."""
        database = await Database.connect(self.database_url, max_size=2)
        try:
            async with Ledger(database) as ledger:
                found: dict[int, int] = {}
                for grant in await ledger.grants(account_id, live_only=False):
                    if grant.source is Source.ALLOWANCE:
                        day = Day.of(grant.starts_at_s).number
                        found[day] = found.get(day, 0) + grant.amount_nano
                return found
        finally:
            await database.close()

    async def metric(self, name: str) -> float:
        text = await asyncio.to_thread(self.server.text, "/metrics")
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


@dataclass(frozen=True)
class Customer:
    """Somebody's account at one gateway."""

    gateway: Gateway
    account_id: int
    key: str

    async def allowance_nano(self) -> int:
        """What the present day grants."""
        purses = (await self.gateway.get("/v1/account/balance", self.key))["purses"]
        return sum(int(purse["granted_nano"]) for purse in purses if purse["source"] == "allowance")

    async def has(self, nano: int) -> None:
        async def there() -> bool:
            return await self.allowance_nano() == nano

        await until(there, f"account {self.account_id} of {self.gateway.server.data.name} is granted {nano} nano-USD")

    async def chat(self, text: str) -> Any:
        body = {"model": "scripted-echo", "messages": [{"role": "user", "content": text}]}
        status, read = await asyncio.to_thread(self.gateway.server.call, "/v1/chat/completions", body, token=self.key)
        return status, read


@dataclass
class Land:
    """Everything, at one chain."""

    anvil: Anvil
    folder: Path
    usdc: str
    deployer: Key
    governor: Key
    holder: Key
    operators: list[Key] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)
    mines: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Whoever has it decides when there are blocks; else there is one now and then, so that the chain doesn't stall."""

    @property
    def first(self) -> Gateway:
        return self.gateways[0]

    async def mine(self) -> None:
        while True:
            async with self.mines:
                await self.anvil.mine()
            await asyncio.sleep(2.0)

    async def now_s(self) -> int:
        return int((await self.anvil.rpc.call("eth_getBlockByNumber", "latest", False))["timestamp"], 16)

    async def today(self) -> Day:
        return Day.of(await self.now_s())

    async def next_day(self) -> Day:
        """The chain goes on to 00:00, and so do the gateways."""
        day = (await self.today()).next()
        await self.anvil.rpc.call("evm_setNextBlockTimestamp", day.start_s)
        await self.anvil.rpc.call("anvil_mine", hex(CONFIRMATIONS + 1))
        for gateway in self.gateways:
            await gateway.in_day(day)
        return day

    async def confirmed(self) -> None:
        """Every gateway has read everything that is mined by now."""
        head = await self.anvil.head()
        await self.anvil.rpc.call("anvil_mine", hex(CONFIRMATIONS))
        for gateway in self.gateways:
            await gateway.confirmed(head)

    async def staker(self, diem: int) -> Key:
        """A wallet with newly minted DIEM."""
        staker = await funded(self.anvil, name="staker")
        deployment = self.first.deployment
        await verbs.transfer(self.holder, deployment, "HOLD", 5_000 * ONE, staker.address)
        await verbs.stake_hold(staker, deployment, 5_000 * ONE)
        await verbs.mint(staker, deployment, diem)
        return staker

    async def deploy(self, parameters: Parameters, folder: Path) -> Deployment:
        with Journal.open(folder / "deployment.toml.journal") as journal:
            if journal.begun is None:
                await begin(self.anvil.rpc, journal, parameters, self.deployer.address)
            rollout = Rollout(self.deployer, journal, package=None, tell=lambda said: None, look_every_s=0.02)
            deployment = (await rollout.run()).deployment
        deployments.save(folder / "deployment.toml", deployment)
        return deployment


@asynccontextmanager
async def settled(folder: Path, postgres_url: str, template: str) -> AsyncIterator[Land]:
    """Contracts in force, and two registered operators with a running gateway each."""
    anvil = Anvil("--chain-id", str(CHAIN_ID), "--accounts", "0", "--timestamp", str(START_S))
    await anvil.start()
    databases: list[str] = []
    land: Land | None = None
    miner: asyncio.Task[None] | None = None
    try:
        _, usdc = await put_usdc(anvil)
        names = ("deployer", "governor", "holder", "first", "second")
        deployer, governor, holder, *operators = [await funded(anvil, name=name) for name in names]
        land = Land(anvil, folder, usdc, deployer, governor, holder, list(operators))
        async with mining(anvil, every_s=0.05):
            made = await _put_contracts(land)
        for operator, deployment in zip(operators, made, strict=True):
            databases.append(await _new_database(postgres_url, f"land_{operator.name}", template))
            land.gateways.append(_serve(land, operator, deployment, databases[-1]))
        miner = asyncio.create_task(land.mine())
        await asyncio.gather(*(asyncio.to_thread(gateway.server.await_ready) for gateway in land.gateways))
        yield land
    finally:
        running = [one.server for one in (land.gateways if land else ()) if one.server.process.poll() is None]
        await asyncio.gather(*(asyncio.to_thread(server.stop, signal.SIGTERM) for server in running))
        if miner is not None:
            miner.cancel()
            await asyncio.wait([miner])
        await anvil.stop()
        for url in databases:
            await _drop_database(postgres_url, urlsplit(url).path.strip("/"))


async def _put_contracts(land: Land) -> list[Deployment]:
    """A deployment, and another operator beside it, whom the governor lets in."""
    first, second = land.operators
    folders = [land.folder / str(operator.name) for operator in land.operators]
    for folder in folders:
        folder.mkdir(mode=0o700)
    signers = [ReceiptKey(bytes.fromhex(ensure_key(folder / RECEIPT_KEY))).address for folder in folders]
    parameters = Parameters(
        operator=first.address,
        url="https://first.example",
        receipt_signer=signers[0],
        publisher=first.address,
        payee=first.address,
        treasury=land.holder.address,
        usdc=land.usdc,
        governors=(land.governor.address,),
        holder=land.holder.address,
        delay_s=LEAST_DELAY_S,
        confirmations=CONFIRMATIONS,
    )
    standing = await land.deploy(parameters, folders[0])
    beside = replace(
        parameters,
        operator=second.address,
        url="https://second.example",
        receipt_signer=signers[1],
        publisher=second.address,
        payee=second.address,
        beside=standing,
    )
    added = await land.deploy(beside, folders[1])
    calls = [
        governance.committed_call(standing, second.address, 10_000 * ONE),
        governance.operator_call(standing, second.address, beside.url, beside.receipt_signer),
    ]
    proposed = await governance.propose(land.governor, standing, calls)
    await land.anvil.rpc.call("evm_increaseTime", LEAST_DELAY_S + 60)
    await land.anvil.mine()
    await land.deploy(parameters, folders[0])
    await governance.execute(land.governor, standing, proposed.id)
    return [standing, added]


def _serve(land: Land, operator: Key, deployment: Deployment, database_url: str) -> Gateway:
    data = land.folder / str(operator.name)
    password = land.folder / "password"
    password.write_text(PASSWORD, "utf-8")
    environment = {
        "PATH": os.defpath,
        "HOME": str(land.folder),
        "XDG_CONFIG_HOME": str(land.folder / f"config-{operator.name}"),
        "PYTHONPATH": str(ROOT / "src"),
        "LANG": "C",
    }
    settings = {
        "FREEHOLD_RPC_URL": land.anvil.rpc.node,
        "FREEHOLD_DATABASE_URL": database_url,
        "FREEHOLD_OPERATOR_KEYSTORE": str(keep(land.folder / f"{operator.name}.json", operator)),
        "FREEHOLD_OPERATOR_PASSWORD_FILE": str(password),
    }
    output = land.folder / f"{operator.name}.out"
    with output.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "freehold.cli", "up", "--no-model", "--port", "0", "--data", str(data)],
            env={**environment, **settings},
            stdout=out,
            stderr=out,
            text=True,
        )
    return Gateway(Server(data, process, output, environment), deployment, data / "deployment.toml", database_url)


async def _new_database(postgres_url: str, name: str, template: str) -> str:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f'create database "{name}" template "{template}" strategy file_copy')
    finally:
        await connection.close()
    return urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))


async def _drop_database(postgres_url: str, name: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f'drop database "{name}" with (force)')
    finally:
        await connection.close()
