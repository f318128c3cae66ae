"""What staked HOLD has earned, and taking it. Amounts are base units (10^-18 HOLD)."""

from dataclasses import dataclass

from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.verbs import Done, address_of, done, reads, said
from freehold.chain.wallet import Wallet


@dataclass(frozen=True, slots=True)
class Claimed(Done):
    amount: int
    restaked: bool
    staked: int
    """All sHOLD of the wallet now."""


@dataclass(frozen=True, slots=True)
class Earning:
    """What a wallet's stake earns."""

    claimable: int
    emitted_per_second: int
    """HOLD that all stakes together earn."""


async def earning(rpc: Rpc, deployment: Deployment, address: str) -> Earning:
    """What `address` could claim now, and how fast HOLD is emitted."""
    staking = Contracts.of(deployment).staking
    claimable, emission = await reads(
        rpc, "latest", [(staking, "claimable", (address_of(address),)), (staking, "emissionPerSecond", ())]
    )
    return Earning(claimable, emission)


async def claim(wallet: Wallet, deployment: Deployment, *, restake: bool = False) -> Claimed:
    """Take what the stake has earned, as HOLD, or stake it at once. Raises Reverted when there is nothing."""
    staking = Contracts.of(deployment).staking
    what = "Claiming and restaking" if restake else "Claiming"
    receipt = await wallet.send(staking, "claimAndStake" if restake else "claim", what=what)
    told = said(receipt, staking, "Claimed")
    staked = await wallet.read(staking, "balanceOf", wallet.address)
    return Claimed(*done(receipt), amount=told["amount"], restaked=restake, staked=staked)
