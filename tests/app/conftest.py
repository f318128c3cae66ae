"""A real `freehold up` as a child process, with the scripted upstream."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from freehold.host.postgres import data_of_root
from freehold.host.process import identity

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """One life of `freehold up`."""

    data: Path
    process: subprocess.Popen[str]
    output: Path
    environment: dict[str, str] = field(repr=False)

    def await_ready(self) -> None:
        until = time.monotonic() + 150
        while "Freehold is ready" not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.1)

    def said(self) -> str:
        return self.output.read_text("utf-8")

    def credentials(self) -> dict[str, Any]:
        return dict(json.loads((self.data / "credentials.json").read_text("utf-8")))

    def curl(self) -> str:
        found = re.search(r"^curl .*$", self.said(), re.MULTILINE)
        assert found, self.said()
        return found.group()

    def call(self, path: str, body: object = None, *, token: str | None = None) -> tuple[int, Any]:
        """(status, JSON) of one HTTP call, with the first key unless told otherwise."""
        kept = self.credentials()
        request = urllib.request.Request(
            f"{kept['url']}{path}",
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {token or kept['api_key']}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def text(self, path: str) -> str:
        """The body of a GET without credentials."""
        with urllib.request.urlopen(f"{self.credentials()['url']}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def children(self) -> list[int]:
        """Pids of every process that this data directory's pid files name and that still runs."""
        pids = [json.loads(path.read_text("utf-8"))["pid"] for path in (self.data / "run").glob("*.pid")]
        return [pid for pid in pids if identity(pid) is not None]

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "freehold.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a stranger's shell has, and no more."""
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": str(ROOT / "src"),
        "LANG": "C",
    }


@pytest.fixture
def up(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Starts `freehold up --no-model --port 0` on one data directory, whose path holds a space."""
    data = tmp_path / "data directory"
    started: list[Server] = []

    def begin(*arguments: str, ready: bool = True, **settings: str) -> Server:
        output = tmp_path / f"output-{len(started)}"
        with output.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "freehold.cli", "up", "--no-model", "--port", "0", "--data", str(data)),
                    *arguments,
                ],
                env={**environment, **settings},
                stdout=out,
                stderr=out,
                text=True,
            )
        server = Server(data, process, output, environment)
        started.append(server)
        if ready:
            server.await_ready()
        return server

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.stop(signal.SIGTERM)
    cluster = data_of_root(data) if os.geteuid() == 0 and data.is_dir() else None
    if cluster is not None:
        subprocess.run(["rm", "-rf", str(cluster)], check=True)
