"""The stored price book: versions, history, seeding, and what can't be changed."""

import asyncio

import asyncpg
import pytest

from freehold.db import Database
from freehold.pricing.book import MAX_NANO_PER_MILLION, Prices
from freehold.pricing.model import Price
from freehold.pricing.problems import InvalidPrice

CHEAP = {"input": 100, "output": 400}
DEAR = {"input": 200, "cached_input": 20, "output": 800}


@pytest.fixture
def prices(database: Database) -> Prices:
    return Prices(database)


async def put(database: Database, prices: Prices, model: str, rates: dict[str, int], label: str = "") -> int:
    async with database.transaction() as conn:
        return await prices.set(conn, model, rates, label=label, note="for the test")


async def test_a_new_book_is_empty_and_has_version_0(prices: Prices) -> None:
    assert (await prices.refresh()).version == 0
    assert prices.current().prices == {}
    assert (await prices.version(0)).prices == {}


async def test_a_price_shows_after_a_refresh_and_not_before(database: Database, prices: Prices) -> None:
    assert await put(database, prices, "a", CHEAP, "demo") == 1
    assert prices.current().version == 0
    book = await prices.refresh()
    assert book is prices.current()
    assert (book.version, book.note) == (1, "for the test")
    assert book.prices == {"a": Price("a", CHEAP, "demo")}


async def test_every_version_can_be_read_again_whole(database: Database, prices: Prices) -> None:
    await put(database, prices, "a", CHEAP)
    await put(database, prices, "b", CHEAP)
    await put(database, prices, "a", DEAR)
    books = [await prices.version(number) for number in (1, 2, 3)]
    assert [dict(book.prices) for book in books] == [
        {"a": Price("a", CHEAP)},
        {"a": Price("a", CHEAP), "b": Price("b", CHEAP)},
        {"a": Price("a", DEAR), "b": Price("b", CHEAP)},
    ]
    assert await prices.version(2) is books[1]


async def test_a_version_that_never_was_is_a_lookup_error(prices: Prices) -> None:
    with pytest.raises(LookupError, match="no version 9"):
        await prices.version(9)


async def test_a_new_price_leaves_out_units_of_the_old_one(database: Database, prices: Prices) -> None:
    await put(database, prices, "a", DEAR)
    await put(database, prices, "a", CHEAP)
    assert (await prices.refresh()).prices["a"].nano_per_million == CHEAP


async def test_the_same_price_again_adds_no_version(database: Database, prices: Prices) -> None:
    assert await put(database, prices, "a", CHEAP) == 1
    assert await put(database, prices, "b", CHEAP) == 2
    assert await put(database, prices, "a", CHEAP) == 2
    assert await put(database, prices, "a", CHEAP, "another label") == 3


async def test_history_tells_every_price_a_model_has_had(database: Database, prices: Prices) -> None:
    await put(database, prices, "a", CHEAP)
    await put(database, prices, "b", CHEAP)
    await put(database, prices, "a", DEAR, "dear")
    history = await prices.history("a")
    assert [(change.version, change.price, change.note) for change in history] == [
        (1, Price("a", CHEAP), "for the test"),
        (3, Price("a", DEAR, "dear"), "for the test"),
    ]
    assert history[0].created_at_s <= history[1].created_at_s
    assert await prices.history("nobody") == []


async def test_a_price_is_set_in_the_callers_transaction(database: Database, prices: Prices) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as conn:
            await prices.set(conn, "a", CHEAP)
            raise RuntimeError("the caller's own work failed")
    assert (await prices.refresh()).version == 0


async def test_two_writers_at_once_get_two_versions(database: Database, prices: Prices) -> None:
    numbers = await asyncio.gather(*(put(database, prices, f"m{n}", CHEAP) for n in range(8)))
    assert sorted(numbers) == list(range(1, 9))
    assert len((await prices.refresh()).prices) == 8


async def test_seeding_adds_only_models_without_a_price(database: Database, prices: Prices) -> None:
    await put(database, prices, "a", DEAR)
    async with database.transaction() as conn:
        assert await prices.seed(conn, [Price("a", CHEAP), Price("b", CHEAP, "demo")]) == 2
    book = await prices.refresh()
    assert book.prices["a"].nano_per_million == DEAR
    assert book.prices["b"] == Price("b", CHEAP, "demo")
    async with database.transaction() as conn:
        assert await prices.seed(conn, [Price("a", CHEAP), Price("b", DEAR)]) is None
    assert (await prices.refresh()).version == 2


async def test_another_process_sees_the_change_at_its_next_refresh(database: Database, prices: Prices) -> None:
    other = Prices(database)
    await other.refresh()
    await put(database, prices, "a", CHEAP)
    assert (await other.refresh()).version == 1


@pytest.mark.parametrize(
    ("model", "rates", "named"),
    [
        ("", CHEAP, "name"),
        ("a\n", CHEAP, "name"),
        ("x" * 201, CHEAP, "name"),
        ("a", {"output": 1}, "input"),
        ("a", {"input": 1, "images": 1}, "images"),
        ("a", {"input": -1}, "input"),
        ("a", {"input": MAX_NANO_PER_MILLION + 1}, "input"),
        ("a", {"input": True}, "input"),
        ("a", {"input": 1, "output": 1.5}, "output"),
    ],
)
async def test_a_price_that_cannot_be_is_refused_and_named(
    database: Database, prices: Prices, model: str, rates: dict[str, int], named: str
) -> None:
    with pytest.raises(InvalidPrice, match=named):
        await put(database, prices, model, rates)
    assert (await prices.refresh()).version == 0


@pytest.mark.parametrize("table", ["price_versions", "prices", "price_rates"])
@pytest.mark.parametrize("change", ["delete from {}", "truncate {} cascade"])
async def test_the_database_itself_keeps_the_book_append_only(
    database: Database, prices: Prices, table: str, change: str
) -> None:
    await put(database, prices, "a", CHEAP)
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.execute(change.format(table))


async def test_a_stored_amount_cannot_be_rewritten(database: Database, prices: Prices) -> None:
    await put(database, prices, "a", CHEAP)
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.execute("update price_rates set nano_per_million = 0")
