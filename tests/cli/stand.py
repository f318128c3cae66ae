"""Commands against a chain alone: a real one with the contracts and protocols, and of a server only where they are.

It mines each transaction at once, so that a long story takes seconds, and its time moves as far as a test wants.
"""

import asyncio
import json
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tests.chain.defi.lab import fetched
from tests.chain.lab import ANVIL, USDC

from freehold.chain.defi import model
from freehold.chain.defi.deploy import deploy_defi
from freehold.chain.defi.kept import FILE
from freehold.chain.defi.model import Defi
from freehold.chain.deploy import deploy_dev
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.host.anvil import Anvil

from .conftest import Server
from .webserver import answering, response

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stand:
    """The commands, the chain, and where everything is on it."""

    server: Server
    anvil: Anvil
    deployment: Deployment
    defi: Defi

    def look(self, work: Callable[[Rpc], Awaitable[T]]) -> T:
        """What a reading of the chain comes to."""

        async def connected() -> T:
            async with Rpc(self.anvil.url) as rpc:
                return await work(rpc)

        return asyncio.run(connected())

    def wait(self, seconds: int) -> None:
        """Let time pass on the chain."""
        self.anvil.call("evm_increaseTime", seconds)
        self.anvil.call("evm_mine")

    def until(self, at_s: int) -> None:
        """Let time pass until then."""
        self.anvil.call("evm_setNextBlockTimestamp", at_s)
        self.anvil.call("evm_mine")


@contextmanager
def stand(at_s: int, *, protocols: bool = True) -> Iterator[Stand]:
    """A chain that begins at that time; without `protocols` there is no pool and no market on it."""
    base = Path(tempfile.mkdtemp(prefix="freehold-stand-"))
    data, home = base / "data", base / "config"
    data.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    anvil = Anvil.start(data, ANVIL, port=port)
    try:
        anvil.call("evm_setNextBlockTimestamp", at_s)
        anvil.call("evm_setAutomine", True)
        deployment, defi = asyncio.run(_deployed(anvil.url, protocols))
        if protocols:
            model.save(data / FILE, defi)
        with answering(response(json.dumps({**asdict(deployment), "rpc_url": anvil.url}).encode())) as url:
            local = {"url": url, "admin_token": "none", "api_key": "none", "account_id": 1}
            (data / "credentials.json").write_text(json.dumps(local))
            (home / "freehold").mkdir(parents=True)
            (home / "freehold" / "current.json").write_text(json.dumps({"data": str(data)}))
            yield Stand(Server(url, data, home), anvil, deployment, defi)
    finally:
        anvil.stop()
        shutil.rmtree(base, ignore_errors=True)


async def _deployed(rpc_url: str, protocols: bool) -> tuple[Deployment, Defi]:
    async with Rpc(rpc_url) as rpc:
        deployment = await deploy_dev(rpc, USDC)
        if protocols:
            return deployment, await deploy_defi(rpc, deployment, await fetched(), say=print)
        return deployment, Defi(0, "", "", "", "", "", "", "", "", {}, {})
