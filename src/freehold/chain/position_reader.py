"""Reads all that one address has: its tokens, stakes and dated capacity, what it has pooled, lent and owes, and the prices."""

from fractions import Fraction
from typing import Any

from freehold.chain.abi import Abi, Contract, read_log
from freehold.chain.contracts import Contracts
from freehold.chain.defi.lending import accounts_of
from freehold.chain.defi.model import Defi
from freehold.chain.model import Deployment
from freehold.chain.position import Facts, Pooled
from freehold.chain.problems import RpcError
from freehold.chain.rewards import earning
from freehold.chain.rpc import Rpc
from freehold.chain.series import dated
from freehold.chain.verbs import address_of, positions, reads
from freehold.chain.wallet import read, reverted

_FOREVER_S = 2**40
_ALL_OF_IT = 2**128 - 1
_SQUARED = 2**192
"""Uniswap's prices are square roots times 2^96."""


def _function(name: str, inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    kinds = [{"name": "", "type": "tuple", "components": _plain(inputs)}] if len(inputs) > 2 else _plain(inputs)
    return {"type": "function", "name": name, "inputs": kinds, "outputs": _plain(outputs)}


def _plain(kinds: list[str]) -> list[dict[str, str]]:
    return [{"name": "", "type": kind} for kind in kinds]


def _event(name: str, kinds: list[str]) -> dict[str, Any]:
    fields = [{"name": f"value{n}", "type": kind, "indexed": False} for n, kind in enumerate(kinds)]
    return {"type": "event", "name": name, "inputs": [{"name": "tokenId", "type": "uint256", "indexed": True}, *fields]}


_MANAGER: Abi = [
    _function("balanceOf", ["address"], ["uint256"]),
    _function("tokenOfOwnerByIndex", ["address", "uint256"], ["uint256"]),
    _function(
        "positions",
        ["uint256"],
        ["uint96", "address", "address", "address", "uint24", "int24", "int24", "uint128"]
        + ["uint256"] * 2
        + ["uint128"] * 2,
    ),
    _function("decreaseLiquidity", ["uint256", "uint128", "uint256", "uint256", "uint256"], ["uint256", "uint256"]),
    _function("collect", ["uint256", "address", "uint128", "uint128"], ["uint256", "uint256"]),
    _event("IncreaseLiquidity", ["uint128", "uint256", "uint256"]),
    _event("DecreaseLiquidity", ["uint128", "uint256", "uint256"]),
    _event("Collect", ["address", "uint256", "uint256"]),
]
"""What is read of Uniswap v3's positions, whose own ABI isn't shipped."""
_POOL: Abi = [
    _function("slot0", [], ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]),
]


async def look(rpc: Rpc, deployment: Deployment, address: str, defi: Defi | None = None) -> Facts:
    """Everything of `address`; without `defi` nothing has a market value. Raises NodeUnavailable, Reverted, RpcError."""
    owner = address_of(address)
    has = await positions(rpc, deployment, owner)
    capacity = await dated(rpc, deployment, owner)
    earned = await earning(rpc, deployment, owner)
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    at = block["number"]
    return Facts(
        now_s=int(block["timestamp"], 16),
        positions=has,
        dated=capacity,
        earned=earned.claimable,
        emission_per_second=earned.emitted_per_second,
        total_staked=await read(rpc, Contracts.of(deployment).staking, "totalSupply", at=at),
        prices=await prices_of(rpc, deployment, defi, at=at) if defi else {},
        pooled=tuple(await _pooled(rpc, deployment, defi, owner, at)) if defi else (),
        accounts=tuple(await accounts_of(rpc, defi, owner, at=at)) if defi else (),
    )


async def prices_of(rpc: Rpc, deployment: Deployment, defi: Defi, *, at: str = "latest") -> dict[str, Fraction]:
    """USD of 1 token at the pools' present prices, before any impact; a USDC is 1 USD."""
    usdc = deployment.contracts["usdc"]
    symbols = list(defi.pools)
    slots = await reads(rpc, at, [(Contract(_POOL, address=defi.pools[each].address), "slot0", ()) for each in symbols])
    found = {"USDC": Fraction(1)}
    for symbol, slot in zip(symbols, slots, strict=True):
        price = Fraction(slot[0] ** 2, _SQUARED)  # token1 for token0, in base units
        first = int(defi.pools[symbol].base, 16) < int(usdc, 16)
        found[symbol] = (price if first else 1 / price) * 10**12  # 18 decimals against 6
    return found


async def _pooled(rpc: Rpc, deployment: Deployment, defi: Defi, owner: str, at: str) -> list[Pooled]:
    """What each of the owner's positions would give if all of it were taken out: the manager's own answers, not sent."""
    manager = Contract(_MANAGER, address=defi.positions, name="Uniswap's positions")
    count = await read(rpc, manager, "balanceOf", owner, at=at)
    ids = await reads(rpc, at, [(manager, "tokenOfOwnerByIndex", (owner, n)) for n in range(count)])
    placed = await reads(rpc, at, [(manager, "positions", (id,)) for id in ids])
    symbols = {pool.base: symbol for symbol, pool in defi.pools.items()} | {deployment.contracts["usdc"]: "USDC"}
    found: list[Pooled] = []
    for id, position in zip(ids, placed, strict=True):
        tokens, liquidity = position[2:4], position[7]
        if not set(tokens) <= set(symbols):
            continue  # of a pool that isn't ours
        amounts = (0, 0)
        if liquidity:
            amounts = await _would(rpc, manager, at, owner, "decreaseLiquidity", (id, liquidity, 0, 0, _FOREVER_S))
        fees = await _would(rpc, manager, at, owner, "collect", (id, owner, _ALL_OF_IT, _ALL_OF_IT))
        since_s = await _since(rpc, manager, id, deployment.from_block, at)
        found += [
            Pooled(id, symbols[token], amount, fee, since_s)
            for token, amount, fee in zip(tokens, amounts, fees, strict=True)
        ]
    return found


async def _would(
    rpc: Rpc, manager: Contract, at: str, owner: str, function: str, parameters: tuple[Any, ...]
) -> tuple[int, int]:
    call = {"from": owner, "to": manager.address, "data": manager.call(function, parameters)}
    try:
        first, second = manager.result(function, await rpc.call("eth_call", call, at))
    except RpcError as error:
        raise reverted(f"Reading position {parameters[0]}", error) from None
    return first, second


async def _since(rpc: Rpc, manager: Contract, id: int, first: int, at: str) -> int:
    """When its fees began: at its first deposit or its last collection; 0 when a withdrawal waits among them."""
    names = ("IncreaseLiquidity", "DecreaseLiquidity", "Collect")
    topics = [[manager.topic(name) for name in names], f"0x{id:064x}"]
    query = {"address": manager.address, "topics": topics, "fromBlock": hex(first), "toBlock": at}
    since, waiting = None, False
    for raw in await rpc.call("eth_getLogs", query):
        told = manager.event(read_log(raw))
        name = told[0] if told else ""
        if name == "Collect" or (name == "IncreaseLiquidity" and since is None):
            since = raw["blockNumber"]
        waiting = name == "DecreaseLiquidity" or (waiting and name != "Collect")
    if since is None or waiting:
        return 0
    block = await rpc.call("eth_getBlockByNumber", since, False)
    return int(block["timestamp"], 16)
