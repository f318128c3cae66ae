"""The stored price book: read in memory on the hot path, changed by appending a version."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from freehold.db import Connection, Database, statements
from freehold.pricing.model import INPUT, UNITS, Price, PriceBook
from freehold.pricing.problems import InvalidPrice

MAX_NANO_PER_MILLION = 10**15
"""1 USD a token. With it, a thousand million tokens still cost less than the ledger's largest amount."""

MAX_NAME = 200

_SQL = statements("freehold.pricing")
_EMPTY = PriceBook(version=0, prices={})


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One entry of a model's history: the price that holds from `version` on."""

    version: int
    price: Price
    created_at_s: float
    note: str


class Prices:
    """The price book in the database. `refresh()` once before use; version 0 is the empty book."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._current = _EMPTY
        self._books: dict[int, PriceBook] = {0: _EMPTY}

    def current(self) -> PriceBook:
        """The newest book as of the last refresh; no I/O."""
        return self._current

    async def refresh(self) -> PriceBook:
        """Read the newest version, if it isn't here yet, and make it current."""
        row = await self._database.fetchrow(_SQL["latest_version"])
        if row is not None and row["version"] > self._current.version:
            book = self._books.get(row["version"]) or await self._load(row)
            if book.version > self._current.version:
                self._current = book
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
        self, conn: Connection, model: str, nano_per_million: Mapping[str, int], label: str = "", note: str = ""
    ) -> int:
        """Append a version in which `model` costs this, in the caller's transaction; returns its number.

        The same price again adds nothing and returns the newest number. Raises InvalidPrice.
        """
        price = Price(model, dict(nano_per_million), label)
        check(price)
        version, standing = await self._locked(conn)
        return version if standing.get(model) == price else await _append(conn, [price], note)

    async def seed(self, conn: Connection, prices: Iterable[Price], note: str = "seed") -> int | None:
        """Append one version with those of `prices` whose model has none; None when there are none to add."""
        wanted = {price.model: price for price in prices}
        for price in wanted.values():
            check(price)
        _, standing = await self._locked(conn)
        missing = [price for model, price in wanted.items() if model not in standing]
        return await _append(conn, missing, note) if missing else None

    async def history(self, model: str) -> list[PriceChange]:
        """Every price that `model` has had, oldest first."""
        changes: dict[int, tuple[dict[str, int], Any]] = {}
        for row in await self._database.fetch(_SQL["history"], model):
            changes.setdefault(row["version"], ({}, row))[0][row["unit"]] = row["nano_per_million"]
        return [
            PriceChange(version, Price(model, rates, row["label"]), row["created_at_s"], row["note"])
            for version, (rates, row) in changes.items()
        ]

    async def _load(self, row: Any) -> PriceBook:
        rates = await self._database.fetch(_SQL["prices_at"], row["version"])
        book = PriceBook(row["version"], _prices(rates), row["created_at_s"], row["note"])
        self._books[book.version] = book
        return book

    async def _locked(self, conn: Connection) -> tuple[int, dict[str, Price]]:
        """The newest version and its prices, while no one else can add one until the transaction ends."""
        await conn.execute(_SQL["one_writer"])
        row = await conn.fetchrow(_SQL["latest_version"])
        if row is None:
            return 0, {}
        return row["version"], _prices(await conn.fetch(_SQL["prices_at"], row["version"]))


def check(price: Price) -> None:
    """Raise InvalidPrice unless the price can be stored: known units, whole and bounded amounts, an input price."""
    if not price.model or len(price.model) > MAX_NAME or any(ord(c) < 32 for c in price.model):
        raise InvalidPrice(reason=f"A model's name is 1 to {MAX_NAME} printable characters.", param="model")
    if INPUT not in price.nano_per_million:
        raise InvalidPrice(reason=f"The price of {price.model} needs an amount for input.", param=INPUT)
    for unit, nano in price.nano_per_million.items():
        if unit not in UNITS:
            raise InvalidPrice(reason=f"{unit} is not a unit with a price; those are {', '.join(UNITS)}.", param=unit)
        if type(nano) is not int or not 0 <= nano <= MAX_NANO_PER_MILLION:
            raise InvalidPrice(
                reason=f"The {unit} price of {price.model} is not between 0 and 1,000,000 USD per million.", param=unit
            )


def _prices(rows: Iterable[Any]) -> dict[str, Price]:
    rates: dict[str, dict[str, int]] = {}
    labels: dict[str, str] = {}
    for row in rows:
        rates.setdefault(row["model"], {})[row["unit"]] = row["nano_per_million"]
        labels[row["model"]] = row["label"]
    return {model: Price(model, units, labels[model]) for model, units in rates.items()}


async def _append(conn: Connection, prices: Iterable[Price], note: str) -> int:
    version: int = await conn.fetchval(_SQL["add_version"], note)
    for price in prices:
        await conn.execute(_SQL["add_price"], price.model, version, price.label)
        await conn.executemany(
            _SQL["add_rate"],
            [(price.model, version, unit, nano) for unit, nano in price.nano_per_million.items()],
        )
    return version
