"""The stored price book: read in memory on the hot path, changed by appending a version.

A version holds from a moment of ledger time on. The book of a version is, for each model, its newest price in a version
that is no later by number and by moment. A change whose moment is still to come stays behind every change made
meanwhile: whoever appends a version appends those that begin after it anew, so the greatest number among the versions
that have begun is the one that holds, and no version's book ever changes.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.db import Connection, Database, statements
from freehold.pricing.model import INPUT, UNITS, Price, PriceBook, Tier
from freehold.pricing.problems import InvalidPrice

MAX_NANO_PER_MILLION = 10**15
"""1 USD a token. With it, a thousand million tokens still cost less than the ledger's largest amount."""

MAX_NAME = 200
MAX_ABOVE = 1_000_000_000
"""Tokens: no tier begins above it."""
MAX_TIERS = 20

_SQL = statements("freehold.pricing")
_EMPTY = PriceBook(version=0, prices={})


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One entry of a model's history: the price that holds from `version` on."""

    version: int
    price: Price
    created_at_s: float
    note: str
    effective_at_s: int = 0
    """Ledger time."""


class Prices:
    """The price book in the database. `refresh()` once before use; version 0 is the empty book.

    `in_force` says which version holds now, by ledger time; without it the database's clock decides.
    """

    def __init__(self, database: Database, *, in_force: Callable[[], Awaitable[int]] | None = None) -> None:
        self._database = database
        self._in_force = in_force
        self._current = _EMPTY
        self._books: dict[int, PriceBook] = {0: _EMPTY}

    def current(self) -> PriceBook:
        """The book that held at the last refresh; no I/O."""
        return self._current

    async def refresh(self, version: int | None = None) -> PriceBook:
        """Make the book current that holds now; `version` is its number, if that is known."""
        if version is None and self._in_force is not None:
            version = await self._in_force()
        if version is None:
            row = await self._database.fetchrow(_SQL["version_at"], None)
            if row is not None and row["version"] != self._current.version:
                self._current = self._books.get(row["version"]) or await self._load(row)
        elif version != self._current.version:
            self._current = await self.version(version)
        return self._current

    async def version(self, number: int) -> PriceBook:
        """The whole book as it stood at version `number`. Raises LookupError for a version that never was."""
        if number not in self._books:
            row = await self._database.fetchrow(_SQL["version"], number)
            if row is None:
                raise LookupError(f"There is no version {number} of the price book.")
            await self._load(row)
        return self._books[number]

    async def set(
        self,
        conn: Connection,
        model: str,
        nano_per_million: Mapping[str, int],
        label: str = "",
        note: str = "",
        *,
        tiers: Iterable[Tier] = (),
        now_s: int = 0,
        at_s: int | None = None,
    ) -> int:
        """Append a version in which `model` costs this, in the caller's transaction; returns its number.

        It holds from ledger time `at_s` on, or from now, which is `now_s`. The versions from the returned number on
        (`since`) go to the ledger in the same transaction. The price that `model` has now, set again for now, adds
        nothing and returns the number that holds. Raises InvalidPrice.
        """
        price = Price(model, dict(nano_per_million), label, tuple(tiers))
        check(price)
        if at_s is not None and at_s <= now_s:
            raise InvalidPrice(reason="A price can't begin in the past: past calls keep theirs.", param="effective_at")
        version, standing = await self._locked(conn, now_s)
        if at_s is None and standing.get(model) == price:
            return version
        return await _append(conn, [price], note, now_s=now_s, at_s=at_s)

    async def seed(
        self, conn: Connection, prices: Iterable[Price], note: str = "seed", *, now_s: int = 0
    ) -> int | None:
        """Append one version with those of `prices` whose model has none; None when there are none to add."""
        wanted = {price.model: price for price in prices}
        for price in wanted.values():
            check(price)
        _, standing = await self._locked(conn, now_s)
        missing = [price for model, price in wanted.items() if model not in standing]
        return await _append(conn, missing, note, now_s=now_s) if missing else None

    async def since(self, conn: Connection, version: int) -> list[tuple[int, int]]:
        """The versions from `version` on, each with the ledger time that it holds from."""
        return [(row["version"], row["effective_at_s"]) for row in await conn.fetch(_SQL["since"], version)]

    async def coming(self, now_s: int) -> list[PriceChange]:
        """The prices that begin after ledger time `now_s`, the next first."""
        changes: list[PriceChange] = []
        for row in await self._database.fetch(_SQL["coming"], now_s):
            found = _prices(await self._database.fetch(_SQL["changes_of"], row["version"]))
            changes += [
                PriceChange(row["version"], price, row["created_at_s"], row["note"], row["effective_at_s"])
                for price in found.values()
            ]
        return changes

    async def history(self, model: str) -> list[PriceChange]:
        """Every price that `model` has had or will have, oldest first."""
        changes: dict[int, list[Any]] = {}
        for row in await self._database.fetch(_SQL["history"], model):
            changes.setdefault(row["version"], []).append(row)
        return [
            PriceChange(
                version,
                _price(model, rows[0]["label"], rows),
                rows[0]["created_at_s"],
                rows[0]["note"],
                rows[0]["effective_at_s"],
            )
            for version, rows in changes.items()
        ]

    async def _load(self, row: Any) -> PriceBook:
        rates = await self._database.fetch(_SQL["prices_at"], row["version"])
        book = PriceBook(row["version"], _prices(rates), row["created_at_s"], row["note"], row["effective_at_s"])
        self._books[book.version] = book
        return book

    async def _locked(self, conn: Connection, now_s: int) -> tuple[int, dict[str, Price]]:
        """The version that holds and its prices, while no one else can add one until the transaction ends."""
        await conn.execute(_SQL["one_writer"])
        row = await conn.fetchrow(_SQL["version_at"], now_s)
        if row is None:
            return 0, {}
        return row["version"], _prices(await conn.fetch(_SQL["prices_at"], row["version"]))


def check(price: Price) -> None:
    """Raise InvalidPrice unless the price can be stored: known units, whole and bounded amounts, an input price."""
    if not price.model or len(price.model) > MAX_NAME or any(ord(c) < 32 for c in price.model):
        raise InvalidPrice(reason=f"A model's name is 1 to {MAX_NAME} printable characters.", param="model")
    if INPUT not in price.nano_per_million:
        raise InvalidPrice(reason=f"The price of {price.model} needs an amount for input.", param=INPUT)
    _check_rates(price.model, price.nano_per_million)
    before = 0
    for tier in price.tiers:
        if type(tier.above) is not int or not before < tier.above <= MAX_ABOVE or not tier.nano_per_million:
            raise InvalidPrice(
                reason=f"A tier of {price.model} begins above a number of tokens from 1 to {MAX_ABOVE:,}, higher than "
                "the tier before it, and names at least one rate.",
                param="tiers",
            )
        _check_rates(price.model, tier.nano_per_million)
        before = tier.above
    if len(price.tiers) > MAX_TIERS:
        raise InvalidPrice(reason=f"A price has at most {MAX_TIERS} tiers.", param="tiers")


def _check_rates(model: str, rates: Mapping[str, int]) -> None:
    for unit, nano in rates.items():
        if unit not in UNITS:
            raise InvalidPrice(reason=f"{unit} is not a unit with a price; those are {', '.join(UNITS)}.", param=unit)
        if type(nano) is not int or not 0 <= nano <= MAX_NANO_PER_MILLION:
            raise InvalidPrice(
                reason=f"The {unit} price of {model} is not between 0 and 1,000,000 USD per million.", param=unit
            )


def _prices(rows: Iterable[Any]) -> dict[str, Price]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return {model: _price(model, own[0]["label"], own) for model, own in found.items()}


def _price(model: str, label: str, rows: Sequence[Any]) -> Price:
    """Of rows in the order of `above`."""
    rates: dict[int, dict[str, int]] = {0: {}}
    for row in rows:
        rates.setdefault(row["above"], {})[row["unit"]] = row["nano_per_million"]
    base = rates.pop(0)
    return Price(model, base, label, tuple(Tier(above, own) for above, own in rates.items()))


async def _append(conn: Connection, prices: Iterable[Price], note: str, *, now_s: int, at_s: int | None = None) -> int:
    """A version with `prices`, and anew those that begin after it."""
    standing = await conn.fetchrow(_SQL["version_at"], now_s)
    begins_s = at_s if at_s is not None else max(now_s, standing["effective_at_s"] if standing else 0)
    coming = [
        (row, _prices(await conn.fetch(_SQL["changes_of"], row["version"])))
        for row in await conn.fetch(_SQL["coming"], now_s)
    ]
    same = next((found for found in coming if found[0]["effective_at_s"] == begins_s), None)
    changes = {**(same[1] if same else {}), **{price.model: price for price in prices}}
    number = await _write(conn, changes.values(), note, begins_s, same[0]["version"] if same else None)
    for row, later in coming:
        if row["effective_at_s"] > begins_s:
            await _write(conn, later.values(), row["note"], row["effective_at_s"], row["version"])
    return number


async def _write(conn: Connection, prices: Iterable[Price], note: str, begins_s: int, replaces: int | None) -> int:
    version: int = await conn.fetchval(_SQL["add_version"], note, begins_s, replaces)
    for price in prices:
        await conn.execute(_SQL["add_price"], price.model, version, price.label)
        await conn.executemany(
            _SQL["add_rate"],
            [
                (price.model, version, above, unit, nano)
                for above, rates in ((0, price.nano_per_million), *((t.above, t.nano_per_million) for t in price.tiers))
                for unit, nano in rates.items()
            ],
        )
    return version
