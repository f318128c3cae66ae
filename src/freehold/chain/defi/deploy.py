"""Uniswap v3, Morpho Blue, Permit2 and Multicall3 onto a dev chain, with pools and markets that can be used at once."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from freehold.chain.abi import Contract, artifact, template
from freehold.chain.contracts import Contracts
from freehold.chain.defi import packages, prices
from freehold.chain.defi.model import Defi, Market, Pool
from freehold.chain.defi.morpho import compiled
from freehold.chain.deploy import Plan, carry_out
from freehold.chain.model import Deployment
from freehold.chain.problems import PackageUnavailable
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import addresses, read
from freehold.clock import DAY_S

MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
FEE = 3_000
"""Parts in a million; ticks are then multiples of 60."""
WHOLE_RANGE = 887_220
LLTV = 77 * 10**16
"""The most that may be borrowed against a collateral's value: 77 %."""
OBSERVATIONS = 1_801
"""A half hour of blocks a second, and the one before."""
MONTHS_AHEAD = 2
"""The last month that has a pool, for its principal, too: strips from this month to that one have pools."""
PRICED = 2
"""The first pools, DIEM's and the principal's, have an oracle and a market each."""
WINDOW_S = 1_800
_AT_ONCE = 360
"""Observations that a pool is given room for in one transaction: 8 million gas."""
_SEED_DIEM = 500 * 10**18
"""In each pool."""
_SUPPLY_USDC = 100_000 * 10**6
"""Lent in each market."""
_FOREVER_S = 2**40
_ALL = 2**256 - 1
_NO_WETH = "0x000000000000000000000000000000000000dEaD"
"""Nothing here pays in the chain's own coin."""


@dataclass(frozen=True, slots=True)
class _Protocols:
    factory: Contract
    router: Contract
    positions: Contract
    quoter: Contract
    morpho: Contract
    rate_model: str


@dataclass(frozen=True, slots=True)
class _Seed:
    """A pool to be made."""

    symbol: str
    base: Contract
    price_usd: Decimal


async def deploy_defi(
    rpc: Rpc,
    deployment: Deployment,
    folder: Path,
    *,
    say: Callable[[str], None],
    recorded: Defi | None = None,
    ripen: bool = True,
) -> Defi:
    """The protocols on this dev chain, out of the fetched packages in `folder`: `recorded` if they stand, else new ones.

    The deployer mints what seeds pools and markets. With `ripen` the chain then moves on by half an hour, so that the
    oracles have a history and the markets can be borrowed from at once.
    Raises WalletRefused off the dev chain, PackageUnavailable, DeploymentBroken, Reverted, NodeUnavailable.
    """
    deployer = (await addresses(rpc))["deployer"]
    if recorded is not None and await stands(rpc, deployment, recorded):
        return recorded
    await _put_singletons(rpc, folder, deployer)
    say("Deploying Uniswap v3 and Morpho Blue.")
    protocols = await _deploy(rpc, deployer, folder, say)
    contracts = Contracts.of(deployment)
    say("Seeding pools of DIEM, of a principal and of three months' strips against USDC.")
    seeds = await _split(rpc, deployer, contracts)
    pools = await _pools(rpc, deployer, folder, contracts, protocols, seeds)
    say("Opening lending markets against DIEM and the principal.")
    markets = await _markets(rpc, deployer, contracts, protocols, seeds[:PRICED], pools)
    if ripen:
        await rpc.call("evm_increaseTime", WINDOW_S)
        await rpc.call("evm_mine")
    return Defi(
        chain_id=deployment.chain_id,
        vault=deployment.contracts["vault"],
        factory=protocols.factory.address,
        router=protocols.router.address,
        positions=protocols.positions.address,
        quoter=protocols.quoter.address,
        morpho=protocols.morpho.address,
        permit2=PERMIT2,
        multicall=MULTICALL3,
        pools=pools,
        markets=markets,
    )


async def stands(rpc: Rpc, deployment: Deployment, defi: Defi) -> bool:
    """Whether all of `defi` is on this chain, and was made for this deployment. Raises NodeUnavailable."""
    if (defi.chain_id, defi.vault) != (deployment.chain_id, deployment.contracts["vault"]):
        return False
    places = [defi.factory, defi.router, defi.positions, defi.quoter, defi.morpho, defi.permit2, defi.multicall]
    places += [pool.address for pool in defi.pools.values()] + [market.oracle for market in defi.markets.values()]
    codes = await rpc.batch([("eth_getCode", [place, "latest"]) for place in places])
    return all(code not in ("0x", None) for code in codes)


async def _put_singletons(rpc: Rpc, folder: Path, deployer: str) -> None:
    """Permit2 and Multicall3 at the addresses that they have on every chain."""
    permit2 = _hex_in(
        packages.text(folder, "@uniswap/v4-periphery", "lib/permit2/test/utils/DeployPermit2.sol"), r'hex"'
    )
    await rpc.call("anvil_setCode", PERMIT2, permit2)
    creation = _hex_in(packages.text(folder, "viem", "constants/contracts.ts"), r"multicall3Bytecode\s*=\s*'0x")
    runtime = await rpc.call("eth_call", {"from": deployer, "data": creation})
    await rpc.call("anvil_setCode", MULTICALL3, runtime)


def _hex_in(source: str, before: str) -> str:
    found = re.search(before + "([0-9a-f]{100,})", source)
    if found is None:
        raise PackageUnavailable(package="Permit2 or Multicall3", reason="its bytecode is not where it was")
    return "0x" + found.group(1)


async def _deploy(rpc: Rpc, deployer: str, folder: Path, say: Callable[[str], None]) -> _Protocols:
    morpho_artifacts = await compiled(folder, say)
    plan = await _plan(rpc, deployer)

    def create(name: str, found: Any, *arguments: Any) -> Contract:
        contract = Contract(found["abi"], name=name)
        return contract.at(plan.create(contract, found["bytecode"], *arguments))

    factory = create("UniswapV3Factory", packages.v3(folder, "v3-core", "UniswapV3Factory"))
    where = (factory.address, _NO_WETH)
    router = create("SwapRouter", packages.v3(folder, "v3-periphery", "SwapRouter"), *where)
    quoter = create("QuoterV2", packages.v3(folder, "v3-periphery", "lens/QuoterV2"), *where)
    found = packages.v3(folder, "v3-periphery", "NonfungiblePositionManager")
    positions = create("NonfungiblePositionManager", found, *where, _NO_WETH)  # its pictures of positions are left out
    morpho = create("Morpho", morpho_artifacts["Morpho"], deployer)
    rate_model = create("IrmMock", morpho_artifacts["IrmMock"])
    plan.send(morpho, "enableIrm", rate_model.address)
    plan.send(morpho, "enableLltv", LLTV)
    await carry_out(rpc, plan)
    return _Protocols(factory, router, positions, quoter, morpho, rate_model.address)


async def _split(rpc: Rpc, deployer: str, contracts: Contracts) -> list[_Seed]:
    """DIEM of the deployer's own, half of it split: what the pools are seeded with, DIEM and principal first."""
    needed = 2 * _SEED_DIEM
    cost = await read(rpc, contracts.staking, "quoteLock", needed)
    this_month, _ = await read(rpc, contracts.strips, "months")
    last = this_month + MONTHS_AHEAD
    plan = await _plan(rpc, deployer)
    plan.send(contracts.hold, "approve", contracts.staking.address, cost)
    plan.send(contracts.staking, "stake", deployer, cost)
    plan.send(contracts.staking, "mintExact", needed, cost)
    plan.send(contracts.diem, "approve", contracts.strips.address, _SEED_DIEM)
    plan.send(contracts.strips, "split", last, _SEED_DIEM, deployer)
    await carry_out(rpc, plan)
    newest = await rpc.call("eth_getBlockByNumber", "latest", False)
    now = Decimal(int(newest["timestamp"], 16)) / DAY_S
    months = range(this_month, last + 1)
    series = [await read(rpc, contracts.strips, "seriesOf", month) for month in months]
    firsts = [await read(rpc, contracts.strips, "firstDayOf", month) for month in (*months, last + 1)]
    begins = [max(Decimal(0), first - now) for first in firsts]
    principal = template("Strip").at(series[-1][1])
    seeds = [
        _Seed("DIEM", contracts.diem, Decimal(prices.DIEM_USD)),
        _Seed(await read(rpc, principal, "symbol"), principal, prices.principal_usd(begins[-1])),
    ]
    for (address, _), (first, after) in zip(series, pairwise(begins), strict=True):
        strip = template("Strip").at(address)
        seeds.append(_Seed(await read(rpc, strip, "symbol"), strip, prices.strip_usd(first, after)))
    return seeds


async def _pools(
    rpc: Rpc, deployer: str, folder: Path, contracts: Contracts, protocols: _Protocols, seeds: Sequence[_Seed]
) -> dict[str, Pool]:
    """A pool for each seed, with liquidity over the whole range; room for a half hour's observations where an oracle looks."""
    usdc, manager = contracts.usdc, protocols.positions
    plan = await _plan(rpc, deployer)
    plan.send(usdc, "approve", manager.address, _ALL)
    for seed in seeds:
        worth = prices.usdc_for(_SEED_DIEM, seed.price_usd)
        amounts = {seed.base.address: _SEED_DIEM, usdc.address: worth}
        first, second = sorted(amounts, key=lambda address: int(address, 16))
        root = prices.root_price(amounts[first], amounts[second])
        plan.send(usdc, "mint", deployer, worth)
        plan.send(seed.base, "approve", manager.address, _SEED_DIEM)
        plan.send(manager, "createAndInitializePoolIfNecessary", first, second, FEE, root)
        ticks = (-WHOLE_RANGE, WHOLE_RANGE)
        order = (first, second, FEE, *ticks, amounts[first], amounts[second], 0, 0, deployer, _FOREVER_S)
        plan.send(manager, "mint", order)
    await carry_out(rpc, plan)
    made = {
        seed.symbol: Pool(
            await read(rpc, protocols.factory, "getPool", seed.base.address, usdc.address, FEE), seed.base.address, FEE
        )
        for seed in seeds
    }
    abi = packages.v3(folder, "v3-core", "UniswapV3Pool")["abi"]
    plan = await _plan(rpc, deployer)
    for pool in list(made.values())[:PRICED]:
        for size in (*range(_AT_ONCE, OBSERVATIONS, _AT_ONCE), OBSERVATIONS):
            contract = Contract(abi, address=pool.address, name="UniswapV3Pool")
            plan.send(contract, "increaseObservationCardinalityNext", size)
    await carry_out(rpc, plan)
    return made


async def _markets(
    rpc: Rpc,
    deployer: str,
    contracts: Contracts,
    protocols: _Protocols,
    seeds: Sequence[_Seed],
    pools: dict[str, Pool],
) -> dict[str, Market]:
    """A market for each seed, priced by its pool's half-hour mean, with USDC to borrow."""
    usdc, morpho = contracts.usdc, protocols.morpho
    oracle = template("TwapOracle")
    plan = await _plan(rpc, deployer)
    plan.send(usdc, "mint", deployer, _SUPPLY_USDC * len(seeds))
    plan.send(usdc, "approve", morpho.address, _ALL)
    made: dict[str, Market] = {}
    for seed in seeds:
        pool, base = pools[seed.symbol].address, seed.base.address
        priced = plan.create(oracle, artifact("TwapOracle")["bytecode"], pool, base, usdc.address)
        parameters = (usdc.address, base, priced, protocols.rate_model, LLTV)
        plan.send(morpho, "createMarket", parameters)
        plan.send(morpho, "supply", parameters, _SUPPLY_USDC, 0, deployer, b"")
        made[seed.symbol] = Market(*parameters, id="0x" + market_id(parameters).hex())
    await carry_out(rpc, plan)
    return made


def market_id(parameters: tuple[str, str, str, str, int]) -> bytes:
    """Morpho's id of a market: the hash of its five parameters."""
    return keccak(encode(["address"] * 4 + ["uint256"], [*map(to_checksum_address, parameters[:4]), parameters[4]]))


async def _plan(rpc: Rpc, deployer: str) -> Plan:
    return Plan(deployer, int(await rpc.call("eth_getTransactionCount", deployer, "latest"), 16))
