"""The real protocols on a dev chain with Freehold's tokens: swap, lend, be refused, be liquidated, permit, read in one call."""

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode
from tests.chain.defi.lab import FOLDER
from tests.chain.defi.lab import fetched as fetched_packages
from tests.chain.lab import START_S, USDC, Anvil

from freehold.chain.abi import Contract, from_hex, template
from freehold.chain.contracts import Contracts
from freehold.chain.defi import model, packages, prices
from freehold.chain.defi.deploy import FEE, LLTV, MULTICALL3, PERMIT2, WINDOW_S, deploy_defi, market_id
from freehold.chain.defi.model import Defi
from freehold.chain.defi.morpho import compiled
from freehold.chain.deploy import deploy_dev
from freehold.chain.dev import fund
from freehold.chain.model import Deployment
from freehold.chain.problems import DeploymentBroken, Reverted
from freehold.chain.wallet import DevWallet, read

ONE, USD, ALL = 10**18, 10**6, 2**256 - 1


class Town:
    def __init__(self, anvil: Anvil, deployment: Deployment, defi: Defi) -> None:
        self.anvil, self.rpc, self.deployment, self.defi = anvil, anvil.rpc, deployment, defi
        self.contracts = Contracts.of(deployment)

    def contract(self, name: str, address: str) -> Contract:
        kind = "v3-core" if name == "UniswapV3Pool" else "v3-periphery"
        return Contract(packages.v3(FOLDER, kind, name)["abi"], address=address, name=name.rpartition("/")[2])

    async def morpho(self) -> Contract:
        return Contract((await compiled(FOLDER, print))["Morpho"]["abi"], address=self.defi.morpho, name="Morpho")

    async def wait(self, seconds: int) -> None:
        await self.rpc.call("evm_increaseTime", seconds)
        await self.rpc.call("evm_mine")

    async def holder(self, name: str, diem: int) -> DevWallet:
        """A wallet with DIEM of its own, and USDC."""
        await fund(self.rpc, self.deployment, name, hold=200_000 * ONE, usdc=1_000_000 * USD)
        wallet = await DevWallet.open(self.rpc, name)
        staking = self.contracts.staking
        await wallet.send(self.contracts.hold, "approve", staking.address, ALL, what="Approving")
        await wallet.send(staking, "stake", wallet.address, 200_000 * ONE, what="Staking")
        await wallet.send(staking, "mintExact", diem, ALL, what="Minting")
        return wallet

    async def swap(self, wallet: DevWallet, given: Contract, wanted: Contract, amount: int) -> int:
        router = self.contract("SwapRouter", self.defi.router)
        before = await read(self.rpc, wanted, "balanceOf", wallet.address)
        await wallet.send(given, "approve", router.address, amount, what="Approving")
        order = (given.address, wanted.address, FEE, wallet.address, 2**40, amount, 0, 0)
        await wallet.send(router, "exactInputSingle", order, what="Swapping")
        after: int = await read(self.rpc, wanted, "balanceOf", wallet.address)
        return after - before


@pytest.fixture(scope="session")
async def fetched() -> AsyncIterator[Path]:
    yield await fetched_packages()


@pytest.fixture
async def town(fetched: Path) -> AsyncIterator[Town]:
    anvil = Anvil("--timestamp", str(START_S))
    await anvil.start()
    deployment = await deploy_dev(anvil.rpc, USDC)
    yield Town(anvil, deployment, await deploy_defi(anvil.rpc, deployment, fetched, say=print))
    await anvil.stop()


pytestmark = pytest.mark.timeout(1_200)  # the first test fetches and compiles


async def test_a_diem_is_worth_its_strips_and_its_principal(town: Town) -> None:
    """The pools' opening prices, as the chain has them: 183 USD, and less for what is later."""
    months = (await read(town.rpc, town.contracts.strips, "months"))[0]
    symbols = list(town.defi.pools)
    strips = [f"DIEM-{_label(months + ahead)}" for ahead in range(3)]
    assert symbols == ["DIEM", f"pDIEM-{_label(months + 2)}", *strips]
    oracle = template("TwapOracle")
    found = {s: await read(town.rpc, oracle.at(m.oracle), "price") / 10**24 for s, m in town.defi.markets.items()}
    assert abs(found["DIEM"] / 183 - 1) < 2e-4
    assert 0 < found[symbols[1]] < 183


def test_opening_prices_leave_no_free_lunch() -> None:
    months = ((0, 10), (10, 41), (41, 69))
    assert sum(prices.strip_usd(Decimal(a), Decimal(b)) for a, b in months) + prices.principal_usd(Decimal(69)) == (
        Decimal(prices.DIEM_USD)
    ).quantize(Decimal(1))
    assert prices.usdc_for(2 * ONE, Decimal("1.5")) == 3 * USD
    assert prices.root_price(4, 16) == 2 * 2**96


async def test_what_stands_is_not_deployed_again_and_what_does_not_is(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "defi.toml"
    model.save(path, town.defi)
    assert model.load(path) == town.defi
    head = await town.anvil.head()
    again = await deploy_defi(town.rpc, town.deployment, FOLDER, say=print, recorded=town.defi)
    assert (again, await town.anvil.head()) == (town.defi, head)
    gone = replace(town.defi, morpho="0x" + "ab" * 20)
    assert (await deploy_defi(town.rpc, town.deployment, FOLDER, say=print, recorded=gone)).morpho != gone.morpho


def test_a_broken_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "defi.toml"
    with pytest.raises(DeploymentBroken, match=r"defi\.toml can't be read"):
        model.load(path)
    path.write_text("factory = 1")
    with pytest.raises(DeploymentBroken, match="is not what Freehold wrote there: delete it"):
        model.load(path)


async def test_diem_is_sold_at_what_the_quoter_said(town: Town) -> None:
    alice = await town.holder("alice", 10 * ONE)
    quoter = town.contract("lens/QuoterV2", town.defi.quoter)
    diem, usdc = town.contracts.diem, town.contracts.usdc
    question = (diem.address, usdc.address, ONE, FEE, 0)
    quoted = (await read(town.rpc, quoter, "quoteExactInputSingle", question))[0]
    got = await town.swap(alice, diem, usdc, ONE)
    assert got == quoted
    assert 181 * USD < got < 183 * USD


async def test_a_strip_is_sold_in_its_pool(town: Town) -> None:
    alice = await town.holder("alice", 10 * ONE)
    month = (await read(town.rpc, town.contracts.strips, "months"))[0] + 1
    await alice.send(town.contracts.diem, "approve", town.contracts.strips.address, ALL, what="Approving")
    await alice.send(town.contracts.strips, "split", month, 10 * ONE, alice.address, what="Splitting")
    strip = template("Strip").at((await read(town.rpc, town.contracts.strips, "seriesOf", month))[0])
    assert await town.swap(alice, strip, town.contracts.usdc, ONE) > 20 * USD


async def test_usdc_is_borrowed_against_diem_up_to_the_limit_and_not_beyond(town: Town) -> None:
    alice, market = await town.holder("alice", 10 * ONE), town.defi.markets["DIEM"]
    morpho = await town.morpho()
    await alice.send(town.contracts.diem, "approve", morpho.address, ALL, what="Approving")
    await alice.send(
        morpho, "supplyCollateral", market.parameters, 10 * ONE, alice.address, b"", what="Pledging 10 DIEM"
    )
    most = 10 * await read(town.rpc, template("TwapOracle").at(market.oracle), "price") // 10**18 * LLTV // ONE
    before = await read(town.rpc, town.contracts.usdc, "balanceOf", alice.address)
    order = (alice.address, alice.address)
    with pytest.raises(Reverted, match="insufficient collateral"):
        await alice.send(morpho, "borrow", market.parameters, most + 2, 0, *order, what="Borrowing")
    await alice.send(morpho, "borrow", market.parameters, most - 10, 0, *order, what="Borrowing")
    assert await read(town.rpc, town.contracts.usdc, "balanceOf", alice.address) - before == most - 10


async def test_a_price_fall_liquidates_within_the_window(town: Town) -> None:
    alice, bob = await town.holder("alice", 10 * ONE), await town.holder("bob", 200 * ONE)
    market, morpho = town.defi.markets["DIEM"], await town.morpho()
    await alice.send(town.contracts.diem, "approve", morpho.address, ALL, what="Approving")
    await alice.send(morpho, "supplyCollateral", market.parameters, 10 * ONE, alice.address, b"", what="Pledging")
    await alice.send(
        morpho, "borrow", market.parameters, 1_300 * USD, 0, alice.address, alice.address, what="Borrowing"
    )
    await bob.send(town.contracts.usdc, "approve", morpho.address, ALL, what="Approving")
    seizing = (market.parameters, alice.address, ONE, 0, b"")
    with pytest.raises(Reverted, match="position is healthy"):
        await bob.send(morpho, "liquidate", *seizing, what="Liquidating")
    await town.swap(bob, town.contracts.diem, town.contracts.usdc, 150 * ONE)
    with pytest.raises(Reverted, match="position is healthy"):  # the mean has hardly moved yet
        await bob.send(morpho, "liquidate", *seizing, what="Liquidating")
    await town.wait(WINDOW_S)
    held = await read(town.rpc, town.contracts.diem, "balanceOf", bob.address)
    await bob.send(morpho, "liquidate", *seizing, what="Liquidating")
    assert await read(town.rpc, town.contracts.diem, "balanceOf", bob.address) == held + ONE


async def test_a_market_is_known_by_the_hash_of_its_parameters(town: Town) -> None:
    for market in town.defi.markets.values():
        assert market.id == "0x" + market_id(market.parameters).hex()
        supplied = (await read(town.rpc, await town.morpho(), "market", from_hex(market.id)))[0]
        assert supplied == 100_000 * USD


async def test_permit2_moves_what_was_allowed_to_it(town: Town) -> None:
    alice, bob = await town.holder("alice", 10 * ONE), await DevWallet.open(town.rpc, "bob")
    permit2 = Contract(PERMIT2_ABI, address=PERMIT2, name="Permit2")
    diem = town.contracts.diem
    await alice.send(diem, "approve", PERMIT2, ALL, what="Approving")
    await alice.send(permit2, "approve", diem.address, bob.address, ONE, 2**40, what="Allowing")
    await bob.send(permit2, "transferFrom", alice.address, bob.address, ONE, diem.address, what="Taking")
    assert await read(town.rpc, diem, "balanceOf", bob.address) == ONE


async def test_many_balances_are_read_in_one_call(town: Town) -> None:
    multicall = Contract(MULTICALL_ABI, address=MULTICALL3, name="Multicall3")
    diem = town.contracts.diem
    owners = [pool.address for pool in town.defi.pools.values()]
    calls = [(diem.address, False, from_hex(diem.call("balanceOf", owner))) for owner in owners]
    answers = await read(town.rpc, multicall, "aggregate3", calls)
    assert [decode(["uint256"], data)[0] for _, data in answers] == [
        await read(town.rpc, diem, "balanceOf", owner) for owner in owners
    ]


def _label(month: int) -> str:
    return f"{1970 + month // 12}-{month % 12 + 1:02}"


def _function(name: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "function", "name": name, "inputs": inputs, "outputs": outputs}


def _named(**kinds: str) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind} for name, kind in kinds.items()]


PERMIT2_ABI = [
    _function("approve", _named(token="address", spender="address", amount="uint160", expiration="uint48"), []),
    _function(
        "transferFrom",
        [{"name": "from", "type": "address"}, *_named(to="address", amount="uint160", token="address")],
        [],
    ),
]
_CALL = {
    "name": "calls",
    "type": "tuple[]",
    "components": _named(target="address", allowFailure="bool", callData="bytes"),
}
_ANSWER = {"name": "answers", "type": "tuple[]", "components": _named(success="bool", returnData="bytes")}
MULTICALL_ABI = [_function("aggregate3", [_CALL], [_ANSWER])]
