"""Measure Freehold beside LiteLLM, Portkey and nginx, and write RESULTS.md, results.json and results.svg.

`make bench` runs everything (about half an hour); `python bench/run.py --final` is the same in five rounds and twelve
minutes, `--quick` in three minutes and one round. What was measured is kept as it comes, so `--resume` goes on after
an interruption. All load goes to loopback. It needs Linux and two cores: the gateway has one, PostgreSQL, the mock
upstream and the load generator share the other; then once more without pinning.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import peers
import report
from peers import Absent, Freehold, Running, Target
from progress import Progress

CALLERS = (1, 16, 64)
STREAMS = (200, 1000)
PAUSE_MS = {200: 30, 1000: 120}
"""Between two chunks of a stream: 6,700 and 8,300 chunks a second, when all are open."""
GATEWAY_CORE, OTHER_CORE = 0, 1
ACCOUNTS = 1_000
ACTIVE = 1_000
"""Accounts that call, out of however many there are."""


@dataclass(frozen=True, slots=True)
class Size:
    """How long a run measures."""

    rounds: int
    seconds: float
    """Of one measurement of requests a second."""
    unpinned_rounds: int
    unpinned_seconds: float
    stream_rounds: dict[int, int]
    ledger_rounds: int
    ledger_seconds: float
    accounts: int
    """The larger number of accounts."""
    requests: tuple[int, int]
    """Calls after which memory is read, twice."""
    patient: bool = False
    """Also wait for what takes a minute and says little."""


SIZES = {
    "full": Size(7, 4.0, 5, 3.0, {200: 7, 1000: 5}, 7, 4.0, 1_000_000, (10_000, 100_000), patient=True),
    "final": Size(5, 1.5, 5, 1.0, {200: 5, 1000: 2}, 5, 2.0, 1_000_000, (10_000, 100_000)),
    "quick": Size(1, 1.0, 1, 0.7, {200: 1, 1000: 1}, 1, 1.0, 20_000, (1_000, 5_000)),
}


class Samples:
    """What was measured, a line of JSON each, kept as it comes."""

    def __init__(self, path: Path, progress: Progress, *, resume: bool) -> None:
        self.progress = progress
        self._path = path
        if not resume:
            path.unlink(missing_ok=True)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._known = {self._key(sample) for sample in self.all}

    @staticmethod
    def _key(sample: dict[str, Any]) -> tuple[object, ...]:
        return tuple(sample.get(name) for name in ("phase", "target", "size", "round"))

    def known(self, phase: str, target: str, size: int, number: int) -> bool:
        return (phase, target, size, number) in self._known

    def measure(self, phase: str, target: str, size: int, number: int, take: Callable[[], dict[str, Any]]) -> None:
        """Take and keep a sample, unless it is there."""
        sample = {"phase": phase, "target": target, "size": size, "round": number}
        if self._key(sample) in self._known:
            return
        self.progress.doing(f"{target}, {size:,}, round {number}")
        sample.update(take())
        self._known.add(self._key(sample))
        self.all.append(sample)
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(sample) + "\n")
        figure = next((sample[name] for name in ("rps", "first_p50_us", "pairs", "rss_mb") if name in sample), "")
        shown = f"{figure:,.0f}" if isinstance(figure, float) else figure
        self.progress.say(f"  {phase:10} {target:9} {size:>9,}  round {number}: {shown}")
        if sample.get("failure"):
            self.progress.say(f"    {sample['failure'][:200]!r}")


class Bench:
    """Everything that runs, and the phases."""

    def __init__(self, running: Running, samples: Samples, size: Size, only: set[str]) -> None:
        self._running = running
        self._samples = samples
        self.progress = samples.progress
        self._size = size
        self.absent: dict[str, str] = {}
        self.targets: list[Target] = []
        python = sys.executable
        self._mock = running.start("mock", [python, peers.BENCH / "upstream.py"], pipes=True)
        assert self._mock.stdout is not None  # noqa: S101 - started with pipes
        port = self._port = json.loads(self._mock.stdout.readline())["port"]
        self._load = running.start("load", [python, peers.BENCH / "load.py"], pipes=True)
        self.targets.append(peers.direct(port))
        self.freehold: Freehold = peers.freehold(running, port)
        for start in (peers.nginx, peers.portkey, peers.litellm):
            self.progress.doing(start.__name__)
            if only and start.__name__ not in only:
                self.absent[start.__name__] = "left out of this run"
                continue
            try:
                self.targets.append(start(running, port))
            except Absent as reason:
                self.absent[start.__name__] = str(reason)
                self.progress.say(str(reason))
        order = ["direct", "nginx", "freehold", "portkey", "litellm"]
        self.targets = sorted([*self.targets, self.freehold.target], key=lambda target: order.index(target.name))
        for target in self.targets:
            target.rest(still=True)

    def load(self, do: str, target: Target, **command: Any) -> dict[str, Any]:
        """One command to the load generator, while the target, if it was stopped, goes on."""
        assert self._load.stdin is not None and self._load.stdout is not None  # noqa: S101 - started with pipes
        target.rest(still=False)
        try:
            self._load.stdin.write(json.dumps({"do": do, **target.command(), **command}).encode() + b"\n")
            self._load.stdin.flush()
            line = self._load.stdout.readline()
            if not line:
                raise Absent("the load generator ended; see load.log")
            return {name: None if value != value else value for name, value in json.loads(line).items()}
        finally:
            target.rest(still=True)

    def pin(self, *, pinned: bool) -> None:
        """The gateways on one core, all else on another; or everything everywhere."""
        everywhere = set(range(os.cpu_count() or 1))
        other = {OTHER_CORE} if pinned else everywhere
        for child in (self._mock, self._load):
            machine.pin(child.pid, other)
        for target in self.targets:
            pin_target(target, {GATEWAY_CORE} if pinned else everywhere, other)

    # Phases

    def plain(self, phase: str, rounds: int, seconds_each: float) -> None:
        """Requests a second, latency and CPU at each number of callers; all targets one after another in each round."""
        for number in range(rounds):
            for callers in CALLERS:
                for target in self._turned(number):
                    slow = target.name in ("litellm", "portkey")
                    seconds = seconds_each * (1.4 if slow else 1)
                    self._samples.measure(
                        phase, target.name, callers, number,
                        lambda target=target, callers=callers, seconds=seconds, slow=slow: self.load(
                            "plain", target, callers=callers, seconds=seconds, warm_s=0.8 if slow else 0.4
                        ),
                    )  # fmt: skip

    def streams(self) -> None:
        """Time to the first token with many streams open, and what is lost."""
        for count, rounds in self._size.stream_rounds.items():
            for number in range(rounds):
                for target in self._turned(number):
                    if target.name == "litellm" and (number > 0 or (count > 200 and not self._size.patient)):
                        continue  # up to a minute a round: once says it
                    pause_ms = PAUSE_MS[count]
                    self._samples.measure(
                        "streams", target.name, count, number,
                        lambda target=target, count=count, pause_ms=pause_ms: self.load(
                            "streams", target, streams=count, pause_ms=pause_ms, patience_s=20.0,
                            spread_s=pause_ms / 1000 * 50, repeats=2 if count == 200 else 1,
                        ),
                    )  # fmt: skip

    def memory(self) -> None:
        """Resident memory of Freehold's worker after so many calls of one life, and after ten times as many."""
        target = self.freehold.target
        first, last = self._size.requests
        if self._samples.known("memory", target.name, last, 0):
            return
        if self._samples.known("memory", target.name, first, 0):  # of a worker that is gone
            self.load("plain", target, callers=64, count=first, warm_s=0.0)
        done = 0
        for calls in (first, last):
            wanted = calls - done
            self._samples.measure(
                "memory", target.name, calls, 0,
                lambda wanted=wanted: self.load("plain", target, callers=64, count=wanted, warm_s=0.0),
            )  # fmt: skip
            done = calls

    def ledger(self) -> None:
        """hold+settle pairs through the ledger alone, on its own database on the same PostgreSQL."""
        self._pairs("ledger", self._size.ledger_rounds, ["--accounts", "1", "1000"])

    def books(self) -> None:
        """Whether the books agree after all calls so far. Accounts made in bulk are not posted, so it is asked before."""
        found = self.freehold.admin("GET", "/v1/admin/books")
        self._samples.measure("books", "freehold", 0, 0, lambda: {"books": found})

    def accounts(self) -> None:
        """The same calls with a thousand accounts in the database, and with a thousand times as many.

        On two servers of their own, in turn within each round, so that nothing else is different.
        """
        last = self._size.rounds - 1
        if self._samples.known("accounts", "freehold", self._size.accounts, last) and any(
            sample["phase"] == "population" for sample in self._samples.all
        ):
            return
        servers = {
            count: peers.freehold(self._running, self._port, f"freehold-{count}")
            for count in (ACCOUNTS, self._size.accounts)
        }
        tokens: dict[int, list[str]] = {}
        for count, server in servers.items():
            pin_target(server.target, {GATEWAY_CORE}, {OTHER_CORE})
            tokens[count] = self._fill(server, count)
        for number in range(self._size.rounds):
            for count, server in servers.items():
                self._samples.measure(
                    "accounts", "freehold", count, number,
                    lambda server=server, count=count: self.load(
                        "plain", server.target, callers=64, seconds=self._size.seconds * 1.5, tokens=tokens[count]
                    ),
                )  # fmt: skip
        few_and_many = [str(ACCOUNTS), str(self._size.accounts)]
        self._pairs(
            "population", self._size.ledger_rounds, ["--populations", *few_and_many], servers[self._size.accounts]
        )

    def _fill(self, server: Freehold, accounts: int) -> list[str]:
        """Add accounts; the tokens of ACTIVE that lie evenly among them, each of which has called twice."""
        first = self._pairs_tool("--fill", str(accounts), "--url", server.database_url)["first"]
        step = max(1, accounts // ACTIVE)
        tokens = [f"fh_bench{first + at * step:040}" for at in range(ACTIVE)]
        self.load("plain", server.target, callers=16, count=ACTIVE * 2, warm_s=0.0, tokens=tokens)
        return tokens

    def _pairs(self, phase: str, rounds: int, options: list[str], server: Freehold | None = None) -> None:
        """On the PostgreSQL of `server`, or of the one that all else is measured on."""
        if any(sample["phase"] == phase for sample in self._samples.all):
            return
        server = server or self.freehold
        found = self._pairs_tool(
            *options, "--seconds", str(self._size.ledger_seconds), "--rounds", str(rounds), "--json",
            "--url", server.database_url, "--postgres", str(server.target.postgres),
        )  # fmt: skip
        for sample in found["samples"]:
            kept = "checkpoint" if sample.get("fresh") else phase
            self._samples.measure(kept, "ledger", sample["accounts"], sample["round"], lambda sample=sample: sample)

    def _pairs_tool(self, *options: str) -> dict[str, Any]:
        """bench/ledger_pairs.py on the gateway's core. Raises Absent with its last words."""
        done = subprocess.run(  # noqa: S603 - our own program
            [shutil.which("taskset") or "taskset", "-c", str(GATEWAY_CORE), sys.executable, str(peers.BENCH / "ledger_pairs.py"), *options],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(peers.ROOT / "src")},
        )  # fmt: skip
        if done.returncode:
            raise Absent(f"ledger_pairs.py failed: {done.stderr[-800:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _turned(self, number: int) -> list[Target]:
        """The targets, each round beginning with another, so that no one is always measured after the same."""
        at = number % len(self.targets)
        return self.targets[at:] + self.targets[:at]


def pin_target(target: Target, own: set[int], other: set[int]) -> None:
    """What it needs beside it on `other` cores, itself on its `own`: its processes may descend from the former."""
    for root in target.beside:
        machine.pin(root, other)
    for root in target.roots:
        machine.pin(root, own)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory for one run's logs and data, which PostgreSQL's own user can enter."""
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def phases(bench: Bench, size: Size, chosen: set[str]) -> dict[str, str]:
    """Run what was chosen; what failed, by phase, so that the rest is still measured."""
    failed: dict[str, str] = {}
    progress = bench.progress

    def run(name: str, work: Callable[[], None]) -> None:
        if chosen and name not in chosen:
            return
        progress.begin(name)
        began_s = time.monotonic()
        try:
            work()
        except Absent as reason:
            failed[name] = str(reason)
            progress.say(f"{name}: {reason}")
        progress.say(f"{name} took {time.monotonic() - began_s:.0f} s")

    bench.pin(pinned=True)
    run("memory", bench.memory)
    run("pinned", lambda: bench.plain("pinned", size.rounds, size.seconds))
    run("streams", bench.streams)
    bench.pin(pinned=False)
    run("unpinned", lambda: bench.plain("unpinned", size.unpinned_rounds, size.unpinned_seconds))
    bench.pin(pinned=True)
    run("ledger", bench.ledger)
    run("books", bench.books)
    run("accounts", bench.accounts)
    return failed


def expected_s(size: Size, targets: int) -> dict[str, float]:
    """How long each phase should take, roughly: for the line that says how long the run still takes."""
    streams = sum(
        rounds * targets * (PAUSE_MS[count] / 1000 * 50 * 3 + 1) for count, rounds in size.stream_rounds.items()
    )
    return {
        "memory": size.requests[1] / 1_500,
        "pinned": size.rounds * len(CALLERS) * targets * (size.seconds * 1.2 + 0.6),
        "streams": streams,
        "unpinned": size.unpinned_rounds * len(CALLERS) * targets * (size.unpinned_seconds * 1.2 + 0.6),
        "ledger": size.ledger_rounds * 2 * (size.ledger_seconds + 1) + 5,
        "books": 1.0,
        "accounts": size.rounds * 2 * size.seconds * 2
        + size.accounts / 20_000
        + size.ledger_rounds * size.ledger_seconds * 3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    for name in ("quick", "final"):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, default="full")
    parser.add_argument("--resume", action="store_true", help="go on with what the last run of this kind has measured")
    parser.add_argument("--report", action="store_true", help="only write the report anew from what was measured")
    parser.add_argument("--rounds", type=int, help="rounds of the pinned measurements")
    parser.add_argument("--phase", action="append", default=[], help="only this phase; may be given again")
    parser.add_argument("--peer", action="append", default=[], help="only this peer; may be given again")
    options = parser.parse_args()
    if sys.platform != "linux" or (os.cpu_count() or 1) < 2 or shutil.which("taskset") is None:
        sys.stderr.write("The benchmark needs Linux, two cores and taskset.\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is stopped
    size = SIZES[options.mode]
    if options.rounds:
        size = Size(**{**{name: getattr(size, name) for name in Size.__slots__}, "rounds": options.rounds})
    peers.PEERS.mkdir(exist_ok=True)
    chosen = {name: s for name, s in expected_s(size, 5).items() if not options.phase or name in options.phase}
    progress = Progress({} if options.report else chosen)
    resume = options.resume or options.report
    samples = Samples(peers.PEERS / f"samples-{options.mode}.jsonl", progress, resume=resume)
    about_file = peers.PEERS / f"about-{options.mode}.json"
    if not options.report:
        about_file.write_text(json.dumps(measured(samples, size, options)), "utf-8")
    progress.end()
    report.write(peers.BENCH, samples.all, json.loads(about_file.read_text("utf-8")))
    return 0


def measured(samples: Samples, size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Run, and say what was run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else soft, hard))
    began = datetime.datetime.now(datetime.UTC)
    with folder() as made:
        running = Running(made)
        try:
            bench = Bench(running, samples, size, set(options.peer))
            before = machine.described()
            failed = phases(bench, size, set(options.phase))
            versions = {target.name: target.version for target in bench.targets}
        finally:
            running.stop()
            for log in (*made.glob("*.log"), *made.glob("freehold/logs/worker*.log")):
                shutil.copy(log, peers.PEERS / log.name)
    took_s = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
    return {
        "mode": options.mode,
        "date": began.strftime("%Y-%m-%d %H:%M UTC"),
        "took_s": round(took_s) if math.isfinite(took_s) else None,
        "machine": before,
        "load_average_after": round(os.getloadavg()[0], 2),
        "versions": versions,
        "absent": bench.absent,
        "failed": failed,
        "postgres": "18, embedded, fsync on, synchronous_commit on",
    }


if __name__ == "__main__":
    raise SystemExit(main())
