"""What each verb costs in gas, from anvil's receipts: contracts/gas.md says it, and this module writes it.

To write it: `PYTHONPATH=src:. python -m tests.contracts.test_gas`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chain.lab import ROOT, START_S, USDC, Anvil

from freehold.chain.abi import Contract
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import deploy_dev
from freehold.chain.wallet import addresses, read

TABLE = ROOT / "contracts/gas.md"
ONE = 10**18
DAY_S = 86_400
ALL = 2**256 - 1

HEAD = """# Gas

Of each verb, as a transaction on the dev chain (anvil's receipts); `tests/contracts/test_gas.py` writes this page and
fails when it is out of date. "First" means that the account, beneficiary or operator had nothing there before.

| verb | gas |
|---|---:|
"""


@dataclass
class Meter:
    anvil: Anvil
    sender: str
    now_s: int = START_S + 1_000
    """Of the next block: 12 s after the one before, so that no row depends on how fast the machine is."""
    rows: list[tuple[str, int]] = field(default_factory=list)

    async def send(self, contract: Contract, function: str, *args: Any, sender: str | None = None) -> int:
        """Gas used by a transaction, which must succeed."""
        call = {"from": sender or self.sender, "to": contract.address, "data": contract.call(function, *args)}
        sent = await self.anvil.rpc.call("eth_sendTransaction", {**call, "gas": hex(10_000_000)})
        await self.anvil.mine(at_s=self.now_s)
        self.now_s += 12
        receipt = await self.anvil.rpc.call("eth_getTransactionReceipt", sent)
        assert int(receipt["status"], 16) == 1, function
        return int(receipt["gasUsed"], 16)

    async def note(
        self, contract: Contract, function: str, *args: Any, when: str = "", sender: str | None = None
    ) -> None:
        gas = await self.send(contract, function, *args, sender=sender)
        self.rows.append((f"{contract.name}.{function}{when}", gas))

    async def wait(self, seconds: int) -> None:
        self.now_s += seconds


@asynccontextmanager
async def started() -> AsyncIterator[Anvil]:
    anvil = Anvil("--no-mining", "--timestamp", str(START_S))
    await anvil.start()
    try:
        yield anvil
    finally:
        await anvil.stop()


async def table() -> str:
    async with started() as anvil:
        deployment = await deploy_dev(anvil.rpc, USDC)
        contracts, known = Contracts.of(deployment), await addresses(anvil.rpc)
        operator, alice, bob = deployment.operator, known["alice"], known["bob"]
        hold, staking, diem, vault = contracts.hold, contracts.staking, contracts.diem, contracts.vault
        strips = contracts.strips
        meter = Meter(anvil, alice)
        await meter.send(hold, "transfer", alice, 1_000_000 * ONE, sender=known["deployer"])
        await meter.send(contracts.usdc, "mint", alice, 10**9, sender=known["deployer"])
        for token, spender in ((hold, staking), (diem, vault), (contracts.usdc, contracts.prepaid), (diem, strips)):
            await meter.send(token, "approve", spender.address, ALL)

        await meter.note(staking, "stake", alice, 100_000 * ONE, when=", first")
        await meter.send(staking, "stake", alice, ONE)
        await meter.note(staking, "stake", alice, 100_000 * ONE)
        await meter.note(staking, "mintExact", 100 * ONE, ALL, when=", first")
        await meter.note(staking, "mintExact", 100 * ONE, ALL)
        await meter.note(staking, "mint", 10_000 * ONE, 0)
        await meter.note(staking, "burn", 10 * ONE, 0)
        await meter.note(staking, "requestUnstake", 100 * ONE)
        await meter.note(staking, "cancelUnstake", 1)
        await meter.send(staking, "requestUnstake", 100 * ONE)
        await meter.wait(7 * DAY_S)
        await meter.note(staking, "withdraw", 2)

        await meter.note(staking, "claim", when=", first")
        await meter.note(staking, "claim")
        await meter.note(staking, "claimAndStake")

        await meter.note(diem, "transfer", bob, ONE, when=", first")
        await meter.note(diem, "transfer", bob, ONE)

        await meter.note(vault, "stake", 10 * ONE, operator, alice, when=", first")
        await meter.note(vault, "stake", 10 * ONE, operator, alice, when=", same day")
        await meter.wait(DAY_S)
        await meter.note(vault, "stake", 10 * ONE, operator, alice, when=", later day")
        await meter.note(vault, "redirect", operator, alice, operator, bob, ONE, when=", first")
        await meter.note(vault, "requestUnstake", operator, alice, ONE)
        await meter.note(vault, "cancelUnstake", 1, when=", same day")
        await meter.send(vault, "requestUnstake", operator, alice, ONE)
        await meter.wait(DAY_S)
        await meter.note(vault, "withdraw", 2)

        month = (await read(anvil.rpc, strips, "months"))[0]
        await meter.note(strips, "split", month, 10 * ONE, alice, when=", this month, first of all")
        await meter.note(strips, "split", month, 10 * ONE, alice, when=", this month")
        await meter.note(strips, "split", month + 35, 10 * ONE, alice, when=", 36 months, first of all")
        await meter.note(strips, "split", month + 35, 10 * ONE, alice, when=", 36 months")
        await meter.note(strips, "activate", month, 2 * ONE, operator, alice, when=", this month, first")
        await meter.note(strips, "activate", month, 2 * ONE, operator, alice, when=", this month")
        await meter.note(strips, "activate", month + 1, 2 * ONE, operator, alice, when=", next month, first")
        await meter.note(strips, "redirectActivated", month, ONE, operator, alice, operator, bob, when=", first")
        await meter.note(strips, "merge", month + 35, ONE, alice, when=", 36 months")
        await meter.note(vault, "stake", ONE, operator, alice, when=", strips active for two months")
        await meter.wait(31 * DAY_S)
        await meter.note(strips, "redeem", month, ONE, alice)

        await meter.note(contracts.prepaid, "deposit", alice, 5_000_000, when=", first of all")
        await meter.note(contracts.prepaid, "deposit", alice, 5_000_000)
        book, day = contracts.book, meter.now_s // DAY_S - 1
        purse = (0, 10**9, 4 * 10**8, 6 * 10**8, 0)
        for when in (", first of all", ""):
            await meter.note(book, "publish", day, b"\x01" * 32, (purse,) * 4, sender=operator, when=when)
            day += 1
            await meter.wait(DAY_S)
        return HEAD + "".join(f"| {verb} | {gas:,} |\n" for verb, gas in meter.rows)


async def test_the_page_says_what_each_verb_costs() -> None:
    assert TABLE.read_text() == await table()


if __name__ == "__main__":
    TABLE.write_text(asyncio.run(table()))
