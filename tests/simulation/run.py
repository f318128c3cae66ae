"""`make simulate SEEDS=1000`, or SEEDS=a:b: simulations on every core; the seeds that fail, and their traces.

python -m tests.simulation 1000 [--jobs N] [--json] [--planted NAME|all] [--trace]
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from freehold.host.postgres import Postgres

from .gateway import GatewayWorld
from .planted import PLANTED, caught, patches, simulate
from .server import Server, prepare
from .world import Report, World

MOST_SEEDS = 1_000
"""Within so many a planted fault must be found."""
_server: Server | None = None


@contextmanager
def cluster() -> Iterator[str]:
    """A PostgreSQL of its own, which need not survive a power cut."""
    base = Path(tempfile.mkdtemp(prefix="freehold-simulation-", dir="/tmp"))
    if os.geteuid() == 0:
        base.chmod(0o755)  # PostgreSQL's own user must be able to enter
    data = base / "data"
    data.mkdir(mode=0o700)
    options = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "synchronous_commit": "off"}
    server = Postgres.start(data, options=options, root_base=base / "root")
    try:
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(base)


def _quiet() -> None:
    """Only the simulation hears what the ledger logs."""
    ledger = logging.getLogger("freehold")
    ledger.propagate = False
    ledger.addHandler(logging.NullHandler())


def _open(url: str) -> None:
    """In each process: a database of its own."""
    global _server
    _quiet()
    _server = Server(asyncio.run(prepare(url, f"simulation_{os.getpid()}")))


def _one(seed: int, gateway: bool = False) -> Report:
    assert _server is not None
    return (GatewayWorld if gateway else World)(seed, _server, keep_trace=False).run()


def _plant(task: tuple[str, str, int, int]) -> tuple[str, int | None, str]:
    """The first seed that finds a planted fault, and what it says."""
    url, name, first, last = task
    _quiet()
    planted = PLANTED[name]
    server = Server(asyncio.run(prepare(url, f"planted_{name.replace('-', '_')}", patches(planted))))
    try:
        for seed in range(first, last):
            broken = simulate(planted, seed, server).broken
            if caught(planted, broken):
                return name, seed, next(one for one in broken if caught(planted, [one]))
    finally:
        server.close()
    return name, None, ""


@contextmanager
def _processes(jobs: int, start: Callable[..., None] | None = None, *args: object) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), start, args)
    try:
        yield pool
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _simulate(url: str, seeds: range, jobs: int, as_json: bool, gateway: bool) -> int:
    failed: list[Report] = []
    counts: Counter[str] = Counter()
    steps, began, said = 0, time.monotonic(), time.monotonic()
    with _processes(jobs, _open, url) as pool:
        for done, future in enumerate(as_completed([pool.submit(_one, seed, gateway) for seed in seeds]), 1):
            report = future.result()
            counts.update(report.counts)
            steps += report.steps
            if report.broken:
                failed.append(report)
                if not as_json:
                    _say(f"seed {report.seed} fails:\n  " + "\n  ".join(report.broken[:5]))
            if not as_json and time.monotonic() - said > 10:
                said = time.monotonic()
                _say(f"{done} of {len(seeds)} seeds, {len(failed)} failed, {done / (said - began):.1f} seeds/s")
    took_s = time.monotonic() - began
    if as_json:
        found = {report.seed: report.broken for report in failed}
        _say(json.dumps({"seeds": len(seeds), "failed": found, "steps": steps, "took_s": took_s, "counts": counts}))
    else:
        _say(f"{len(seeds)} seeds, {len(failed)} failed, {steps} steps, {took_s:.0f} s: {dict(counts.most_common())}")
        for report in failed[:3]:
            _say(f"\nThe end of seed {report.seed} (the whole: make simulate SEEDS={report.seed}:{report.seed + 1}"
                 " ARGS=--trace):\n" + "\n".join(report.trace[-40:]))  # fmt: skip
    return 1 if failed else 0


def _trace(url: str, seeds: range, gateway: bool) -> int:
    _open(url)
    assert _server is not None
    failed = 0
    for seed in seeds:
        report = (GatewayWorld if gateway else World)(seed, _server).run()
        failed += bool(report.broken)
        _say("\n".join([f"seed {seed}, digest {report.digest}", *report.trace]))
    _server.close()
    return 1 if failed else 0


def _planted(url: str, names: list[str], seeds: range, jobs: int, as_json: bool) -> int:
    tasks = [(url, name, seeds.start, seeds.stop) for name in names]
    found: dict[str, int | None] = {}
    with _processes(jobs) as pool:
        for future in as_completed([pool.submit(_plant, task) for task in tasks]):
            name, seed, said = future.result()
            found[name] = seed
            if not as_json:
                _say(f"{name:16} {'missed' if seed is None else f'seed {seed}'}: {PLANTED[name].what}. {said[:150]}")
    if as_json:
        _say(json.dumps(found))
    return 1 if None in found.values() else 0


def _range(text: str) -> range:
    first, _, last = text.rpartition(":")
    return range(int(first or 0), int(last))


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("seeds", nargs="?", default=f"{MOST_SEEDS}", help="how many, or first:last (last is left out)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of progress")
    parser.add_argument("--planted", metavar="NAME", help="find planted faults, such as leak,cap or all")
    parser.add_argument("--gateway", action="store_true", help="with the gateway's calls instead of the ledger's")
    parser.add_argument("--trace", action="store_true", help="print every step")
    args = parser.parse_args()
    seeds = _range(args.seeds)
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: sys.exit(130))  # PostgreSQL is stopped on the way out
    with cluster() as url:
        if args.planted:
            names = list(PLANTED) if args.planted == "all" else args.planted.split(",")
            return _planted(url, names, seeds, args.jobs, args.json)
        if args.trace:
            return _trace(url, seeds, args.gateway)
        return _simulate(url, seeds, args.jobs, args.json, args.gateway)
