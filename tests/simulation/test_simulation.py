"""The short form of `make simulate`: a few seeds, one twice, and a seed for each planted fault."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .gateway import GatewayWorld
from .planted import PLANTED, caught, patches, simulate
from .server import Server, prepare
from .world import Report, World

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = range(1_000, 1_012)


class Bench:
    """A thread for simulations, whose event loop isn't the tests'."""

    def __init__(self, url: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.url = url
        self.server = self.do(self._prepared, "simulation", None)

    def do(self, work: Any, *args: Any) -> Any:
        return self._thread.submit(work, *args).result()

    def _prepared(self, name: str, patch: Any) -> Server:
        return Server(asyncio.run(prepare(self.url, name, patch)))

    def run(self, seed: int) -> Report:
        return self.do(lambda: World(seed, self.server).run())  # type: ignore[no-any-return]

    def gateway(self, seed: int) -> Report:
        return self.do(lambda: GatewayWorld(seed, self.server).run())  # type: ignore[no-any-return]

    def planted(self, name: str) -> Report:
        planted = PLANTED[name]

        def run() -> Report:
            server = self._prepared(f"planted_{name.replace('-', '_')}", patches(planted))
            try:
                return simulate(planted, planted.seed, server, keep_trace=True)
            finally:
                server.close()

        return self.do(run)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.do(self.server.close)
        self._thread.shutdown()


@pytest.fixture(scope="module")
def bench(postgres_url: str) -> Iterator[Bench]:
    opened = Bench(postgres_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_law_holds(bench: Bench, seed: int) -> None:
    report = bench.run(seed)
    assert report.broken == [], "\n".join([f"seed {seed}", *report.trace])


@pytest.mark.parametrize("seed", range(1_000, 1_004))
def test_every_law_holds_for_the_gateways_calls_too(bench: Bench, seed: int) -> None:
    report = bench.gateway(seed)
    assert report.broken == [], "\n".join([f"seed {seed}", *report.trace])


def test_the_gateways_calls_replay_too(bench: Bench) -> None:
    first, again = bench.gateway(1_004), bench.gateway(1_004)
    assert first.trace == again.trace
    assert first.digest == again.digest


def test_a_seed_replays_step_by_step(bench: Bench) -> None:
    first, again = bench.run(SEEDS[0]), bench.run(SEEDS[0])
    assert first.trace == again.trace
    assert first.digest == again.digest


def test_two_seeds_are_two_stories(bench: Bench) -> None:
    assert bench.run(SEEDS[0]).digest != bench.run(SEEDS[1]).digest


def test_a_fault_replays_too_with_the_same_trace(bench: Bench) -> None:
    first, again = bench.planted("unbalanced"), bench.planted("unbalanced")
    assert first.broken and first.broken == again.broken
    assert first.digest == again.digest


@pytest.mark.parametrize("name", [name for name, planted in PLANTED.items() if planted.seed is not None])
def test_a_planted_fault_is_found(bench: Bench, name: str) -> None:
    report = bench.planted(name)
    assert caught(PLANTED[name], report.broken), report.broken


def test_a_failing_seed_is_named_with_the_end_of_its_trace() -> None:
    command = [sys.executable, "-m", "tests.simulation", "1000:1001", "--jobs", "1", "--json"]
    told = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": "src", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert '"seeds": 1, "failed": {}' in told.stdout
