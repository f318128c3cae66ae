"""What tests share: one embedded PostgreSQL per session, and a fresh, migrated database for whoever asks."""

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from freehold.app.worker import RECURSION_LIMIT
from freehold.db import Database
from freehold.host.postgres import Postgres

TEMPLATE = "migrated"
_numbers = itertools.count(1)


def _in(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@pytest.fixture(autouse=True)
def workers_recursion_limit() -> None:
    """What a worker sets: eth_account, which tests sign with, raises it so far that the C stack would overflow."""
    sys.setrecursionlimit(RECURSION_LIMIT)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of the session's server, to its database `postgres`: for tests that make databases themselves."""
    base = Path(tempfile.mkdtemp(prefix="freehold-tests-", dir="/tmp"))
    if os.geteuid() == 0:
        base.chmod(0o755)  # PostgreSQL's own user must be able to enter
    data = base / "data"
    data.mkdir(mode=0o700)
    server = Postgres.start(
        data,
        options={"fsync": "off", "full_page_writes": "off", "autovacuum": "off"},
        root_base=base / "root",
    )
    try:
        yield _in(server.url, "postgres")
    finally:
        server.stop()
        shutil.rmtree(base)


async def _create(postgres_url: str, name: str, template: str = "template0") -> str:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f'create database "{name}" template "{template}" strategy file_copy')
    finally:
        await connection.close()
    return _in(postgres_url, name)


async def _drop(postgres_url: str, name: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f'drop database "{name}" with (force)')
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def migrated_template(postgres_url: str) -> str:
    """The name of a database with every migration, which nobody is connected to."""
    database = await Database.connect(await _create(postgres_url, TEMPLATE), max_size=2)
    try:
        await database.migrate()
    finally:
        await database.close()
    return TEMPLATE


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """A fresh database in which no migration has run."""
    name = f"empty_{next(_numbers)}"
    yield await _create(postgres_url, name)
    await _drop(postgres_url, name)


@pytest.fixture
async def database_url(postgres_url: str, migrated_template: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database: for tests that start a process or a second pool."""
    name = f"test_{next(_numbers)}"
    yield await _create(postgres_url, name, migrated_template)
    await _drop(postgres_url, name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database."""
    opened = await Database.connect(database_url, max_size=20)
    yield opened
    await opened.close()
