"""Hold+settle pairs a second through one Ledger on an embedded PostgreSQL with fsync on.

Run `PYTHONPATH=src python bench/ledger_pairs.py [--seconds 5] [--callers 64] [--accounts 1 1000]`. With --url it uses
that server, in databases of its own that it drops again.

For `make bench`: --json writes samples; --fill N adds N accounts with a key each to the very database of --url and says
the first one's id; --populations 1000 1000000 compares the cost of pairs drawn at random over all of 1,000 accounts of a new
database with that over the accounts that --fill made, in turn.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from machine import cpu_s

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


FILL = """
with made as (
    insert into ledger.accounts (opened_day) select 2000000 from generate_series(1, $1) returning id
), named as (
    insert into identity.accounts (id, name, kind, address, created_at_s)
    select id, 'bench', 'local', '0x' || lpad(to_hex(id), 40, '0'), 0 from made returning id
), keyed as (
    insert into identity.keys (account_id, name, prefix, hash, scopes, created_at_s)
    select id, 'bench', 'fh_bench', sha256(convert_to('fh_bench' || lpad(id::text, 40, '0'), 'UTF8')),
           array['inference'], 0
    from named returning id, account_id
), limited as (
    insert into ledger.keys (account_id, key_id, version, state, day_cap, total_cap, day, month_first, month_after)
    select account_id, id, 1, 'active', 1000000000000000, 1000000000000000, day, ledger.month_first(day),
           ledger.month_after(day)
    from keyed cross join ledger.present
)
insert into ledger.grants (account_id, source, external_id, amount, available, starts_at_s, expires_at_s, priority)
select id, 'promo', 'bench', 1000000000000, 1000000000000, 0, 9000000000, 20 from made
"""
"""Accounts as they are after their first call of the day, in bulk. Their grants are not posted, so the books of such a
database don't agree: it is for measuring only."""


CHANGED = {"ledger.accounts": "opened_day", "ledger.keys": "version", "ledger.grants": "priority"}
"""Tables of which a call changes a row of its account, and a column of each."""

TOUCH = """
update {table} set {column} = {column}
where ctid = any (array(
    select format('(%s,1)', page)::tid
    from generate_series(0, pg_relation_size('{table}') / current_setting('block_size')::int - 1) as page
))
"""
"""Changes one row of each page."""


async def touch(database: Database) -> None:
    """As it is between two checkpoints: the first change of each page, which is logged whole, has been."""
    async with database.pool.acquire() as connection:
        for table, column in CHANGED.items():
            await connection.execute(TOUCH.format(table=table, column=column), timeout=600)


async def fill(database: Database, count: int) -> int:
    """Add accounts, each with a promo grant and one key whose token is `fh_bench` and the account's id in 40 digits.

    Returns the first one's id; they follow one another. It leaves the database as it is between two checkpoints.
    """
    first = 1 + int(await database.fetchval("select coalesce(max(id), 0) from ledger.accounts"))
    async with database.pool.acquire() as connection:
        for done in range(0, count, 100_000):
            await connection.execute(FILL, min(100_000, count - done), timeout=600)
        for table in ("ledger.accounts", "ledger.keys", "ledger.grants", "identity.accounts", "identity.keys"):
            await connection.execute(f"vacuum (analyze) {table}", timeout=600)
        await connection.execute("checkpoint", timeout=600)
    await touch(database)
    return int(await database.fetchval("select min(id) from ledger.accounts where id >= $1", first))


async def pairs(
    ledger: Ledger,
    choose: Callable[[int], tuple[int, int]],
    *,
    callers: int,
    seconds: float,
    price_version: int = 0,
    postgres: int | None = None,
) -> dict[str, Any]:
    """Pairs a second, median hold latency in ms, CPU time in µs per pair of this process and of PostgreSQL.

    `choose` gives account and key of a turn.
    """
    latencies: list[float] = []
    measuring = False
    end = float("inf")

    async def call(number: int) -> None:
        turn = number
        while time.perf_counter() < end:
            account_id, key_id = choose(turn)
            turn += callers
            begun = time.perf_counter()
            hold = await ledger.hold(
                HoldRequest(account_id, key_id, uuid4(), 2_000_000, 2_000_000, price_version, key_version=1)
            )
            waited = time.perf_counter() - begun
            await ledger.settle(hold, Settlement(700_000, "model", {"input": 20, "output": 300}))
            if measuring:
                latencies.append(waited)

    tasks = [asyncio.create_task(call(number)) for number in range(callers)]
    await asyncio.sleep(0.3)
    measuring = True
    before = time.process_time(), cpu_s([postgres]) if postgres else 0.0
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    measuring = False
    took_s, done = time.perf_counter() - begun, len(latencies)
    used = time.process_time() - before[0], (cpu_s([postgres]) if postgres else 0.0) - before[1]
    end = 0.0
    await asyncio.gather(*tasks)
    return {
        "pairs": done / took_s,
        "hold_ms": statistics.median(latencies) * 1000,
        "cpu_us": {"ledger": used[0] / done * 1e6, "postgres": used[1] / done * 1e6},
    }


@asynccontextmanager
async def own_database(url: str, name: str) -> AsyncIterator[Database]:
    """A new database on that server, dropped again at the end."""
    parts = urlsplit(url)
    server = await Database.connect(url, max_size=1)
    await server.execute(f"drop database if exists {name} with (force)")
    await server.execute(f"create database {name}")
    database = await Database.connect(urlunsplit(parts._replace(path=f"/{name}")))
    try:
        await database.migrate()
        yield database
    finally:
        await database.close()
        await server.execute(f"drop database {name} with (force)")
        await server.close()


async def measure(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One hot account, many, one caller: interleaved, `rounds` times."""
    samples: list[dict[str, Any]] = []
    async with own_database(url, "bench_pairs") as database, Ledger(database, clock=SystemClock()) as ledger:
        furnished = {count: await furnish(ledger, database, count) for count in options.accounts}
        for number in range(options.rounds):
            for count, accounts in furnished.items():
                for callers in (options.callers, 1) if not options.json else (options.callers,):
                    found = await pairs(
                        ledger,
                        lambda turn, accounts=accounts: (accounts[turn % len(accounts)], 1),
                        callers=callers,
                        seconds=options.seconds,
                        postgres=options.postgres,
                    )
                    samples.append({"accounts": count, "callers": callers, "round": number, **found})
        wrong = await ledger.check()
        samples[-1]["books"] = "agree" if not wrong else f"differ: {wrong[:3]}"
    return samples


async def compare(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Pairs drawn at random over all accounts of databases of several sizes, interleaved; last, right after a checkpoint."""
    samples: list[dict[str, Any]] = []
    few, many = options.populations
    large = await Database.connect(url)
    async with own_database(url, "bench_few") as small:
        await fill(small, few)
        async with Ledger(small, clock=SystemClock()) as first, Ledger(large, clock=SystemClock()) as second:
            chances = random.Random(1)  # noqa: S311 - the same accounts in each run
            drawn: list[tuple[int, Ledger, list[tuple[int, int]], int]] = []
            for count, database, ledger in ((few, small, first), (many, large, second)):
                version = int(await database.fetchval("select version from ledger.price"))
                rows = await database.fetch(
                    "select account_id, id from identity.keys where prefix = 'fh_bench' order by random() limit 200000"
                )
                keys = [(row["account_id"], row["id"]) for row in rows]
                chances.shuffle(keys)
                drawn.append((count, ledger, keys, version))
            for number in range(options.rounds + 1):
                for count, ledger, keys, version in drawn:
                    last = number == options.rounds
                    if last:
                        await large.pool.execute("checkpoint", timeout=600)
                    found = await pairs(
                        ledger,
                        lambda turn, keys=keys: keys[turn % len(keys)],
                        price_version=version,
                        callers=options.callers,
                        seconds=options.seconds,
                        postgres=options.postgres,
                    )
                    said = {
                        "accounts": count,
                        "callers": options.callers,
                        "round": 0 if last else number,
                        "fresh": last,
                    }
                    samples.append({**said, **found})
    await large.close()
    return samples


async def filled(url: str, count: int) -> dict[str, int]:
    database = await Database.connect(url)
    try:
        return {"first": await fill(database, count)}
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--populations", type=int, nargs=2)
    parser.add_argument("--fill", type=int)
    parser.add_argument("--postgres", type=int, help="process id of the server, for its CPU time")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--url")
    options = parser.parse_args()
    import uvloop

    with server(options.url) as url:
        if options.fill is not None:
            sys.stdout.write(json.dumps(uvloop.run(filled(url, options.fill))) + "\n")
            return
        samples = uvloop.run((compare if options.populations else measure)(url, options))
    if options.json:
        sys.stdout.write(json.dumps({"samples": samples}) + "\n")
        return
    for found in samples:
        sys.stdout.write(
            f"{found['accounts']:9,} accounts, {found['callers']:3} callers: {found['pairs']:7,.0f} pairs/s, "
            f"hold {found['hold_ms']:.2f} ms median{', right after a checkpoint' if found.get('fresh') else ''}\n"
        )


if __name__ == "__main__":
    main()
