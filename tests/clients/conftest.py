"""A whole worker before a scripted upstream, and the environment of the clients that call it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.clients.environment import binaries
from tests.gateway.house import Customer, House, prepare, worker

from freehold.db import Database
from freehold.upstream.model import CHAT, SHAPES, Kind, Model
from freehold.upstream.scripted import Scripted

TALKER, THINKER = "scripted-gpt-5", "scripted-claude-4"
"""Names by which llm-comply takes a model for one that thinks."""

SPOKEN = {"natively": frozenset(SHAPES), "by translation": frozenset({CHAT})}


@dataclass(frozen=True)
class Outside:
    """What a client is given: a program's folder, a URL and a key."""

    house: House
    customer: Customer
    programs: Path
    home: Path

    async def run(self, program: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a program of the clients' environment; its exit code, and what it said."""
        process = await asyncio.create_subprocess_exec(
            str(self.programs / program),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.home,
            env={"PATH": str(self.programs), "HOME": str(self.home), "LC_ALL": "C.UTF-8", **environment},
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()


@pytest.fixture(scope="session")
def programs() -> Path:
    return binaries()


@pytest.fixture(scope="module", params=list(SPOKEN))
async def served(postgres_url: str, migrated_template: str, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """A worker whose upstream speaks every shape, or chat alone."""
    shapes = SPOKEN[request.param]
    models = [
        Model(name, Kind.CHAT, 32_768, 8_192, name, image_tokens=1_024, shapes=shapes) for name in (TALKER, THINKER)
    ]
    name = f"{request.module.__name__.replace('.', '_')}_{len(shapes)}"
    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database "{name}" template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}")), max_size=20)
    await prepare(database)
    async with worker(database, scripted=Scripted(models=models)) as house:
        for model in models:
            await house.set_price(model.id, {"input": 1_000_000_000, "output": 2_000_000_000})
        yield house
    await database.close()
    await server.execute(f'drop database "{name}" with (force)')
    await server.close()


@pytest.fixture
async def outside(served: House, programs: Path, tmp_path: Path) -> Outside:
    return Outside(served, await served.customer(prepaid="10"), programs, tmp_path)
