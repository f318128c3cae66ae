"""What a start prepares: schema, contracts, the first account with its credentials, its first stake and deposit.

Each step looks first whether it was done, so that a start that was killed is finished by the next one.
"""

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import asyncpg

from freehold.app.plan import Plan, first_chat_model, load_deployment, takes_payments
from freehold.app.settings import Settings, checkout
from freehold.chain import deployments, verbs
from freehold.chain.contracts import Contracts
from freehold.chain.defi import kept, packages
from freehold.chain.defi.deploy import WINDOW_S
from freehold.chain.deploy import DEV_CONFIRMATIONS, deploy_dev
from freehold.chain.dev import fund
from freehold.chain.keystore import open_secret
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import DevWallet, read
from freehold.clock import SystemClock
from freehold.db import Connection, Database, MigrationError
from freehold.host.process import HostError, write_private
from freehold.identity.identity import Identity
from freehold.identity.model import Account, Scope
from freehold.identity.problems import InvalidApiKey
from freehold.identity.settings import IdentitySettings
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import KeyLimits
from freehold.money import DIEM_DECIMALS, USDC_DECIMALS
from freehold.pricing.book import Prices
from freehold.pricing.seed import Offered, first_prices
from freehold.problems import Problem
from freehold.receipts.signing import ReceiptKey
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.config import ConfigError, read_upstreams
from freehold.upstream.weights import WeightsMissing, find_weights

CREDENTIALS = "credentials.json"
RECEIPT_KEY = "receipts.key"
ACCOUNT = "default"
FIRST_STAKE = 10**DIEM_DECIMALS
FIRST_DEPOSIT = 10**USDC_DECIMALS
MINE_EVERY_S = 0.05
DEFI_HISTORY_S = WINDOW_S + 120
"""How far the protocols' deployment moves the dev chain on."""


def node_modules() -> Path:
    """The npm packages of a dev chain. Raises HostError."""
    root = checkout()
    if root is None:
        raise HostError(
            "The dev chain runs from a checkout only; set FREEHOLD_RPC_URL and FREEHOLD_DEPLOYMENT to a chain of your own."
        )
    return root / "npm" / "node_modules"


def check_weights() -> None:
    """Raises HostError when the embedded model's weights are missing."""
    try:
        find_weights()
    except WeightsMissing as missing:
        raise HostError(str(missing)) from None


def check_upstreams(tables: Sequence[Mapping[str, Any]]) -> None:
    """Raises HostError for tables that can't be used."""
    try:
        read_upstreams(tables)
    except ConfigError as reason:
        raise HostError(f"The upstreams can't be used: {reason}") from None


def example_model(tables: Sequence[Mapping[str, Any]]) -> str:
    return first_chat_model(Catalogue(read_upstreams(tables)))


async def open_database(url: str) -> Database:
    """Raises HostError with a sentence, which never shows the URL's password."""
    try:
        return await Database.connect(url, max_size=4)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TimeoutError) as reason:
        said = " ".join(str(reason).split()) or type(reason).__name__
        raise HostError(f"The database can't be reached: {said.rstrip('.')}; check FREEHOLD_DATABASE_URL.") from None


async def migrate(url: str) -> None:
    """Raises HostError."""
    database = await open_database(url)
    try:
        await database.migrate()
    except MigrationError as reason:
        raise HostError(str(reason)) from None
    except asyncpg.PostgresError as reason:
        raise HostError(f"The database can't be brought up to date: {reason}.") from None
    finally:
        await database.close()


async def check_deployment(settings: Settings) -> None:
    """Before anything is started: the deployment file can be used, and a node of one's own is on its chain.

    Raises HostError.
    """
    file = settings.deployment or settings.data / "deployment.toml"
    try:
        known = deployments.load(file) if settings.deployment or file.exists() else None
        if settings.rpc_url is None:
            return
        async with Rpc(settings.rpc_url) as rpc:
            chain_id = int(await rpc.call("eth_chainId"), 16)
    except Problem as reason:
        raise HostError(reason.message) from None
    if known is not None:
        _require_chain(chain_id, known, file)
    elif chain_id != DEV_CHAIN_ID:
        raise _unknown_deployment(chain_id)


def _unknown_deployment(chain_id: int) -> HostError:
    return HostError(
        f"The node is on chain {chain_id}, and no deployment is known there: say with FREEHOLD_DEPLOYMENT which file tells "
        "where the contracts are; `freehold deploy` makes one."
    )


def _require_chain(chain_id: int, deployment: Deployment, file: Path) -> None:
    if deployment.chain_id != chain_id:
        raise HostError(
            f"The node is on chain {chain_id}, and {file} is of chain {deployment.chain_id}: "
            "check FREEHOLD_RPC_URL and FREEHOLD_DEPLOYMENT."
        )


async def ensure_deployment(settings: Settings, file: Path, rpc_url: str, url: str, say: Any) -> Deployment:
    """The contracts: those of the file; on a dev chain that lacks them, newly deployed ones. Raises HostError."""
    try:
        async with Rpc(rpc_url) as rpc:
            chain_id = int(await rpc.call("eth_chainId"), 16)
            if chain_id == DEV_CHAIN_ID and settings.deployment is None:
                recorded = _recorded(file)
                package = node_modules() / "@offchainlabs" / "stablecoin-evm"
                if not package.is_dir():
                    raise HostError(f"The dev chain's USDC is missing ({package}): run `make up` to install it.")
                if recorded is None:
                    say("Deploying the contracts.")
                elif deployments.ABSENT in recorded.contracts.values():
                    say(
                        "This dev chain's contracts are of an older Freehold: deploying new ones. What was staked and "
                        "deposited in the old ones stays there, and grants nothing any more."
                    )
                confirmations = DEV_CONFIRMATIONS if settings.confirmations is None else settings.confirmations
                signer = ReceiptKey(bytes.fromhex(ensure_key(settings.data / RECEIPT_KEY))).address
                standing = await deploy_dev(
                    rpc, package, recorded=recorded, confirmations=confirmations, url=url, receipt_signer=signer
                )
                if standing != recorded:
                    deployments.save(file, standing)
            if settings.deployment is None and _recorded(file) is None:
                raise _unknown_deployment(chain_id)
            deployment = load_deployment(file, settings.operator, settings.confirmations)
            _require_chain(chain_id, deployment, file)
            return deployment
    except Problem as reason:
        raise HostError(reason.message) from None


async def ensure_defi(data: Path, rpc_url: str, deployment: Deployment, say: Callable[[str], None]) -> None:
    """Other people's protocols on the dev chain. Whoever starts with them has asked for them, and is shown the licences.

    Raises HostError.
    """
    if deployment.chain_id != DEV_CHAIN_ID:
        raise HostError(
            f"Pools and lending markets are put onto the dev chain only ({DEV_CHAIN_ID}), and this is chain "
            f"{deployment.chain_id}: leave --defi out."
        )
    try:
        async with Rpc(rpc_url) as rpc:
            if await kept.standing(rpc, deployment, data) is None and kept.missing(data):
                say(f"Started with --defi, which takes your agreement as given.\n{packages.licences()}")
            await kept.ensure(rpc, deployment, data, say=say)
    except Problem as reason:
        raise HostError(reason.message) from None


def _recorded(file: Path) -> Deployment | None:
    return deployments.load(file) if file.exists() else None


def plan(
    settings: Settings,
    *,
    socket: int,
    database_url: str,
    rpc_url: str,
    deployment: Path,
    upstreams: Sequence[Mapping[str, Any]],
    public_url: str,
    started_at_s: float,
    operator_secret: bytes | None = None,
) -> Plan:
    """What the workers are told."""
    return Plan(
        socket=socket,
        database_url=database_url,
        rpc_url=rpc_url,
        deployment=str(deployment),
        upstreams=tuple(upstreams),
        public_url=public_url,
        workers=settings.workers,
        started_at_s=started_at_s,
        operator=settings.operator,
        confirmations=settings.confirmations,
        default_output_tokens=settings.default_output_tokens,
        body_limit_bytes=settings.body_limit_bytes,
        log_level=settings.log_level,
        log_format=settings.log_format,
        metrics=str(settings.data / "run" / "metrics"),
        run=str(settings.data / "run"),
        supervisor=os.getpid(),
        answer_key=settings.answer_key or ensure_key(settings.data / "answers.key"),
        otlp_endpoint=settings.otlp_endpoint,
        receipt_key=ensure_key(settings.data / RECEIPT_KEY),
        x402=settings.x402,
        x402_least=settings.x402_least,
        operator_secret=operator_secret.hex() if operator_secret else None,
    )


def check_payments(settings: Settings, chain_id: int) -> None:
    """Raises HostError where payments by x402 are wanted and nobody could carry them to the chain."""
    wanted = takes_payments(settings.x402, chain_id)
    if wanted and chain_id != DEV_CHAIN_ID and settings.operator_keystore is None:
        raise HostError(
            "Payments by x402 need a wallet that carries them to the chain: name its keystore file in "
            "FREEHOLD_OPERATOR_KEYSTORE, or leave FREEHOLD_X402 off."
        )


async def remarks(rpc_url: str, deployment: Deployment, settings: Settings, secret: bytes | None) -> list[str]:
    """What the operator should mend, though the server starts: sentences. The dev chain sees to it by itself."""
    if deployment.chain_id == DEV_CHAIN_ID:
        return []
    contracts = Contracts.of(deployment)
    signer = ReceiptKey(bytes.fromhex(ensure_key(settings.data / RECEIPT_KEY))).address
    said = []
    try:
        async with Rpc(rpc_url) as rpc:
            _, registered = await read(rpc, contracts.vault, "operatorOf", deployment.operator)
            publisher = await read(rpc, contracts.book, "publisher")
    except Problem as reason:
        return [f"Whether the operator is registered can't be seen: {reason.message}"]
    if int(registered, 16) == 0:
        said.append(
            f"The operator {deployment.operator} isn't registered at the contracts (yet), so nothing can be staked to it."
        )
    elif registered != signer:
        said.append(
            f"The chain names {registered} as who signs this operator's receipts, and {settings.data / RECEIPT_KEY} is "
            f"{signer}: receipts won't verify. Put the right key there, or have the timelock name this one."
        )
    publishing = None if secret is None else ReceiptKey(secret).address
    if publishing is None:
        said.append(
            "Closed days won't be published: name the keystore of the book's publisher in FREEHOLD_OPERATOR_KEYSTORE."
        )
    elif publishing != publisher:
        said.append(
            f"Closed days won't be published: FREEHOLD_OPERATOR_KEYSTORE is {publishing}, and the book's publisher {publisher}."
        )
    return said


def open_operator(settings: Settings, ask: Callable[[str], str] | None) -> bytes | None:
    """The key of the wallet that carries payments, decrypted; None when no keystore is set.

    `ask` asks a person for the password, where there is one. Raises HostError, WalletRefused.
    """
    keystore, file = settings.operator_keystore, settings.operator_password_file
    if keystore is None:
        return None
    if file is not None:
        try:
            password = file.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise HostError(f"The password file {file} can't be read: {(error.strerror or 'error').lower()}.") from None
    elif ask is not None:
        password = ask(f"Password of {keystore}: ")
    else:
        raise HostError(
            f"{keystore} needs its password, and nobody can be asked: name it in FREEHOLD_OPERATOR_PASSWORD_FILE."
        )
    return open_secret(keystore, password)


def ensure_key(path: Path) -> str:
    """The key in the file, or a new one. Raises HostError."""
    try:
        found = path.read_text("ascii").strip()
        if re.fullmatch(r"[0-9a-f]{64}", found):
            return found
    except FileNotFoundError:
        found = secrets.token_hex(32)
        write_private(path, found + "\n")
        return found
    except (OSError, UnicodeDecodeError):
        pass
    raise HostError(f"{path} holds no key; remove it, and the next start makes a new one.")


async def seed_prices(database_url: str, upstreams: Sequence[Mapping[str, Any]]) -> None:
    """First prices for the models that have none. Raises HostError."""
    database = await open_database(database_url)
    try:
        await _seed_prices(database, Ledger(database, clock=SystemClock()), upstreams)
    except asyncpg.PostgresError as reason:
        raise HostError(f"The prices of new models can't be written: {reason}.") from None
    finally:
        await database.close()


async def ensure_credentials(
    data: Path, database_url: str, url: str, rpc_url: str, chain_id: int, upstreams: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """First prices, the account `default`, a key of it, the admin token: those kept, or new ones where they don't fit.

    Raises HostError.
    """
    kept = _kept(data / CREDENTIALS)
    database = await open_database(database_url)
    try:
        ledger = Ledger(database, clock=SystemClock())
        identity = Identity(
            database, clock=SystemClock(), settings=IdentitySettings(domain="localhost", chain_id=chain_id)
        )
        await _seed_prices(database, ledger, upstreams)
        admin_token = str(kept.get("admin_token") or f"fh_admin_{secrets.token_hex(24)}")
        await identity.ensure_admin_token(admin_token)
        account = await _account(database, ledger, identity)
        api_key = str(kept.get("api_key") or "")
        if not api_key or not await _opens(identity, api_key, account.id):
            api_key = await _new_key(database, ledger, identity, account.id)
        return {
            "url": url,
            "admin_token": admin_token,
            "api_key": api_key,
            "account_id": account.id,
            "address": account.address,
            "rpc_url": rpc_url,
            "chain_id": chain_id,
        }
    except Problem as reason:
        raise HostError(reason.message) from None
    except ValueError as reason:
        raise HostError(f"{data / CREDENTIALS}: {reason} Remove the file to get new ones.") from None
    finally:
        await database.close()


def _kept(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise HostError(f"{path} can't be read; remove it, and the next start makes new credentials.") from None
    return found if isinstance(found, dict) else {}


async def _seed_prices(database: Database, ledger: Ledger, upstreams: Sequence[Mapping[str, Any]]) -> None:
    prices = Prices(database)
    urls = {table.get("name"): table.get("url") for table in upstreams}
    offered = [
        Offered(model.id, model.upstream_id, model.context_tokens, urls.get(upstream.name))
        for upstream in read_upstreams(upstreams)
        for model in upstream.models.values()
    ]

    async def work(connection: Connection) -> None:
        version = await prices.seed(connection, first_prices(offered), now_s=(await ledger.time()).at_s)
        if version is not None:
            for number, effective_at_s in await prices.since(connection, version):
                await ledger.set_price_version(connection, number, effective_at_s)

    await database.transact(work)


async def _account(database: Database, ledger: Ledger, identity: Identity) -> Account:
    for account in await identity.accounts(limit=1):
        if account.kind == "local" and account.name == ACCOUNT:
            return account

    async def work(connection: Connection) -> Account:
        account_id = await ledger.create_account(connection)
        return await identity.create_local_account(connection, account_id, ACCOUNT)

    return await database.transact(work)


async def _opens(identity: Identity, api_key: str, account_id: int) -> bool:
    try:
        key = await identity.key(api_key)
    except InvalidApiKey:
        return False
    return key.account_id == account_id and key.revoked_at_s is None


async def _new_key(database: Database, ledger: Ledger, identity: Identity, account_id: int) -> str:
    async def work(connection: Connection) -> str:
        key, secret = await identity.create_key(
            connection,
            account_id,
            name="first",
            user_id=None,
            scopes=frozenset({Scope.INFERENCE, Scope.READ}),
            models=None,
            expires_at_s=None,
        )
        await ledger.put_key(connection, KeyLimits(account_id, key.id, key.version))
        return secret

    return await database.transact(work)


async def ensure_first_stake(
    rpc_url: str, deployment: Deployment, address: str, say: Any, *, mine_at_once: bool
) -> bool:
    """On the dev chain, 1 DIEM staked for the first account and 1 USDC deposited; True when that was done just now.

    Real transactions of the deployer's wallet: stake HOLD, mint DIEM, stake it for the account. `mine_at_once` mines
    each as it comes, on a chain that doesn't mine by itself yet. Raises HostError.
    """
    if deployment.chain_id != DEV_CHAIN_ID:
        return False
    try:
        async with Rpc(rpc_url) as rpc:
            deployer = await DevWallet.open(rpc, "deployer")
            standing = await verbs.positions(rpc, deployment, deployer.address)
            mine = (deployment.operator.lower(), address.lower())
            if any((stake.operator.lower(), stake.beneficiary.lower()) == mine for stake in standing.stakes):
                return False
            say("Staking 1 DIEM and depositing 1 USDC for the first account.")
            async with _mining(rpc) if mine_at_once else nullcontext():
                # The stake comes last: it is what the next start looks for.
                await fund(rpc, deployment, "deployer", hold=0, usdc=FIRST_DEPOSIT)
                await verbs.deposit(deployer, deployment, FIRST_DEPOSIT, beneficiary=address)
                if standing.diem < FIRST_STAKE:
                    if standing.staked_hold - standing.locked_hold < 100 * 10**18:
                        await verbs.stake_hold(deployer, deployment, 1_000 * 10**18)
                    await verbs.mint(deployer, deployment, FIRST_STAKE)
                await verbs.stake_diem(deployer, deployment, FIRST_STAKE, beneficiary=address)
            return True
    except Problem as reason:
        raise HostError(reason.message) from None


@asynccontextmanager
async def _mining(rpc: Rpc) -> AsyncIterator[None]:
    """Mine whatever waits, as soon as it does; and at the end the blocks that must stand on it."""

    async def mine() -> None:
        while True:
            if int((await rpc.call("txpool_status"))["pending"], 16):
                await rpc.call("evm_mine")
            await asyncio.sleep(MINE_EVERY_S)

    miner = asyncio.create_task(mine())
    try:
        yield
        for _ in range(DEV_CONFIRMATIONS):
            await rpc.call("evm_mine")
    finally:
        miner.cancel()
        await asyncio.wait([miner])
