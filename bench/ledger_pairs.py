"""Hold+settle pairs a second through one Ledger on an embedded PostgreSQL with fsync on.

Run `PYTHONPATH=src python bench/ledger_pairs.py [--seconds 5] [--callers 64] [--accounts 1 1000]`; with --url it uses
that server's database, which should be empty.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from freehold.clock import SystemClock
from freehold.db import Database
from freehold.host.postgres import Postgres
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, HoldRequest, KeyLimits, Settlement, Source

USD = 1_000_000_000


@contextmanager
def server(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        base = Path(folder)
        if os.geteuid() == 0:
            base.chmod(0o755)  # PostgreSQL's own user must be able to enter
        data = base / "data"
        data.mkdir(mode=0o700)
        postgres = Postgres.start(data, root_base=base / "root")
        try:
            yield postgres.url
        finally:
            postgres.stop()


async def furnish(ledger: Ledger, database: Database, accounts: int) -> list[int]:
    """Accounts that can pay for a long time, each with an allowance, a prepaid grant and one key with caps."""
    day = (await ledger.time()).at_s // 86_400
    made: list[int] = []
    async with database.transaction() as conn:
        for _ in range(accounts):
            account_id = await ledger.create_account(conn)
            await ledger.put_key(conn, KeyLimits(account_id, 1, version=1, day_cap_nano=10**15, total_cap_nano=10**15))
            await ledger.grant(
                account_id, Source.PREPAID, 10**6 * USD, "evt:1", starts_at_s=0, expires_at_s=FOREVER_S, conn=conn
            )
            made.append(account_id)
    for account_id in made:
        await ledger.open_day(account_id, day, Source.ALLOWANCE, 1_000 * USD, f"day:{day}:allowance:open")
    return made


async def pairs(ledger: Ledger, accounts: list[int], *, callers: int, seconds: float) -> tuple[float, float]:
    """(pairs a second, median hold latency in ms)."""
    end = time.perf_counter() + seconds
    done = 0
    latencies: list[float] = []

    async def call(number: int) -> None:
        nonlocal done
        turn = number
        while time.perf_counter() < end:
            account_id = accounts[turn % len(accounts)]
            turn += callers
            begun = time.perf_counter()
            hold = await ledger.hold(
                HoldRequest(account_id, 1, uuid4(), 2_000_000, 2_000_000, price_version=0, key_version=1)
            )
            latencies.append(time.perf_counter() - begun)
            await ledger.settle(hold, Settlement(700_000, "model", {"input": 20, "output": 300}))
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(callers)))
    return done / (time.perf_counter() - begun), statistics.median(latencies) * 1000


async def measure(url: str, options: argparse.Namespace) -> None:
    database = await Database.connect(url)
    await database.migrate()
    async with Ledger(database, clock=SystemClock()) as ledger:
        for count in options.accounts:
            accounts = await furnish(ledger, database, count)
            for callers in (options.callers, 1):
                rate, latency = await pairs(ledger, accounts, callers=callers, seconds=options.seconds)
                sys.stdout.write(
                    f"{count:5} accounts, {callers:3} callers: {rate:7,.0f} pairs/s, hold {latency:.2f} ms median\n"
                )
        wrong = await ledger.check()
        sys.stdout.write("books agree\n" if not wrong else f"books differ: {wrong[:3]}\n")
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--url")
    options = parser.parse_args()
    import uvloop

    with server(options.url) as url:
        uvloop.run(measure(url, options))


if __name__ == "__main__":
    main()
