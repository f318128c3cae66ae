"""What only a dev chain can do: money from nowhere, and tomorrow."""

from dataclasses import dataclass

from eth_utils.address import is_address, to_checksum_address

from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import DevWallet, require_dev_chain
from freehold.clock import Day
from freehold.money import HOLD_DECIMALS, USDC_DECIMALS

FUND_HOLD = 10_000 * 10**HOLD_DECIMALS
FUND_USDC = 1_000 * 10**USDC_DECIMALS
FUND_GAS_WEI = 10**18
"""The chain's own coin, for a wallet that is none of the named ones, which have plenty."""


@dataclass(frozen=True, slots=True)
class Funded:
    """What a wallet was given, in base units."""

    name: str
    address: str
    hold: int
    usdc: int
    tx_hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advanced:
    day: int
    at_s: int
    block_number: int
    """The first block of the day."""


async def fund(rpc: Rpc, deployment: Deployment, name: str, *, hold: int = FUND_HOLD, usdc: int = FUND_USDC) -> Funded:
    """Give a dev wallet HOLD out of the deployer's and newly minted USDC. Raises WalletRefused, Reverted.

    `name` may be an address: it gets what gas costs, too.
    """
    contracts = Contracts.of(deployment)
    deployer = await DevWallet.open(rpc, "deployer")
    if is_address(name):
        address = str(to_checksum_address(name))
        balance = int(await rpc.call("eth_getBalance", address, "latest"), 16)
        await rpc.call("anvil_setBalance", address, hex(balance + FUND_GAS_WEI))
    else:
        address = (await DevWallet.open(rpc, name)).address
    receipts = []
    if hold and address != deployer.address:
        receipts.append(await deployer.send(contracts.hold, "transfer", address, hold, what=f"Sending HOLD to {name}"))
    if usdc:
        receipts.append(await deployer.send(contracts.usdc, "mint", address, usdc, what=f"Minting USDC for {name}"))
    return Funded(name, address, hold, usdc, tuple(receipt.tx_hash for receipt in receipts))


async def advance_day(rpc: Rpc, *, confirmations: int = 0) -> Advanced:
    """Move the dev chain to the next 00:00 UTC, and mine `confirmations` blocks on it. Raises WalletRefused elsewhere."""
    await require_dev_chain(rpc)
    newest = await rpc.call("eth_getBlockByNumber", "latest", False)
    day = Day.of(int(newest["timestamp"], 16)).next()
    # One second in, for an interval miner may put a block between these two calls.
    await rpc.call("evm_setNextBlockTimestamp", day.start_s + 1)
    for _ in range(1 + confirmations):
        await rpc.call("evm_mine")
    number = int(newest["number"], 16)
    at_s = 0
    while at_s < day.start_s:
        number += 1
        at_s = int((await rpc.call("eth_getBlockByNumber", hex(number), False))["timestamp"], 16)
    return Advanced(day.number, at_s, number)
