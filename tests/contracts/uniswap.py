"""The real Uniswap v3 from its npm packages, on the in-process EVM. Of them, only these tests use anything."""

import json
from dataclasses import dataclass
from math import isqrt
from typing import Any

from tests.contracts.evm import Contract, Evm
from tests.contracts.freehold_chain import DEPLOYER, ROOT

PACKAGES = ROOT / "contracts/node_modules/@uniswap"
FEE = 3_000
"""Parts in a million that a swap pays."""
WHOLE_RANGE = 887_220
"""The widest ticks of a pool with this fee."""
FOREVER_S = 2**40
_NO_WETH = "0x" + "00" * 19 + "01"


def _artifact(package: str, path: str) -> dict[str, Any]:
    file = PACKAGES / package / "artifacts/contracts" / f"{path}.sol" / f"{path.rpartition('/')[2]}.json"
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of base and quote, with DEPLOYER's liquidity over the whole range."""

    evm: Evm
    contract: Contract
    router: Contract
    base: Contract
    quote: Contract

    @property
    def base_first(self) -> bool:
        return int(self.base.address, 16) < int(self.quote.address, 16)

    @property
    def tick(self) -> int:
        found: int = self.contract.slot0()[1]
        return found

    @property
    def price(self) -> float:
        """Base units of quote for one base unit of base, now."""
        root = self.contract.slot0()[0] / 2**96
        return root**2 if self.base_first else root**-2

    def approve(self, owner: str) -> None:
        for token in (self.base, self.quote):
            token.approve(self.router.address, 2**256 - 1, sender=owner)

    def buy(self, quote_in: int, *, sender: str) -> int:
        """Base that so much quote buys."""
        return self._swap(self.quote, self.base, quote_in, sender)

    def sell(self, base_in: int, *, sender: str) -> int:
        """Quote that so much base brings."""
        return self._swap(self.base, self.quote, base_in, sender)

    def grow(self, observations: int) -> None:
        """Room for so many, in steps that fit into a block."""
        for next_size in (*range(500, observations, 500), observations):
            self.contract.increaseObservationCardinalityNext(next_size, sender=DEPLOYER)

    def _swap(self, given: Contract, wanted: Contract, amount: int, sender: str) -> int:
        order = (given.address, wanted.address, FEE, sender, FOREVER_S, amount, 0, 0)
        found: int = self.router.exactInputSingle(order, sender=sender)
        return found


def make_pool(evm: Evm, base: Contract, quote: Contract, *, base_amount: int, quote_amount: int) -> Pool:
    """A pool at the price of `quote_amount` for `base_amount`, with that much in it over the whole range, DEPLOYER's."""
    factory = evm.deploy(_artifact("v3-core", "UniswapV3Factory"), sender=DEPLOYER)
    manager = evm.deploy(
        _artifact("v3-periphery", "NonfungiblePositionManager"), factory.address, _NO_WETH, _NO_WETH, sender=DEPLOYER
    )
    router = evm.deploy(_artifact("v3-periphery", "SwapRouter"), factory.address, _NO_WETH, sender=DEPLOYER)
    amounts = {base.address: base_amount, quote.address: quote_amount}
    first, second = sorted(amounts, key=lambda address: int(address, 16))
    root = isqrt((amounts[second] << 192) // amounts[first])
    manager.createAndInitializePoolIfNecessary(first, second, FEE, root, sender=DEPLOYER)
    for token in (base, quote):
        token.approve(manager.address, 2**256 - 1, sender=DEPLOYER)
    ticks = (-WHOLE_RANGE, WHOLE_RANGE)
    order = (first, second, FEE, *ticks, amounts[first], amounts[second], 0, 0, DEPLOYER, FOREVER_S)
    manager.mint(order, sender=DEPLOYER)
    pool = Contract(evm, _artifact("v3-core", "UniswapV3Pool")["abi"], factory.getPool(first, second, FEE))
    return Pool(evm, pool, router, base, quote)
