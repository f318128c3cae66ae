"""Each law has a fault that it must catch, planted behind the ledger's back."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from freehold.clock import SystemClock
from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import FOREVER_S, Attempt, Difference, HoldRequest, KeyLimits, Settlement, Source

NOON = 21_000 * 86_400 + 43_200


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    """Account 1 with grants of two purses, charges, an open hold, an expiry and a reversal."""
    async with Ledger(database, clock=SystemClock()) as ledger:
        await ledger.set_time(NOON, opened_day=0)
        for _ in range(2):
            async with database.transaction() as conn:
                account_id = await ledger.create_account(conn)
                await ledger.put_key(conn, KeyLimits(account_id, 1, version=1, rpm=100, tpm=1_000))
            await ledger.open_day(account_id, 21_000, Source.ALLOWANCE, 100, "day:21000:allowance:open")
            await ledger.grant(account_id, Source.PREPAID, 900, "evt:1", starts_at_s=0, expires_at_s=FOREVER_S)
            await ledger.grant(account_id, Source.PROMO, 7, "promo:1", starts_at_s=0, expires_at_s=NOON - 1)
            for cost in (70, 90, 10):
                request = HoldRequest(
                    account_id, 1, uuid4(), 60, 60, price_version=0, key_version=1, tokens=5,
                    idempotency_key=f"call {cost}", body_digest=b"body",
                )  # fmt: skip
                hold = await ledger.extend(await ledger.hold(request), 20)
                tries = (Attempt("one", 0, "refused"), Attempt("two", 3))
                await ledger.settle(hold, Settlement(cost, "small", {"input": 1}, attempts=tries, answer=b"answer"))
            await ledger.hold(HoldRequest(account_id, 1, uuid4(), 50, 50, price_version=0, key_version=1))
            await ledger.reverse(account_id, "evt:1", 20, "evt:1:reorg")
        await ledger.expire()
        yield ledger


async def plant(database: Database, sql: str) -> None:
    """Change the books as only somebody who disabled their guards can."""
    async with database.transaction() as conn:
        await conn.execute("set local session_replication_role = replica")
        await conn.execute(sql)


async def laws(ledger: Ledger) -> set[str]:
    return {difference.law for difference in await ledger.check()}


async def test_books_that_were_kept_by_the_ledger_are_right(ledger: Ledger) -> None:
    assert await ledger.check() == []


FAULTS = {
    "each transaction sums to zero": """
        alter table ledger.postings drop constraint postings_amounts_check;
        update ledger.postings set amounts = array[amounts[1] + 1] || amounts[2:]
        where account_id = 1 and external_id = 'promo:1'""",
    "a grant holds what its entries say": "update ledger.grants set available = available + 1 where id = 1",
    "the amount of a grant is what was issued": "update ledger.grants set amount = amount + 1 where id = 1",
    "the loss of a grant is what a reorg took": "update ledger.grants set absorbed = absorbed + 1 where id = 1",
    "no balance is negative": """
        alter table ledger.grants drop constraint grants_never_negative;
        update ledger.grants set available = -1 where id = 1""",
    "held is the sum of open holds": "update ledger.grants set held = held + 1 where id = 1",
    "a hold is the sum of its legs": "update ledger.holds set amount = amount + 1 where state = 'open' and account_id = 1",
    "a charge is the sum of its legs": "update ledger.charges set cost = cost + 1 where account_id = 1 and cost = 10",
    "a call is held or charged": """
        update ledger.charges set request_id = (select request_id from ledger.holds where account_id = 1)
        where account_id = 1 and cost = 10""",
    "a charge is within its hold": "update ledger.charges set held = 9 where account_id = 1 and cost = 10",
    "sources are not mixed": """
        update ledger.charges set leg_sources = array['strip'] where account_id = 1 and cost = 10""",
    "each entry is on the chart": """
        update ledger.postings set lines = array[lines[1], 'elsewhere']
        where account_id = 1 and external_id = 'promo:1'""",
    "a key has used the sum of its charges": "update ledger.keys set day_used = day_used + 1 where account_id = 1",
    "a key holds the sum of its open holds": "update ledger.keys set total_held = total_held + 1 where account_id = 1",
    "an attempt names its upstream and its cost": """
        update ledger.charges set attempts = '[["", 3, "complete"]]' where account_id = 1 and cost = 10""",
    "what is owed to upstreams is what attempts cost": """
        create or replace view ledger.entries as
        select p.account_id, p.external_id, p.kind, p.at_s, e.line, e.grant_id, e.amount
        from ledger.postings p cross join lateral unnest(p.lines, p.grant_ids, p.amounts) as e (line, grant_id, amount)
        union all
        select c.account_id, 'req:' || c.request_id, 'settle', c.at_s, 'cost:upstream:two', null::bigint, -3::bigint
        from ledger.charges c""",
    "the bill is its entries": "update ledger.charges set leg_amounts[1] = 1 where account_id = 1 and cost = 10",
    "an idempotency key runs with its hold": """
        update ledger.idempotency set state = 'running' where account_id = 1 and key = 'call 10'""",
    "the counts of a minute are not negative": "update ledger.rates set tokens[7] = -1 where account_id = 1",
    "the books are append only": "alter table ledger.charges disable trigger append_only",
}


async def test_a_months_use_that_is_wrong_is_named(ledger: Ledger, database: Database) -> None:
    await plant(database, "update ledger.keys set month_used = month_used + 1 where account_id = 1")
    assert await laws(ledger) == {"a key has used the sum of its charges"}
    await plant(database, "update ledger.keys set month_used = month_used - 1, month_held = month_held + 1")
    assert "a key holds the sum of its open holds" in await laws(ledger)


@pytest.mark.parametrize("law", FAULTS)
async def test_a_planted_fault_is_named(ledger: Ledger, database: Database, law: str) -> None:
    await plant(database, FAULTS[law])
    assert law in await laws(ledger)


async def test_every_law_has_a_planted_fault() -> None:
    from freehold.db import statements

    assert {name.replace("_", " ") for name in statements("freehold.ledger", "books.sql")} == set(FAULTS)


async def test_a_difference_names_its_account_and_both_numbers(ledger: Ledger, database: Database) -> None:
    await plant(database, "update ledger.keys set total_used = total_used + 1 where account_id = 2")
    (found,) = await ledger.check()
    assert found == Difference(
        law="a key has used the sum of its charges",
        account_id=2,
        subject="key 1",
        expected="total 160, month 160, day 160",
        found="total 161, month 160, day 160",
    )


@pytest.mark.parametrize("table", ["postings", "charges"])
@pytest.mark.parametrize("change", ["update ledger.{} set at_s = 0", "delete from ledger.{}", "truncate ledger.{}"])
async def test_the_books_are_never_changed(ledger: Ledger, database: Database, table: str, change: str) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.execute(change.format(table))
    assert await ledger.check() == []


async def test_a_posting_that_does_not_sum_to_zero_cannot_be_written(ledger: Ledger, database: Database) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await database.execute(
            "insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)"
            " values (1, 'x', 'grant', 0, '', array['purse:promo', 'issuance:promo'], array[3, 3], array[5, -4])"
        )


async def test_a_balance_below_zero_cannot_be_written(ledger: Ledger, database: Database) -> None:
    for column in ("available", "held"):
        with pytest.raises(asyncpg.CheckViolationError):
            await database.execute(f"update ledger.grants set {column} = -1")


async def test_entries_alone_rebuild_every_balance(ledger: Ledger, database: Database) -> None:
    rows = await database.fetch(
        "select g.available + g.held as stands, coalesce(sum(e.amount), 0) as rebuilt from ledger.grants g"
        " left join ledger.entries e on e.account_id = g.account_id and e.grant_id = g.id and e.line like 'purse:%'"
        " group by g.account_id, g.id"
    )
    assert len(rows) == 6
    assert all(row["stands"] == row["rebuilt"] for row in rows)
