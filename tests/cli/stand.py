"""Commands against a chain alone: a real one with the contracts and protocols, and of a server only where they are.

It mines each transaction at once, so that a long story takes seconds, and its time moves as far as a test wants.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.chain.defi.lab import fetched
from tests.chain.lab import ANVIL, USDC

from freehold.chain.defi import model
from freehold.chain.defi.deploy import deploy_defi
from freehold.chain.defi.kept import FILE
from freehold.chain.defi.model import Defi
from freehold.chain.deploy import deploy_dev
from freehold.chain.model import DEV_CHAIN_ID, Deployment
from freehold.chain.rpc import Rpc

from .conftest import Server
from .webserver import answering, response

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stand:
    """The commands, the chain, and where everything is on it."""

    server: Server
    rpc_url: str
    deployment: Deployment
    defi: Defi

    def look(self, work: Callable[[Rpc], Awaitable[T]]) -> T:
        """What a reading of the chain comes to."""

        async def connected() -> T:
            async with Rpc(self.rpc_url) as rpc:
                return await work(rpc)

        return asyncio.run(connected())

    def wait(self, seconds: int) -> None:
        """Let time pass on the chain."""
        self._calls(("evm_increaseTime", seconds), ("evm_mine",))

    def until(self, at_s: int) -> None:
        """Let time pass until then."""
        self._calls(("evm_setNextBlockTimestamp", at_s), ("evm_mine",))

    def _calls(self, *calls: tuple[Any, ...]) -> None:
        async def made(rpc: Rpc) -> None:
            for call in calls:
                await rpc.call(*call)

        self.look(made)


@contextmanager
def stand(at_s: int, *, protocols: bool = True) -> Iterator[Stand]:
    """A chain that begins at that time; without `protocols` there is no pool and no market on it."""
    base = Path(tempfile.mkdtemp(prefix="freehold-stand-"))
    data, home = base / "data", base / "config"
    data.mkdir(mode=0o700)
    try:
        with _anvil(at_s) as rpc_url:
            deployment, defi = asyncio.run(_deployed(rpc_url, protocols))
            if protocols:
                model.save(data / FILE, defi)
            with answering(response(json.dumps({**asdict(deployment), "rpc_url": rpc_url}).encode())) as url:
                local = {"url": url, "admin_token": "none", "api_key": "none", "account_id": 1}
                (data / "credentials.json").write_text(json.dumps(local))
                (home / "freehold").mkdir(parents=True)
                (home / "freehold" / "current.json").write_text(json.dumps({"data": str(data)}))
                yield Stand(Server(url, data, home), rpc_url, deployment, defi)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def _anvil(at_s: int) -> Iterator[str]:
    """The URL of a chain of its own, on a port that it chooses."""
    process = subprocess.Popen(
        [ANVIL, *("--host", "127.0.0.1", "--port", "0", "--chain-id", str(DEV_CHAIN_ID), "--timestamp", str(at_s))],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    drain = threading.Thread(target=process.stdout.read)
    try:
        line = next((each for each in process.stdout if each.startswith(b"Listening on ")), None)
        assert line is not None, "anvil ended before it listened"
        drain.start()
        yield f"http://127.0.0.1:{int(line.rpartition(b':')[2])}"
    finally:
        process.kill()
        process.wait()
        if drain.ident is not None:
            drain.join()
        process.stdout.close()


async def _deployed(rpc_url: str, protocols: bool) -> tuple[Deployment, Defi]:
    async with Rpc(rpc_url) as rpc:
        deployment = await deploy_dev(rpc, USDC)
        if protocols:
            return deployment, await deploy_defi(rpc, deployment, await fetched(), say=print)
        return deployment, Defi(0, "", "", "", "", "", "", "", "", {}, {})
