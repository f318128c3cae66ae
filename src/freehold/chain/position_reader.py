"""Reads all that one address has: its tokens, stakes and dated capacity, what it has pooled, lent and owes, and the prices."""

from fractions import Fraction

from freehold.chain.abi import Contract, read_log
from freehold.chain.contracts import Contracts
from freehold.chain.defi import uniswap
from freehold.chain.defi.lending import accounts_of
from freehold.chain.defi.liquidity import Position, positions_of
from freehold.chain.defi.model import Defi
from freehold.chain.defi.pools import USDC, states
from freehold.chain.model import Deployment
from freehold.chain.position import Facts, Pooled
from freehold.chain.rewards import earning
from freehold.chain.rpc import Rpc
from freehold.chain.series import dated
from freehold.chain.verbs import address_of, positions
from freehold.chain.wallet import read


async def look(rpc: Rpc, deployment: Deployment, address: str, defi: Defi | None = None) -> Facts:
    """Everything of `address`; without `defi` only USDC has a market value, for it counts as a USD. Raises NodeUnavailable, Reverted."""
    owner = address_of(address)
    earned = await earning(rpc, deployment, owner)
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    return Facts(
        now_s=int(block["timestamp"], 16),
        positions=await positions(rpc, deployment, owner),
        dated=await dated(rpc, deployment, owner),
        earned=earned.claimable,
        emission_per_second=earned.emitted_per_second,
        total_staked=await read(rpc, Contracts.of(deployment).staking, "totalSupply"),
        prices={USDC: Fraction(1), **(await prices_of(rpc, deployment, defi) if defi else {})},
        pooled=tuple(await _pooled(rpc, deployment, defi, owner)) if defi else (),
        accounts=tuple(await accounts_of(rpc, defi, owner)) if defi else (),
    )


async def prices_of(rpc: Rpc, deployment: Deployment, defi: Defi) -> dict[str, Fraction]:
    """USD of 1 token at the pools' present prices, before any impact."""
    return {state.symbol: Fraction(state.price) for state in await states(rpc, deployment, defi)}


async def _pooled(rpc: Rpc, deployment: Deployment, defi: Defi, owner: str) -> list[Pooled]:
    """Both tokens of each of the owner's positions."""
    found: list[Pooled] = []
    for each in await positions_of(rpc, deployment, defi, owner):
        since_s = await _since(rpc, uniswap.positions(defi), each, deployment.from_block)
        found += [
            Pooled(each.id, each.state.symbol, each.base, each.base_owed, since_s),
            Pooled(each.id, USDC, each.usdc, each.usdc_owed, since_s),
        ]
    return found


async def _since(rpc: Rpc, manager: Contract, position: Position, first: int) -> int:
    """When its fees began: at its first deposit or its last collection; 0 when a withdrawal waits among them."""
    names = ("IncreaseLiquidity", "DecreaseLiquidity", "Collect")
    topics = [[manager.topic(name) for name in names], f"0x{position.id:064x}"]
    query = {"address": manager.address, "topics": topics, "fromBlock": hex(first), "toBlock": "latest"}
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
