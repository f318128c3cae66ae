"""A deployment on a chain of one's own: carried out step by step, gone on with after any failure, and checked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.chain.foreign import CHAIN_ID, CONFIRMATIONS, Key, funded, mined, mining, put_usdc
from tests.chain.lab import START_S, USDC, Anvil

from freehold.chain import audit, governance, rollout
from freehold.chain.abi import from_hex, template
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import GAS, LEAST_DELAY_S, Parameters, role_of
from freehold.chain.journal import Journal
from freehold.chain.keywallet import KeyWallet
from freehold.chain.model import Deployment
from freehold.chain.problems import DeploymentBroken, NodeUnavailable, NotMined, WalletRefused
from freehold.chain.rollout import Outcome, Rollout
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import read

STEPS = 10
"""Five contracts, scheduling, HOLD to its holder, two rights renounced, executing."""


@dataclass
class Site:
    """A chain, its USDC, and who deploys."""

    anvil: Anvil
    deployer: Key
    governor: KeyWallet
    parameters: Parameters
    folder: Path
    said: list[str] = field(default_factory=list)

    async def run(
        self, rpc: Rpc | None = None, *, patience_s: float = 60.0, name: str = "deployment.journal"
    ) -> Outcome:
        """One run of the deployment, on the journal that there may be."""
        wallet = self.deployer if rpc is None else self.with_rpc(rpc)
        with Journal.open(self.folder / name) as journal:
            if journal.begun is None:
                await rollout.begin(wallet.rpc, journal, self.parameters, wallet.address)
            return await Rollout(
                wallet, journal, package=None, tell=self.said.append, patience_s=patience_s, look_every_s=0.02
            ).run()

    def with_rpc(self, rpc: Rpc) -> KeyWallet:
        return Key(rpc, self.deployer.secret(), name="deployer")

    async def audit(self, deployment: Deployment, *, waiting: bool = False, fresh: bool = True) -> list[audit.Finding]:
        with Journal.open(self.folder / "deployment.journal") as journal:
            return await audit.audit(self.anvil.rpc, deployment, journal.begun, fresh=fresh, waiting=waiting)

    async def sent(self) -> int:
        """Transactions of the deployer that were mined."""
        return int(await self.anvil.rpc.call("eth_getTransactionCount", self.deployer.address, "latest"), 16)

    async def newest(self) -> int:
        """The block of the last step."""
        with Journal.open(self.folder / "deployment.journal") as journal:
            return max(entry.block or 0 for entry in journal.entries)

    async def left_waiting(self) -> None:
        """A run that is cut off once its first transaction waits, on a chain that doesn't mine."""
        await self.anvil.rpc.call("evm_setAutomine", False)
        running = asyncio.create_task(self.run())
        async with asyncio.timeout(120):
            while not int((await self.anvil.rpc.call("txpool_status"))["pending"], 16):
                assert not running.done(), "the run ended before it sent anything"
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.wait([running])

    async def heard(self, sentence: str, running: "asyncio.Task[Outcome]") -> None:
        async with asyncio.timeout(120):
            while sentence not in self.said:
                assert not running.done(), f"never said: {sentence}"
                await asyncio.sleep(0.02)

    async def delay_over(self) -> None:
        await self.anvil.rpc.call("evm_increaseTime", LEAST_DELAY_S + 1)
        await self.anvil.mine()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Nothing is deployed yet."""
    async with opened(tmp_path) as site:
        yield site


@pytest.fixture(scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Deployment]]:
    """All is deployed and in force."""
    async with opened(tmp_path_factory.mktemp("standing")) as site, mining(site.anvil):
        await site.run()
        await site.delay_over()
        yield site, (await site.run()).deployment


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Site]:
    anvil = Anvil("--chain-id", str(CHAIN_ID), "--accounts", "0", "--timestamp", str(START_S))
    await anvil.start()
    _, usdc = await put_usdc(anvil)
    deployer = await funded(anvil, name="deployer")
    operator, governor = (await funded(anvil)).address, await funded(anvil)
    parameters = Parameters(
        operator=operator,
        url="https://gateway.example",
        receipt_signer=(await funded(anvil)).address,
        publisher=operator,
        payee=operator,
        treasury=(await funded(anvil)).address,
        usdc=usdc,
        governors=(governor.address,),
        holder=(await funded(anvil)).address,
        delay_s=LEAST_DELAY_S,
        confirmations=CONFIRMATIONS,
        names=("Acre", "ACRE", "Tokens of Compute", "COMP"),
    )
    try:
        yield Site(anvil, deployer, governor, parameters, folder)
    finally:
        await anvil.stop()


class Failing(Rpc):
    """A node that is lost at the `number`-th transaction that it is sent: before it takes it, or after."""

    def __init__(self, url: str, number: int, *, after: bool) -> None:
        super().__init__(url)
        self._left = number
        self._after = after

    async def call(self, method: str, *params: Any) -> Any:
        if method != "eth_sendRawTransaction":
            return await super().call(method, *params)
        self._left -= 1
        if self._left < 0:
            raise NodeUnavailable(node=self.node, reason="no connection", retry_after_s=5)
        if self._left == 0:
            if self._after:
                await super().call(method, *params)
            raise NodeUnavailable(node=self.node, reason="no answer", retry_after_s=5)
        return await super().call(method, *params)


def wrong(findings: list[audit.Finding]) -> list[str]:
    return [one.what for one in findings if not one.right]


async def test_it_deploys_in_two_runs_with_the_timelocks_delay_between_and_keeps_no_right(site: Site) -> None:
    async with mining(site.anvil):
        first = await site.run()
        assert first.effective_at_s is not None and first.sent == STEPS - 1
        assert await site.anvil.head() >= await site.newest() + CONFIRMATIONS
        assert wrong(await site.audit(first.deployment, waiting=True)) == []
        again = await site.run()
        assert (again.sent, again.effective_at_s) == (0, first.effective_at_s)
        await site.delay_over()
        second = await site.run()
        assert (second.sent, second.effective_at_s, second.deployment) == (1, None, first.deployment)
        assert wrong(await site.audit(second.deployment)) == []
        assert (await site.run()).sent == 0
    assert await site.sent() == STEPS
    contracts = Contracts.of(second.deployment)
    assert await read(site.anvil.rpc, contracts.hold, "symbol") == "ACRE"
    assert await read(site.anvil.rpc, contracts.diem, "name") == "Tokens of Compute"
    assert await read(site.anvil.rpc, contracts.hold, "balanceOf", site.parameters.holder) == site.parameters.genesis
    assert (await read(site.anvil.rpc, contracts.vault, "operatorOf", site.parameters.operator))[
        0
    ] == site.parameters.url


@pytest.mark.parametrize("after", [False, True], ids=["before it is sent", "after it is sent"])
async def test_a_failure_at_any_step_is_gone_on_from_and_nothing_is_sent_twice(site: Site, after: bool) -> None:
    """Each run gets one step further and is then cut off, with its transaction noted, and sent or not."""
    for _ in range(STEPS - 1):
        async with Failing(site.anvil.rpc.node, 1, after=after) as failing:
            with pytest.raises(NodeUnavailable):
                await site.run(failing)
            with pytest.raises(
                NodeUnavailable
            ):  # the transaction before is found, or sent again, and the next one lost
                await site.run(failing)
        if not after:
            async with Failing(site.anvil.rpc.node, 2, after=False) as failing:
                with pytest.raises(NodeUnavailable):
                    await site.run(failing)
        if await site.sent() >= STEPS - 2:
            break
    async with mining(site.anvil):
        outcome = await site.run()
        assert wrong(await site.audit(outcome.deployment, waiting=True)) == []
    assert await site.sent() == STEPS - 1
    with Journal.open(site.folder / "deployment.journal") as journal:
        assert journal.nonces() == list(range(STEPS - 1))
        assert all(len(entry.sent) == 1 for entry in journal.entries)  # the very same one, where it was sent again


async def test_a_last_line_that_was_cut_off_counts_as_not_written(site: Site) -> None:
    async with Failing(site.anvil.rpc.node, 3, after=True) as failing:
        with pytest.raises(NodeUnavailable):
            await site.run(failing)
    path = site.folder / "deployment.journal"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "wha')
    async with mining(site.anvil):
        await site.run()
    assert await site.sent() == STEPS - 1
    with Journal.open(path) as journal:
        assert journal.open_step() == STEPS - 1
    path.write_bytes(b"no journal\n" + path.read_bytes())
    with pytest.raises(DeploymentBroken, match="can't be read as the journal"):
        Journal.open(path)


async def test_a_nonce_that_another_program_used_gets_its_step_another_one(site: Site) -> None:
    async with Failing(site.anvil.rpc.node, 2, after=False) as failing:
        with pytest.raises(NodeUnavailable):
            await site.run(failing)
    # takes the nonce of the second step
    await mined(site.anvil, await site.deployer.transmit(site.parameters.holder, "0x", gas=21_000))
    async with mining(site.anvil):
        outcome = await site.run()
        assert wrong(await site.audit(outcome.deployment, waiting=True)) == []
    assert await site.sent() == STEPS
    with Journal.open(site.folder / "deployment.journal") as journal:
        assert journal.nonces() == [0, *range(2, STEPS)]


async def test_a_transaction_that_waits_in_vain_is_replaced_for_more(site: Site) -> None:
    await site.left_waiting()
    with pytest.raises(NotMined, match="Creating FreeholdTimelock was sent as 0x"):
        await site.run(patience_s=0.5)
    with Journal.open(site.folder / "deployment.journal") as journal:
        before = journal.entries[0].fees
    await site.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(before.most + 10**9))
    await site.anvil.mine()
    running = asyncio.create_task(site.run())
    await site.heard("1 of 10: creating FreeholdTimelock, again for more gas …", running)
    async with mining(site.anvil):
        outcome = await running
    assert wrong(await site.audit(outcome.deployment, waiting=True)) == []
    with Journal.open(site.folder / "deployment.journal") as journal:
        assert len(journal.entries[0].sent) >= 2 and journal.entries[0].fees.most > before.most
    assert await site.sent() == STEPS - 1


class Forgetful(Rpc):
    """A node that never shows what isn't mined yet."""

    async def call(self, method: str, *params: Any) -> Any:
        return None if method == "eth_getTransactionByHash" else await super().call(method, *params)


async def test_a_transaction_that_no_node_shows_is_sent_again_as_the_same_one(site: Site) -> None:
    await site.left_waiting()
    async with Forgetful(site.anvil.rpc.node) as forgetful:
        running = asyncio.create_task(site.run(forgetful))
        await site.heard("1 of 10: creating FreeholdTimelock, sent again as it was …", running)
        async with mining(site.anvil, every_s=0.1):
            outcome = await running
    assert await site.sent() == STEPS - 1
    assert wrong(await site.audit(outcome.deployment, waiting=True)) == []
    with Journal.open(site.folder / "deployment.journal") as journal:
        assert [len(entry.sent) for entry in journal.entries] == [1] * (STEPS - 1)


class Hiding(Rpc):
    """A node that has lost the receipt of one transaction."""

    def __init__(self, url: str, tx_hash: str) -> None:
        super().__init__(url)
        self._hash = tx_hash

    async def call(self, method: str, *params: Any) -> Any:
        hidden = method == "eth_getTransactionReceipt" and params == (self._hash,)
        return None if hidden else await super().call(method, *params)


async def test_a_contract_is_found_at_its_address_where_its_transaction_is_not_seen(site: Site) -> None:
    async with Failing(site.anvil.rpc.node, 1, after=True) as failing:
        with pytest.raises(NodeUnavailable):
            await site.run(failing)
    with Journal.open(site.folder / "deployment.journal") as journal:
        (tx_hash,) = journal.entries[0].sent
    async with Hiding(site.anvil.rpc.node, tx_hash) as hiding, mining(site.anvil):
        outcome = await site.run(hiding)
    assert wrong(await site.audit(outcome.deployment, waiting=True)) == []
    assert await site.sent() == STEPS - 1
    with Journal.open(site.folder / "deployment.journal") as journal:
        assert journal.entries[0].mined == "" and journal.nonces() == list(range(STEPS - 1))


async def test_a_version_with_other_contracts_does_not_go_on_with_a_deployment(site: Site) -> None:
    path = site.folder / "deployment.journal"
    async with Failing(site.anvil.rpc.node, 1, after=True) as failing:
        with pytest.raises(NodeUnavailable):
            await site.run(failing)
    path.write_text(path.read_text("utf-8").replace(rollout.code_digest(), "00" * 32), "utf-8")
    with pytest.raises(DeploymentBroken, match="another version of Freehold"):
        await site.run()


async def test_what_a_reorganisation_took_is_deployed_again_at_the_same_addresses(site: Site) -> None:
    async with Failing(site.anvil.rpc.node, 3, after=True) as failing:
        with pytest.raises(NodeUnavailable):
            await site.run(failing)
    depth = 2
    await site.anvil.reorg(depth)
    assert await site.sent() < 3
    async with mining(site.anvil):
        outcome = await site.run()
        assert wrong(await site.audit(outcome.deployment, waiting=True)) == []
    assert await site.sent() == STEPS - 1


async def test_another_chain_of_that_number_and_two_runs_at_once_are_refused(site: Site) -> None:
    async with Failing(site.anvil.rpc.node, 1, after=True) as failing:
        with pytest.raises(NodeUnavailable):
            await site.run(failing)
    with (
        Journal.open(site.folder / "deployment.journal"),
        pytest.raises(DeploymentBroken, match="Another run works on"),
    ):
        await site.run()
    other = Anvil("--chain-id", str(CHAIN_ID), "--timestamp", str(START_S + 7))
    await other.start()
    with pytest.raises(DeploymentBroken, match="was begun on chain"):
        await site.run(other.rpc)
    await other.stop()


async def test_on_a_development_chain_usdc_is_made_and_all_is_in_force_at_once(site: Site) -> None:
    anvil = Anvil("--accounts", "0", "--timestamp", str(START_S))
    await anvil.start()
    wallet = await funded(anvil, name="deployer")
    parameters = replace(site.parameters, usdc=None, governors=(), holder=wallet.address, delay_s=0)
    try:
        with Journal.open(site.folder / "dev.journal") as journal:
            begun = await rollout.begin(anvil.rpc, journal, parameters, wallet.address)
            async with mining(anvil):
                made = await Rollout(wallet, journal, package=USDC, tell=site.said.append, look_every_s=0.02).run()
            assert made.effective_at_s is None
            assert wrong(await audit.audit(anvil.rpc, made.deployment, begun, fresh=True)) == []
        assert await audit.usdc_fault(anvil.rpc, made.deployment.contracts["usdc"]) is None
    finally:
        await anvil.stop()


async def test_a_wallet_without_coin_is_refused_before_anything_is_sent(site: Site) -> None:
    await site.anvil.rpc.call("anvil_setBalance", site.deployer.address, "0x1")
    with pytest.raises(WalletRefused, match="deployer has 1 wei"):
        await site.run()
    assert await site.sent() == 0


async def test_settings_that_somebody_else_has_executed_are_not_executed_again(site: Site) -> None:
    async with mining(site.anvil):
        first = await site.run()
        assert first.settings is not None
        await site.delay_over()
        await governance.execute(site.governor, first.deployment, "0x" + first.settings.hex()[:10])
        again = await site.run()
        assert (again.sent, again.effective_at_s) == (0, None)
        assert wrong(await site.audit(again.deployment)) == []
    assert await site.sent() == STEPS - 1


async def test_settings_that_a_governor_cancelled_are_told_of(site: Site) -> None:
    async with mining(site.anvil):
        first = await site.run()
        timelock = template("FreeholdTimelock").at(first.deployment.contracts["timelock"])
        await site.governor.send(timelock, "cancel", first.settings, what="cancelling")
        with pytest.raises(DeploymentBroken, match="A governor has cancelled the first settings"):
            await site.run()


async def test_the_check_finds_other_code_a_right_that_was_left_and_a_wrong_address(site: Site) -> None:
    async with mining(site.anvil):
        outcome = await site.run()
    deployment = outcome.deployment
    vault = deployment.contracts["vault"]
    code = await site.anvil.rpc.call("eth_getCode", vault, "latest")
    await site.anvil.rpc.call("anvil_setCode", vault, code[:-2] + "00")
    assert wrong(await site.audit(deployment, waiting=True)) == ["code of CapacityVault"]
    await site.anvil.rpc.call("anvil_setCode", vault, code)
    swapped = {**deployment.contracts, "usdc": deployment.contracts["hold"]}
    assert wrong(await site.audit(replace(deployment, contracts=swapped), waiting=True)) == ["code of Prepaid"]
    assert "EpochBook.OPERATOR" in wrong(await site.audit(replace(deployment, operator=vault), waiting=True))
    timelock = template("FreeholdTimelock").at(deployment.contracts["timelock"])
    await site.anvil.rpc.call("anvil_setBalance", timelock.address, hex(10**18))
    await site.anvil.rpc.call("anvil_impersonateAccount", timelock.address)

    async def granted(role: str, whom: str) -> list[str]:
        data = timelock.call("grantRole", role_of(role), whom)
        sent = await site.anvil.rpc.call(
            "eth_sendTransaction", {"from": timelock.address, "to": timelock.address, "data": data}
        )
        await mined(site.anvil, sent)
        return wrong(await site.audit(deployment, waiting=True, fresh=False))

    left = f"left with the deployer {site.deployer.address}"
    assert await granted("PROPOSER_ROLE", site.deployer.address) == [left]
    assert await granted("DEFAULT_ADMIN_ROLE", site.governor.address) == ["who administers the timelock", left]


async def test_immutables_are_compared_too(standing: tuple[Site, Deployment]) -> None:
    """The same code with another address built in isn't the same contract."""
    site, deployment = standing
    code = from_hex(await site.anvil.rpc.call("eth_getCode", deployment.contracts["prepaid"], "latest"))
    known = [from_hex(address).rjust(32, b"\0") for address in (deployment.contracts["usdc"], site.parameters.payee)]
    assert audit.code_fault("Prepaid", code, known) is None
    assert "an immutable is 0x" in str(audit.code_fault("Prepaid", code, known[:1]))
    assert audit.code_fault("Prepaid", code[:-1], known) == f"{len(code) - 1} bytes instead of {len(code)}"
    assert "other code from byte 0 on" in str(audit.code_fault("Prepaid", bytes([code[0] ^ 1]) + code[1:], known))


async def test_the_gas_that_the_plan_tells_is_what_its_steps_take(standing: tuple[Site, Deployment]) -> None:
    site, _ = standing
    with Journal.open(site.folder / "deployment.journal") as journal:
        for entry in journal.entries:
            receipt = await site.anvil.rpc.call("eth_getTransactionReceipt", entry.mined)
            used = int(receipt["gasUsed"], 16)
            assert used * 98 // 100 <= GAS[entry.what] <= used * 105 // 100, entry.what


async def test_what_isnt_usdc_is_told_before_it_is_built_in_for_good(standing: tuple[Site, Deployment]) -> None:
    site, deployment = standing
    assert site.parameters.usdc is not None
    assert await audit.usdc_fault(site.anvil.rpc, site.parameters.usdc) is None
    assert await audit.usdc_fault(site.anvil.rpc, site.parameters.holder) == "there is no contract at that address"
    assert "ERC-3009" in str(await audit.usdc_fault(site.anvil.rpc, deployment.contracts["hold"]))
    assert await audit.usdc_fault(site.anvil.rpc, deployment.contracts["diem"]) == "it has 18 decimals, and USDC has 6"
