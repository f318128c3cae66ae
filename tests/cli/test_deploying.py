"""`freehold deploy` as a stranger runs it, on a chain of another number, without unlocked accounts; also killed in the middle."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.chain.foreign import CHAIN_ID, CONFIRMATIONS, PASSWORD, Key, funded, keep, mining, put_usdc
from tests.chain.lab import START_S, Anvil

from freehold.chain import deployments
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import LEAST_DELAY_S
from freehold.chain.model import Deployment
from freehold.chain.wallet import read
from freehold.cli.root import cli

STEPS = 10


@dataclass
class Shell:
    """Where a stranger types."""

    anvil: Anvil
    folder: Path
    deployer: Key
    operator: Key
    governor: Key
    usdc: str

    @property
    def environment(self) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.folder / "config"), "NO_COLOR": "1", "PATH": os.defpath, "LANG": "C"}

    def words(self, *more: str, keystore: str = "deployer.json") -> list[str]:
        """The command with what it always needs."""
        return [
            *("deploy", "--rpc", self.anvil.rpc.node, "--keystore", str(self.folder / keystore)),
            *("--password-file", str(self.folder / "password"), "--data", str(self.folder / "data"), *more),
        ]

    def all(self, *more: str) -> list[str]:
        """And what a new deployment needs."""
        return self.words(
            *("--operator", self.operator.address, "--endpoint", "https://gateway.example"),
            *("--usdc", self.usdc, "--governor", self.governor.address, *more),
        )

    async def run(self, words: list[str], stdin: str | None = None) -> Result:
        env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("FREEHOLD_")}
        runner = CliRunner()
        return await asyncio.to_thread(runner.invoke, cli, words, input=stdin, env=env | self.environment)

    async def json(self, words: list[str]) -> Any:
        result = await self.run([*words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    async def refused(self, words: list[str]) -> str:
        result = await self.run(words)
        assert result.exit_code in (1, 2), result.output
        assert "Traceback" not in result.output
        return result.stderr

    async def killed_when(self, words: list[str], due: Any) -> None:
        """Run it in a process of its own, and kill -9 that as soon as `due` comes true."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "freehold.cli", *words),
            env={**self.environment, "PYTHONPATH": "src"},
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(120):
                while not await due():
                    assert process.returncode is None, (await process.stderr.read()).decode()
                    await asyncio.sleep(0.02)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()

    def journal(self) -> list[dict[str, Any]]:
        path = self.folder / "data" / "deployment.toml.journal"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    async def sent(self) -> int:
        return int(await self.anvil.rpc.call("eth_getTransactionCount", self.deployer.address, "latest"), 16)


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    anvil = Anvil("--chain-id", str(CHAIN_ID), "--accounts", "0", "--timestamp", str(START_S))
    await anvil.start()
    _, usdc = await put_usdc(anvil)
    wallets = [await funded(anvil, name=name) for name in ("deployer", "operator", "governor")]
    for wallet in wallets:
        keep(tmp_path / f"{wallet.name}.json", wallet)
    (tmp_path / "password").write_text(PASSWORD, "utf-8")
    yield Shell(anvil, tmp_path, *wallets, usdc)
    await anvil.stop()


async def test_it_is_killed_twice_and_ends_with_each_contract_deployed_once(shell: Shell) -> None:
    assert await shell.anvil.rpc.call("eth_accounts") == []
    await shell.anvil.rpc.call("evm_setAutomine", False)

    async def waiting() -> bool:
        return int((await shell.anvil.rpc.call("txpool_status"))["pending"], 16) > 0

    async def some_mined() -> bool:
        return sum("mined" in line for line in shell.journal()) >= 4

    await shell.killed_when(shell.all("--hold-symbol", "ACRE", "--yes"), waiting)
    assert await shell.sent() == 0
    async with mining(shell.anvil):
        await shell.killed_when(shell.words("--yes"), some_mined)
        assert "another --diem-symbol (DIEM)" in await shell.refused(shell.words("--yes", "--diem-symbol", "OTHER"))
        first = await shell.json(shell.words("--yes"))
        assert first["effective_at"] is not None and first["right"] is True
        await shell.anvil.rpc.call("evm_increaseTime", LEAST_DELAY_S + 1)
        await shell.anvil.mine()
        second = await shell.json(shell.words("--yes"))
        assert (second["effective_at"], second["contracts"]) == (None, first["contracts"])
        assert [step["what"] for step in second["plan"]["steps"]] == ["FreeholdTimelock.executeBatch"]
        checked = await shell.json(["deploy", "--check", "--rpc", shell.anvil.rpc.node, "--out", second["file"]])
    assert await shell.sent() == STEPS
    assert checked["right"] is True
    deployment = deployments.load(Path(second["file"]))
    assert (deployment.chain_id, deployment.confirmations) == (CHAIN_ID, CONFIRMATIONS)
    assert deployment.operator == shell.operator.address
    contracts = Contracts.of(deployment)
    assert await read(shell.anvil.rpc, contracts.hold, "symbol") == "ACRE"
    assert await read(shell.anvil.rpc, contracts.hold, "balanceOf", shell.operator.address) == 10**26
    assert await read(shell.anvil.rpc, contracts.staking, "committedOf", shell.operator.address) == 40_000 * 10**18
    signer = (await read(shell.anvil.rpc, contracts.vault, "operatorOf", shell.operator.address))[1]
    assert int(signer, 16) and (shell.folder / "data" / "receipts.key").stat().st_mode & 0o777 == 0o600


async def test_the_plan_is_shown_with_its_parameters_and_cost_and_nobody_is_deployed_without_a_yes(
    shell: Shell,
) -> None:
    result = await shell.run(shell.all("--diem-name", "Tokens of Compute", "--delay", "7d", "--committed", "1000"))
    assert result.exit_code == 1 and "say --yes" in result.stderr
    for said in (
        "Tokens of Compute (DIEM)",
        f"{shell.operator.address} at https://gateway.example",
        "7 days (604800 s)",
        "1,000 USD a day",
        "creating CapacityVault",
        "About 20,3",
        "the wallet has 100.000000",
    ):
        assert said in result.stdout
    plan = (await shell.json(shell.all("--dry-run")))["plan"]
    assert [step["step"] for step in plan["steps"]] == list(range(1, STEPS + 1))
    assert 0 < plan["cost_wei"] <= plan["most_wei"] < plan["balance_wei"]
    assert await shell.sent() == 0 and shell.journal() == []
    assert not (shell.folder / "data" / "deployment.toml").exists()


async def test_what_is_missing_or_cannot_be_is_refused_in_a_sentence(shell: Shell) -> None:
    alone = shell.words("--yes")
    assert "--operator whose stakes" in await shell.refused(alone)
    assert "--usdc where this chain's USDC is" in await shell.refused(
        [*alone, "--operator", shell.operator.address, "--endpoint", "https://x", "--governor", shell.governor.address]
    )
    assert "no --delay below 2 days" in await shell.refused(shell.all("--yes", "--delay", "1d"))
    assert "keeps no right" in await shell.refused(shell.all("--yes", "--governor", shell.deployer.address))
    assert "can't be this chain's USDC" in await shell.refused(shell.all("--yes", "--usdc", shell.operator.address))
    assert "is not an address" in await shell.refused(shell.all("--yes", "--treasury", "0x12"))
    assert "which wallet deploys" in await shell.refused(["deploy", "--rpc", shell.anvil.rpc.node])
    assert "can't be read" in await shell.refused(["deploy", "--check", "--rpc", shell.anvil.rpc.node, "--out", "none"])
    (shell.folder / "data" / "deployment.toml").write_text("")
    assert "that stand already" in await shell.refused(shell.all("--yes"))
    (shell.folder / "data" / "deployment.toml").unlink()
    await shell.anvil.rpc.call("anvil_setBalance", shell.deployer.address, "0x1")
    assert "send it more" in await shell.refused(shell.all("--yes"))
    assert await shell.sent() == 0 and shell.journal() == []


async def test_options_of_a_run_that_goes_on_must_be_those_it_was_begun_with(shell: Shell) -> None:
    async with mining(shell.anvil):
        await shell.json(shell.all("--yes"))
    said = await shell.refused(shell.words("--yes", "--treasury", shell.governor.address))
    assert f"begun with another --treasury ({shell.operator.address}): leave that option out" in said
    assert "go on with the same wallet" in await shell.refused(shell.words("--yes", keystore="operator.json"))
    assert await shell.sent() == STEPS - 1


async def test_the_check_fails_with_exit_code_1_where_a_contract_is_another(shell: Shell) -> None:
    async with mining(shell.anvil):
        made = await shell.json(shell.all("--yes"))
    deployment = deployments.load(Path(made["file"]))
    other = shell.folder / "other.toml"
    swapped = {**deployment.contracts, "book": deployment.contracts["prepaid"]}
    deployments.save(other, Deployment(CHAIN_ID, swapped, deployment.operator, deployment.from_block, 12))
    result = await shell.run(["deploy", "--check", "--rpc", shell.anvil.rpc.node, "--out", str(other)])
    assert result.exit_code == 1
    assert "WRONG, not as compiled" in result.stdout and "checks failed" in result.stdout
