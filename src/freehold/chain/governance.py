"""What the timelock owns: parameters as they are, changes on their way, and proposing, executing and cancelling them.

Amounts are base units (10^-18), times unix seconds of block time.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from freehold.chain.abi import Contract, from_hex, template
from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.verbs import Done, address_of, done, own_events, reads
from freehold.chain.wallet import Wallet
from freehold.problems import Conflict, NotFound

_NONE = bytes(32)


class State(StrEnum):
    """Where a change is."""

    WAITING = "waiting"
    """Its delay isn't over."""
    READY = "ready"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator's promise and what it owes."""

    address: str
    url: str
    receipt_signer: str
    committed: int
    """USD a day that the timelock lets it promise, 18 decimals."""
    owed: int
    """Of it staked or activated from tomorrow on."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a change."""

    target: str
    """The contract's name, or its address when it isn't one of ours."""
    function: str
    arguments: Mapping[str, Any]
    to: str
    data: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was proposed: all of its calls, or none."""

    id: str
    state: State
    calls: tuple[Call, ...]
    proposed_at_s: int
    ready_at_s: int
    """When it can be executed, or was meant to be; 0 when it was cancelled before that could be told."""
    salt: str
    predecessor: str


@dataclass(frozen=True, slots=True)
class Governance:
    """Everything that the timelock decides, as it is now."""

    timelock: str
    delay_s: int
    chain_time_s: int
    emission_per_second: int
    emission_ceiling: int
    treasury: str
    total_committed: int
    diem_supply: int
    curve_points: int
    publisher: str
    operators: tuple[Operator, ...]
    changes: tuple[Change, ...]
    """Newest first."""


@dataclass(frozen=True, slots=True)
class Proposed(Done):
    id: str
    ready_at_s: int


@dataclass(frozen=True, slots=True)
class Executed(Done):
    id: str


@dataclass(frozen=True, slots=True)
class Cancelled(Done):
    id: str


async def look(rpc: Rpc, deployment: Deployment) -> Governance:
    """Parameters, operators and changes, at one block."""
    contracts, timelock = Contracts.of(deployment), timelock_of(deployment)
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    at, now_s = block["number"], int(block["timestamp"], 16)
    staking = contracts.staking
    delay, emission, ceiling, treasury, committed, supply, curve, publisher = await reads(
        rpc,
        at,
        [
            (timelock, "getMinDelay", ()),
            (staking, "emissionPerSecond", ()),
            (staking, "EMISSION_CEILING", ()),
            (staking, "treasury", ()),
            (staking, "totalCommitted", ()),
            (contracts.diem, "totalSupply", ()),
            (staking, "curve", ()),
            (contracts.book, "publisher", ()),
        ],
    )
    return Governance(
        timelock=timelock.address,
        delay_s=delay,
        chain_time_s=now_s,
        emission_per_second=emission,
        emission_ceiling=ceiling,
        treasury=treasury,
        total_committed=committed,
        diem_supply=supply,
        curve_points=len(curve),
        publisher=publisher,
        operators=tuple(await _operators(rpc, deployment, contracts, at)),
        changes=tuple(await changes(rpc, deployment, at=at, now_s=now_s)),
    )


async def changes(rpc: Rpc, deployment: Deployment, *, at: str, now_s: int) -> list[Change]:
    """Every change ever proposed, newest first."""
    timelock = timelock_of(deployment)
    scheduled = await rpc.call(
        "eth_getLogs",
        {
            "address": timelock.address,
            "topics": [[timelock.topic("CallScheduled"), timelock.topic("CallSalt")]],
            "fromBlock": hex(deployment.from_block),
            "toBlock": at,
        },
    )
    known = _named(deployment)
    found: dict[str, dict[str, Any]] = {}
    salts: dict[str, str] = {}
    for raw in scheduled:
        name, told = _read(timelock, raw)
        number = "0x" + told["id"].hex()
        if name == "CallSalt":
            salts[number] = "0x" + told["salt"].hex()
            continue
        entry = found.setdefault(
            number,
            {"calls": [], "block": raw["blockNumber"], "predecessor": told["predecessor"], "delay": told["delay"]},
        )
        entry["calls"].append(_call(known, told["target"], told["data"]))
    numbers = list(found)
    stamps = await reads(rpc, at, [(timelock, "getTimestamp", (from_hex(number),)) for number in numbers])
    headers = await rpc.batch([("eth_getBlockByNumber", [found[number]["block"], False]) for number in numbers])
    made = []
    for number, stamp, header in zip(numbers, stamps, headers, strict=True):
        entry = found[number]
        proposed = int(header["timestamp"], 16)
        made.append(
            Change(
                id=number,
                state=_state(stamp, now_s),
                calls=tuple(entry["calls"]),
                proposed_at_s=proposed,
                ready_at_s=stamp if stamp > 1 else proposed + entry["delay"],
                salt=salts.get(number, "0x" + _NONE.hex()),
                predecessor="0x" + entry["predecessor"].hex(),
            )
        )
    return sorted(made, key=lambda change: (-change.proposed_at_s, change.id))


async def propose(
    wallet: Wallet,
    deployment: Deployment,
    calls: list[tuple[Contract, str, tuple[Any, ...]]],
    *,
    delay_s: int | None = None,
) -> Proposed:
    """Schedule calls through the timelock, all or nothing, after `delay_s` (its least delay). Raises Reverted."""
    timelock = timelock_of(deployment)
    delay = await wallet.read(timelock, "getMinDelay") if delay_s is None else delay_s
    batch = (
        [contract.address for contract, _, _ in calls],
        [0] * len(calls),
        [from_hex(contract.call(function, *arguments)) for contract, function, arguments in calls],
        _NONE,
        secrets.token_bytes(32),
    )
    receipt = await wallet.send(timelock, "scheduleBatch", *batch, delay, what="Proposing the change")
    number = await wallet.read(timelock, "hashOperationBatch", *batch)
    return Proposed(*done(receipt), id="0x" + number.hex(), ready_at_s=receipt.at_s + delay)


async def execute(wallet: Wallet, deployment: Deployment, number: str) -> Executed:
    """Carry out a change whose delay is over. Raises NotFound, Conflict, Reverted."""
    change = await _one(wallet.rpc, deployment, number)
    if change.state is not State.READY:
        raise Conflict(reason=f"Change {change.id[:10]} is {change.state}, so it can't be executed{_when(change)}.")
    timelock, batch = timelock_of(deployment), _batch(change)
    function = "executeBatch"
    if (
        "0x" + (await wallet.read(timelock, "hashOperationBatch", *batch)).hex() != change.id
    ):  # proposed as a single call
        function, batch = "execute", (batch[0][0], 0, batch[2][0], *batch[3:])
    receipt = await wallet.send(timelock, function, *batch, what="Executing the change")
    return Executed(*done(receipt), id=change.id)


async def cancel(wallet: Wallet, deployment: Deployment, number: str) -> Cancelled:
    """Take back a change that wasn't executed. Raises NotFound, Conflict, Reverted."""
    change = await _one(wallet.rpc, deployment, number)
    if change.state not in (State.WAITING, State.READY):
        raise Conflict(reason=f"Change {change.id[:10]} is {change.state}, so it can't be cancelled.")
    timelock = timelock_of(deployment)
    receipt = await wallet.send(timelock, "cancel", from_hex(change.id), what="Cancelling the change")
    return Cancelled(*done(receipt), id=change.id)


def timelock_of(deployment: Deployment) -> Contract:
    return template("FreeholdTimelock").at(deployment.contracts["timelock"])


def committed_call(deployment: Deployment, operator: str, usd_per_day: int) -> tuple[Contract, str, tuple[Any, ...]]:
    """What an operator may promise, USD a day, 18 decimals."""
    return Contracts.of(deployment).staking, "setCommitted", (address_of(operator), usd_per_day)


def emission_call(deployment: Deployment, per_second: int) -> tuple[Contract, str, tuple[Any, ...]]:
    """HOLD a second, base units."""
    return Contracts.of(deployment).staking, "setEmission", (per_second,)


def treasury_call(deployment: Deployment, treasury: str) -> tuple[Contract, str, tuple[Any, ...]]:
    return Contracts.of(deployment).staking, "setTreasury", (address_of(treasury),)


def operator_call(
    deployment: Deployment, operator: str, url: str, receipt_signer: str
) -> tuple[Contract, str, tuple[Any, ...]]:
    return Contracts.of(deployment).vault, "registerOperator", (address_of(operator), url, address_of(receipt_signer))


def publisher_call(deployment: Deployment, publisher: str) -> tuple[Contract, str, tuple[Any, ...]]:
    return Contracts.of(deployment).book, "setPublisher", (address_of(publisher),)


def delay_call(deployment: Deployment, delay_s: int) -> tuple[Contract, str, tuple[Any, ...]]:
    """The timelock's own delay; off the dev chain at least two days."""
    return timelock_of(deployment), "updateDelay", (delay_s,)


async def _one(rpc: Rpc, deployment: Deployment, number: str) -> Change:
    """The change whose id begins so. Raises NotFound, Conflict."""
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    every = await changes(rpc, deployment, at=block["number"], now_s=int(block["timestamp"], 16))
    found = [change for change in every if change.id.startswith(number.lower())]
    if not found:
        raise NotFound(reason=f"No change {number} was proposed; `freehold governance` lists them.")
    if len(found) > 1:
        raise Conflict(reason=f"{len(found)} changes begin with {number}; write more of the id.")
    return found[0]


async def _operators(rpc: Rpc, deployment: Deployment, contracts: Contracts, at: str) -> list[Operator]:
    events = await own_events(rpc, contracts.vault, ("OperatorChanged",), None, deployment.from_block, at, "0x")
    names = list(dict.fromkeys(told["operator"] for _, told in events))
    places = await reads(rpc, at, [(contracts.vault, "operatorOf", (name,)) for name in names])
    covers = await reads(rpc, at, [(contracts.vault, "coverage", (name,)) for name in names])
    return [
        Operator(name, url, signer, committed, owed)
        for name, (url, signer), (committed, owed) in zip(names, places, covers, strict=True)
    ]


def _named(deployment: Deployment) -> dict[str, Contract]:
    kinds = {
        "staking": "Staking",
        "vault": "CapacityVault",
        "timelock": "FreeholdTimelock",
        "book": "EpochBook",
        "prepaid": "Prepaid",
    }
    return {
        address: template(kinds[name]).at(address) for name, address in deployment.contracts.items() if name in kinds
    }


def _call(known: Mapping[str, Contract], target: str, data: bytes) -> Call:
    contract = known.get(target)
    found = contract.calling(data) if contract is not None else None
    name, arguments = found or ("a call of its own", {"data": data})
    return Call(contract.name if contract else target, name, arguments, target, "0x" + data.hex())


def _read(timelock: Contract, raw: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    from freehold.chain.abi import read_log

    found = timelock.event(read_log(raw))
    assert found is not None  # noqa: S101 - only these topics were asked for
    return found


def _state(stamp: int, now_s: int) -> State:
    """TimelockController's timestamps: 0 unset, 1 done, else when it is ready."""
    if stamp == 0:
        return State.CANCELLED
    if stamp == 1:
        return State.DONE
    return State.READY if stamp <= now_s else State.WAITING


def _batch(change: Change) -> tuple[Any, ...]:
    return (
        [call.to for call in change.calls],
        [0] * len(change.calls),
        [from_hex(call.data) for call in change.calls],
        from_hex(change.predecessor),
        from_hex(change.salt),
    )


def _when(change: Change) -> str:
    from freehold.clock import rfc3339

    return f" before {rfc3339(change.ready_at_s)}" if change.state is State.WAITING else ""
