"""Group commit by itself: what it sends together, again, and in halves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from freehold.clock import FrozenClock
from freehold.db import Connection, Database
from freehold.ledger import batch
from freehold.ledger.batch import LARGEST, MANY, GroupCommit
from freehold.problems import LedgerUnavailable


class Squares:
    """Squares numbers, and keeps the batches that it was sent. `fault` may raise for a batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.given_up: list[tuple[int, int | None]] = []
        self.fault: Callable[[list[int]], None] = lambda numbers: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, connection: Connection, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.gate.wait()
        self.fault(list(numbers))
        return [number * number for number in numbers]

    def abandon(self, number: int, result: int | None) -> None:
        self.given_up.append((number, result))


@asynccontextmanager
async def committing(
    database: Database, squares: Squares, clock: FrozenClock | None = None
) -> AsyncIterator[GroupCommit[int, int]]:
    commits = GroupCommit(database, clock or FrozenClock(), squares.send, abandon=squares.abandon)
    await commits.start()
    try:
        yield commits
    finally:
        await commits.stop()


async def test_what_arrives_while_a_batch_is_under_way_leaves_together(database: Database) -> None:
    squares = Squares()
    squares.gate.clear()
    async with committing(database, squares) as commits:
        first = commits.submit(1, "1")
        while not squares.batches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        others = [commits.submit(number, str(number)) for number in range(2, 6)]
        squares.gate.set()
        assert [await answer for answer in (first, *others)] == [1, 4, 9, 16, 25]
    assert squares.batches == [[1], [2, 3, 4, 5]]


async def test_two_items_of_one_id_never_share_a_batch(database: Database) -> None:
    squares = Squares()
    async with committing(database, squares) as commits:
        answers = [commits.submit(number, id) for number, id in [(1, "a"), (2, "b"), (3, "a"), (4, "a")]]
        assert [await answer for answer in answers] == [1, 4, 9, 16]
    assert squares.batches == [[1, 2], [3], [4]]


async def test_a_batch_has_a_largest_size(database: Database) -> None:
    squares = Squares()
    async with committing(database, squares) as commits:
        await asyncio.gather(*(commits.submit(number, number) for number in range(LARGEST + 1)))
    assert [len(batch) for batch in squares.batches] == [LARGEST, 1]


@pytest.mark.parametrize("error", [asyncpg.SerializationError, asyncpg.DeadlockDetectedError, ConnectionResetError])
async def test_a_batch_that_lost_a_race_or_its_connection_is_sent_again_whole(
    database: Database, error: type[Exception]
) -> None:
    squares = Squares()

    def twice(numbers: list[int]) -> None:
        if len(squares.batches) < 3:
            raise error("again")

    squares.fault = twice
    async with committing(database, squares) as commits:
        assert await asyncio.gather(commits.submit(1, "1"), commits.submit(2, "2")) == [1, 4]
    assert squares.batches == [[1, 2]] * 3


async def test_a_batch_that_is_refused_is_sent_again_in_halves(database: Database) -> None:
    squares = Squares()

    def not_three(numbers: list[int]) -> None:
        if 3 in numbers:
            raise asyncpg.CheckViolationError("3")

    squares.fault = not_three
    async with committing(database, squares) as commits:
        results = await asyncio.gather(*(commits.submit(n, n) for n in range(1, 5)), return_exceptions=True)
    assert isinstance(results[2], LedgerUnavailable)
    assert [results[0], results[1], results[3]] == [1, 4, 16]
    assert squares.batches == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]


async def test_what_nobody_waits_for_is_sent_until_the_database_takes_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "AGAIN_FIRST_S", 0.0)
    squares, taken = Squares(), asyncio.Event()

    def locked(numbers: list[int]) -> None:
        if len(squares.batches) < 4:
            raise asyncpg.LockNotAvailableError("somebody has it")
        taken.set()

    squares.fault = locked
    async with committing(database, squares) as commits:
        commits.post(1, "1")
        await taken.wait()
    assert squares.batches == [[1]] * 4


async def test_what_nobody_waits_for_is_given_up_when_it_is_refused_again_and_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "AGAIN_FIRST_S", 0.0)
    monkeypatch.setattr(batch, "MOST_REFUSALS", 3)
    squares, refused = Squares(), asyncio.Event()

    def never_one(numbers: list[int]) -> None:
        if 1 in numbers:
            if len(squares.batches) == 3:
                refused.set()
            raise asyncpg.CheckViolationError("1")

    squares.fault = never_one
    async with committing(database, squares) as commits:
        commits.post(1, "1")
        await refused.wait()
        assert await commits.submit(2, "2") == 4
    assert squares.batches == [[1]] * 3 + [[2]]


async def test_what_rests_is_sent_once_more_before_it_stops(database: Database) -> None:
    squares, refused = Squares(), asyncio.Event()

    def locked(numbers: list[int]) -> None:
        refused.set()
        raise asyncpg.LockNotAvailableError("somebody has it")

    squares.fault = locked
    async with committing(database, squares) as commits:
        commits.post(1, "1")
        await refused.wait()
    assert squares.batches == [[1]] * 2


async def test_an_unforeseen_fault_reaches_who_waits_and_the_next_batch_goes_on(database: Database) -> None:
    squares = Squares()

    def bug(numbers: list[int]) -> None:
        if len(squares.batches) == 1:
            raise ZeroDivisionError

    squares.fault = bug
    async with committing(database, squares) as commits:
        with pytest.raises(LedgerUnavailable):
            await commits.submit(1, "1")
        assert await commits.submit(2, "2") == 4
    assert squares.given_up == [(1, None)]


async def test_patience_ends_by_the_clock_and_what_may_have_happened_is_given_up(database: Database) -> None:
    clock = FrozenClock()
    squares = Squares()

    def lost(numbers: list[int]) -> None:
        clock.advance(2)
        raise ConnectionResetError

    squares.fault = lost
    async with committing(database, squares, clock) as commits:
        with pytest.raises(LedgerUnavailable):
            await commits.submit(1, "1")
    assert squares.batches == [[1]] * 3
    assert squares.given_up == [(1, None)]


async def test_what_is_queued_is_sent_before_it_stops(database: Database) -> None:
    squares = Squares()
    async with committing(database, squares) as commits:
        answer = commits.submit(1, "1")
        commits.post(2, "2")
    assert await answer == 1
    assert squares.batches == [[1, 2]]
    with pytest.raises(LedgerUnavailable, match="stopping"):
        await commits.submit(3, "3")


async def test_one_caller_after_another_never_waits_for_more(database: Database) -> None:
    squares = Squares()
    async with committing(database, squares) as commits:
        for number in range(MANY):
            await commits.submit(number, number)
            assert commits._next_s == 0.0
    assert [len(batch) for batch in squares.batches] == [1] * MANY


async def test_after_a_batch_of_many_the_next_lets_more_come(database: Database) -> None:
    squares = Squares()
    async with committing(database, squares) as commits:
        await asyncio.gather(*(commits.submit(number, number) for number in range(MANY)))
        first = commits.submit(100, 100)
        for _ in range(3):
            await asyncio.sleep(0)
        second = commits.submit(101, 101)
        await asyncio.gather(first, second)
    assert [len(batch) for batch in squares.batches] == [MANY, 2]
