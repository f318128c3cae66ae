"""The embedded PostgreSQL: taken over after a kill, recognised by more than its pid, and private."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from freehold.db import Database
from freehold.host.postgres import Postgres, data_of_root
from freehold.host.process import HostError, identity


async def test_each_test_has_a_database_of_its_own(database: Database) -> None:
    assert await database.fetchval("select count(*) from schema_migrations") > 0
    await database.execute("create table mark(x int)")
    assert await database.fetchval("select count(*) from mark") == 0


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a space, which PostgreSQL's own user can enter when root runs the tests."""
    made = Path(tempfile.mkdtemp(prefix="freehold postgres ", dir="/tmp"))
    if os.geteuid() == 0:
        made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def start(base: Path) -> Iterator[Callable[[], Postgres]]:
    data = base / "data"
    data.mkdir(mode=0o700)
    started: list[Postgres] = []

    def begin() -> Postgres:
        started.append(Postgres.start(data, root_base=base / "root"))
        return started[-1]

    yield begin
    for server in started:
        server.stop()


async def _run(url: str, sql: str) -> str | None:
    connection = await asyncpg.connect(url)
    try:
        value = await connection.fetchval(sql)
        return None if value is None else str(value)
    finally:
        await connection.close()


def ask(url: str, sql: str) -> str | None:
    return asyncio.run(_run(url, sql))


def test_what_was_committed_survives_a_kill(start: Callable[[], Postgres]) -> None:
    first = start()
    ask(first.url, "create table kept as select 7 as x")
    os.kill(first.child.pid, signal.SIGKILL)
    second = start()
    assert ask(second.url, "select x from kept") == "7"
    assert first.child.poll() == -signal.SIGKILL


def test_a_server_that_still_runs_is_ended_and_taken_over(start: Callable[[], Postgres]) -> None:
    first = start()
    second = start()
    assert first.child.poll() is not None
    assert second.url == first.url
    assert ask(second.url, "select 1") == "1"


def test_a_server_is_recognised_also_without_our_pid_file(start: Callable[[], Postgres], base: Path) -> None:
    first = start()
    (base / "data" / "run" / "postgres.pid").unlink()
    second = start()
    assert first.child.poll() is not None
    assert ask(second.url, "select 1") == "1"


def test_a_pid_that_another_process_has_by_now_doesnt_stop_the_start(start: Callable[[], Postgres], base: Path) -> None:
    first = start()
    lock = first.place.cluster / "postmaster.pid"
    lines = lock.read_text("utf-8").splitlines()
    os.kill(first.child.pid, signal.SIGKILL)
    first.child.wait(10)
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n", "utf-8")
        pid_file = base / "data" / "run" / "postgres.pid"
        noted = json.loads(pid_file.read_text("utf-8"))
        pid_file.write_text(json.dumps({**noted, "pid": stranger.pid}), "utf-8")
        assert ask(start().url, "select 1") == "1"
        assert stranger.poll() is None, "the stranger was ended"
    finally:
        stranger.kill()
        stranger.communicate()


def test_it_ends_with_the_process_that_started_it(base: Path) -> None:
    data = base / "data"
    data.mkdir(mode=0o700)
    program = (
        "import pathlib, sys; from freehold.host.postgres import Postgres\n"
        "server = Postgres.start(pathlib.Path(sys.argv[1]), root_base=pathlib.Path(sys.argv[2]))\n"
        "print(server.child.pid, flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(data), str(base / "root")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    server = identity(int(holder.stdout.readline()))
    assert server is not None
    holder.kill()
    holder.communicate()
    from freehold.host.process import await_end

    assert await_end(server, 60)


def test_no_permission_changes_of_a_directory_that_it_didnt_make(start: Callable[[], Postgres], base: Path) -> None:
    above = [folder for folder in (base / "data").parents]
    before = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in above}
    mask = os.umask(0o077)
    try:
        start()
    finally:
        os.umask(mask)
    assert {folder: stat.S_IMODE(folder.stat().st_mode) for folder in above} == before
    assert stat.S_IMODE((base / "data").stat().st_mode) == 0o700


def test_others_get_in_neither_by_a_file_nor_without_the_password(start: Callable[[], Postgres], base: Path) -> None:
    server = start()
    assert stat.S_IMODE(server.place.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.place.cluster.stat().st_mode) == 0o700
    assert stat.S_IMODE((base / "data" / "postgres" / "password").stat().st_mode) == 0o600
    password = (base / "data" / "postgres" / "password").read_text("utf-8").strip()
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(server.url.replace(password, "guess"), "select 1")
    assert ask(server.url, "select setting from pg_settings where name = 'listen_addresses'") == ""


def test_a_copy_of_the_data_directory_doesnt_share_its_database(start: Callable[[], Postgres], base: Path) -> None:
    if os.geteuid() != 0:  # only root's clusters lie outside the data directory
        return
    start().stop()
    shutil.copytree(base / "data", base / "copy")
    with pytest.raises(HostError, match=r"is a copy of .* and would share its database"):
        Postgres.start(base / "copy", root_base=base / "root")
    shutil.rmtree(base / "data")
    moved = Postgres.start(base / "copy", root_base=base / "root")
    moved.stop()
    assert data_of_root(base / "copy", root_base=base / "root") == moved.place.cluster.parent


def test_an_interrupted_making_of_the_cluster_is_begun_again(start: Callable[[], Postgres], base: Path) -> None:
    first = start()
    first.stop()
    first.place.cluster.rename(first.place.cluster.with_name("cluster.new"))
    assert ask(start().url, "select 1") == "1"


def test_it_is_durable_and_set_up_for_the_ledger(start: Callable[[], Postgres]) -> None:
    url = start().url
    found = {
        name: ask(url, f"select current_setting('{name}')")
        for name in ("synchronous_commit", "fsync", "full_page_writes", "jit", "checkpoint_timeout")
    }
    assert found == {
        "synchronous_commit": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "jit": "off",
        "checkpoint_timeout": "30min",
    }
    buffers_mb = ask(url, "select pg_size_bytes(current_setting('shared_buffers')) / 1048576")
    assert buffers_mb is not None and 128 <= int(buffers_mb) <= 2048
