"""A whole server for the commands: `freehold up --no-model` in a process of its own, once per session."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.chain.defi.lab import fetched

from freehold.cli.root import cli
from freehold.host.postgres import data_of_root


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and the configuration folder that its commands use."""

    url: str
    data: Path
    home: Path

    def run(self, *words: str, stdin: str | None = None, home: Path | None = None) -> Result:
        """One command line, as the operator of this server."""
        env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("FREEHOLD_")}
        env |= {"XDG_CONFIG_HOME": str(home or self.home), "NO_COLOR": "1"}
        return CliRunner().invoke(cli, words, input=stdin, env=env, prog_name="freehold")

    def json(self, *words: str) -> Any:
        """The document that a command writes with --json. Fails when it is refused."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def lines(self, *words: str) -> list[Any]:
        """The JSON lines that a command writes."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def refused(self, *words: str) -> str:
        """The sentence of a command that is refused."""
        result = self.run(*words)
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("freehold: ")
        assert "Traceback" not in result.stderr
        return result.stderr.removeprefix("freehold: ").strip()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Started once: PostgreSQL, chain, contracts, one worker and the scripted models."""
    yield from _running()


@pytest.fixture(scope="session")
def market_server() -> Iterator[Server]:
    """As `server`, with pools and lending markets on its chain; started once, and only for who asks for it."""
    yield from _running("--defi", packages=asyncio.run(fetched()))


def _running(*options: str, packages: Path | None = None) -> Iterator[Server]:
    base = Path(tempfile.mkdtemp(prefix="freehold-cli-"))
    data, home = base / "data", base / "config"
    data.mkdir(mode=0o700)
    if packages is not None:
        (data / "defi").symlink_to(packages)
    env = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}
    up = ("up", "--data", str(data), "--port", "0", "--no-model", *options)
    with (base / "stderr").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "freehold.cli", *up],
            stdout=subprocess.PIPE,
            stderr=said,
            env={**env, "XDG_CONFIG_HOME": str(home)},
        )
    assert process.stdout is not None
    try:
        printed = ""
        while "Ctrl-C stops everything" not in printed:
            line = process.stdout.readline().decode()
            assert line, f"the server didn't start: {(base / 'stderr').read_text()}"
            printed += line
        yield Server(json.loads((data / "credentials.json").read_text())["url"], data, home)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        process.stdout.close()
        cluster = data_of_root(data)
        if cluster is not None:
            shutil.rmtree(cluster, ignore_errors=True)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def account(server: Server) -> Callable[[str], Any]:
    """Makes a local account: {"account", "secret", …}."""
    return lambda name: server.json("accounts", "create", name)
