"""How long the planner takes: reading a million rows of usage, 10,000 scenario paths of a year, a plan, a replay.

Run `PYTHONPATH=src python bench/planner.py [--rows 1000000] [--json]`. Each reading runs in a process of its own, so that
its peak of memory is its own. Exits with 1 when a bar is missed: 10 s and 1 GB a million rows, 2 s the scenarios.
"""

import argparse
import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from freehold.clock import Day, rfc3339
from freehold.gateway.account.usage import CHARGE_COLUMNS
from freehold.planner import scenarios
from freehold.planner.backtest import Rules, Series, backtest
from freehold.planner.loaders.load import load
from freehold.planner.model import Assumptions, Usage
from freehold.planner.planner import plan

START_S = 1_780_000_000
STEP_S = 26
MODELS = ("large", "small", "embedding")
BARS = {"read_s": 10.0, "read_mb": 1_024.0, "scenarios_s": 2.0}


def own(rows: int) -> Iterator[str]:
    """Our own export, a row per call."""
    yield ",".join(CHARGE_COLUMNS) + "\r\n"
    draw = random.Random(1)  # noqa: S311 - made up usage
    for row in range(rows):
        at = START_S + STEP_S * row
        cells: dict[str, object] = {
            "at": rfc3339(at), "day": Day.of(at), "request_id": f"req_{draw.getrandbits(128):032x}",
            "key_id": 3, "key_name": "team", "model": MODELS[row % 3], "input": draw.randrange(5_000),
            "output": draw.randrange(900), "cost_usd": "0.01", "cost_nano": draw.randrange(90_000_000),
            "outcome": "complete", "estimated": "false",
        }  # fmt: skip
        yield ",".join(str(cells.get(name, 0)) for name in CHARGE_COLUMNS) + "\r\n"


def litellm(rows: int) -> Iterator[str]:
    """LiteLLM's spend logs as a table, with JSON in quotes."""
    yield "request_id,call_type,spend,prompt_tokens,completion_tokens,startTime,model,metadata\n"
    draw = random.Random(1)  # noqa: S311 - made up usage
    for row in range(rows):
        at = rfc3339(START_S + STEP_S * row).replace("T", " ").replace("Z", ".125")
        meta = '"{""user_api_key"": ""hash"", ""tags"": []}"'
        yield f"r{row},acompletion,0.01,{draw.randrange(5_000)},{draw.randrange(900)},{at},{MODELS[row % 3]},{meta}\n"


def mooncake(rows: int) -> Iterator[str]:
    """An object a line."""
    draw = random.Random(1)  # noqa: S311 - made up usage
    for row in range(rows):
        made = {
            "timestamp": row * 900,
            "input_length": draw.randrange(9_000),
            "output_length": 52,
            "hash_ids": [row, 7],
        }
        yield json.dumps(made) + "\n"


def openai(rows: int) -> Iterator[str]:
    """OpenAI's usage by the minute, as pages of the API put one after the other."""
    yield '{"object": "page", "data": ['
    draw = random.Random(1)  # noqa: S311 - made up usage
    for row in range(rows):
        used = {"input_tokens": draw.randrange(5_000), "output_tokens": 9, "num_model_requests": 1, "model": "large"}
        bucket = {"object": "bucket", "start_time": START_S + 60 * row, "end_time": 0, "results": [used]}
        yield ("," if row else "") + json.dumps(bucket)
    yield '], "has_more": false}'


KINDS: dict[str, tuple[Callable[[int], Iterator[str]], str]] = {
    "freehold.csv": (own, "own usage, CSV"),
    "freehold.csv.gz": (own, "the same, gzip"),
    "litellm.csv": (litellm, "LiteLLM, CSV with quotes"),
    "mooncake.jsonl": (mooncake, "Mooncake, JSON lines"),
    "openai.json": (openai, "OpenAI usage, one JSON document"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read is not None:
        sys.stdout.write(json.dumps(read(asked.read)))
        return 0
    found = {"rows": asked.rows, "reading": readings(asked.rows), **decisions()}
    if asked.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    missed = [
        *(f"reading {name}" for name, each in found["reading"].items() if too_slow(each, asked.rows)),
        *(["scenarios"] if found["scenarios_s"] > BARS["scenarios_s"] else []),
    ]
    if missed:
        sys.stderr.write(f"Bars missed: {', '.join(missed)}.\n")
    return 1 if missed else 0


def too_slow(each: dict[str, float], rows: int) -> bool:
    return each["wall_s"] > BARS["read_s"] * max(1.0, rows / 1e6) or each["peak_mb"] > BARS["read_mb"]


def read(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    made = load([path])
    made.usage()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "rows": made.provenance.rows,
        "wall_s": time.perf_counter() - start,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss
        / (1 if sys.platform == "darwin" else 1_024)
        / (1_024 if sys.platform == "darwin" else 1),
    }


def readings(rows: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        for name, (kind, label) in KINDS.items():
            path = Path(folder) / name
            with path.with_suffix(".tmp").open("w", encoding="utf-8", newline="") as file:
                file.writelines(kind(rows))
            if name.endswith(".gz"):
                with path.with_suffix(".tmp").open("rb") as plain, gzip.open(path, "wb", compresslevel=1) as packed:
                    shutil.copyfileobj(plain, packed)
                path.with_suffix(".tmp").unlink()
            else:
                path.with_suffix(".tmp").rename(path)
            size_mb = path.stat().st_size / 1e6
            said = subprocess.run(  # noqa: S603 - this very file
                [sys.executable, __file__, "--read", str(path)], capture_output=True, text=True, check=True
            )
            found[label] = each = {"size_mb": round(size_mb, 1), **json.loads(said.stdout)}
            told(f"{label:34} {each['rows']:>10,.0f} rows {size_mb:7.0f} MB {each['wall_s']:6.2f} s "
                 f"{each['cpu_s']:6.2f} s CPU {each['peak_mb']:6.0f} MB peak")  # fmt: skip
            path.unlink()
    return found


def decisions() -> dict[str, Any]:
    """Scenarios, a whole plan, and a replay of a year of 100 clients."""
    rng = np.random.default_rng(1)
    usage = Usage(Day(20_000), rng.gamma(2.0, 50.0, 365))
    given = Assumptions(diem_price=183.0, hazard=0.5)
    found: dict[str, Any] = {}

    def timed(name: str, label: str, work: Callable[[], object]) -> None:
        work()
        start = time.perf_counter()
        work()
        found[name] = time.perf_counter() - start
        told(f"{label:60} {found[name]:6.2f} s")

    timed("scenarios_s", "10,000 paths × 365 days drawn, and one size on each",
          lambda: scenarios.draw(usage, given).hold(80.0))  # fmt: skip
    timed("plan_s", "a whole plan with them", lambda: plan(usage, given))
    series = [Series(str(client), rng.gamma(1.0, 5.0, 365)) for client in range(100)]
    timed("backtest_s", "365 days of 100 clients under six policies", lambda: backtest(series, Rules(0.5)))
    return found


def told(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
