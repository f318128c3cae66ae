"""Other people's packages for tests: fetched and compiled once for all runs, as npm's packages are."""

import asyncio
import fcntl
from pathlib import Path

from tests.chain.lab import ROOT

from freehold.chain.defi import packages
from freehold.chain.defi.morpho import compiled

FOLDER = ROOT / ".setup" / "defi"


async def fetched() -> Path:
    """The folder with everything in it; of the processes that run tests, one fetches."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        await packages.fetch(FOLDER, print)
        await compiled(FOLDER, print)
    return FOLDER
