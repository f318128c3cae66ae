"""A receipt is checked against a real chain with real contracts, and every way of forging one has its own refusal."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.chain.lab import START_S, USDC, Anvil
from tests.receipts.lab import FIRST, KEY, Till, receipts_of

from freehold.chain.abi import from_hex, template
from freehold.chain.contracts import Contracts
from freehold.chain.deploy import deploy_dev
from freehold.chain.model import Deployment
from freehold.chain.problems import Reverted
from freehold.chain.wallet import DevWallet, read
from freehold.clock import Day, Month
from freehold.db import Database
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Charge
from freehold.problems import Problem
from freehold.receipts import tree, wire
from freehold.receipts.jobs import Days
from freehold.receipts.model import Domain
from freehold.receipts.problems import (
    Altered,
    BillDoesNotSum,
    BookOfAnother,
    ForgedRoot,
    NodeOfAnotherChain,
    NotClosed,
    NotInRoot,
    NotPublished,
    OtherBook,
    OtherChain,
    OtherOperator,
    ReceiptBroken,
    Unsigned,
    WronglySigned,
)
from freehold.receipts.publishing import Publisher, Standing
from freehold.receipts.signing import ReceiptKey
from freehold.receipts.verifying import Pinned, chain_of, require_sums, verify

SECOND, THIRD = FIRST.next(), FIRST.next().next()


@dataclass
class Town:
    """A chain with contracts, a ledger, and a day with three charges that is closed and published."""

    anvil: Anvil
    deployment: Deployment
    till: Till
    publisher: Publisher
    charges: list[Charge]

    @property
    def pinned(self) -> Pinned:
        return Pinned(self.deployment, "deployment.toml")

    async def document(self, charge: Charge) -> dict[str, Any]:
        return wire.document(await self.till.receipts.signed(charge), self.till.receipts.domain)

    async def verify(self, document: object, pinned: Pinned | None = None) -> None:
        pinned = pinned or self.pinned
        await verify(self.anvil.rpc, pinned, await chain_of(self.anvil.rpc, pinned), document)

    async def until(self, day: Day) -> None:
        """Ledger and chain."""
        await self.anvil.mine(at_s=day.start_s)
        await self.till.until(day)

    async def publish(self) -> Standing:
        """With whoever mines."""
        mining = asyncio.create_task(_mine(self.anvil))
        try:
            standing = await Days(self.till.receipts, self._publisher).publish()
            assert standing is not None
            return standing
        finally:
            mining.cancel()
            with suppress(asyncio.CancelledError):
                await mining

    async def _publisher(self) -> Publisher:
        return self.publisher


async def _mine(anvil: Anvil) -> None:
    while True:
        if int((await anvil.rpc.call("txpool_status"))["pending"], 16):
            await anvil.mine()
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def town(postgres_url: str, migrated_template: str) -> AsyncIterator[Town]:
    from urllib.parse import urlsplit, urlunsplit

    import asyncpg

    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database receipts_town template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/receipts_town")))
    anvil = Anvil("--no-mining", "--timestamp", str(START_S))
    await anvil.start()
    try:
        deployment = await deploy_dev(anvil.rpc, USDC, receipt_signer=KEY.address)
        domain = Domain(deployment.chain_id, deployment.contracts["book"], deployment.operator)
        async with Ledger(database) as ledger:
            till = Till(database, ledger, receipts_of(database, domain))
            await till.until(FIRST, seconds=8 * 3_600)
            account = await till.account(prepaid=10_000, allowance=1_000)
            charges = [await till.charge(account, cost) for cost in (400, 900, 37)]
            wallet = await DevWallet.open(anvil.rpc, "operator")
            publisher = Publisher(till.receipts, Contracts.of(deployment).book, wallet)
            town = Town(anvil, deployment, till, publisher, charges)
            await town.until(SECOND)
            assert await till.close_all() == 1
            assert await town.publish() == Standing(SECOND.number, 0, ())
            yield town
    finally:
        await anvil.stop()
        await database.close()
        await server.execute("drop database receipts_town with (force)")
        await server.close()


async def test_every_receipt_of_a_published_day_verifies(town: Town) -> None:
    for charge in town.charges:
        await town.verify(await town.document(charge))


async def test_the_books_totals_are_those_of_the_day(town: Town) -> None:
    closed = await town.till.receipts.day(FIRST.number)
    book = Contracts.of(town.deployment).book
    assert closed is not None
    assert await read(town.anvil.rpc, book, "rootOf", FIRST.number) == closed.root
    assert await read(town.anvil.rpc, book, "totalsHashOf", FIRST.number) == closed.totals_hash()
    assert await town.till.receipts.check() == []


async def test_a_receipt_with_any_one_digit_changed_does_not_verify(town: Town) -> None:
    text = json.dumps(await town.document(town.charges[1]))
    digits = [at for at, letter in enumerate(text) if letter.isdigit()]
    assert len(digits) > 300
    chain = await chain_of(town.anvil.rpc, town.pinned)
    for at in digits:
        forged = text[:at] + ("7" if text[at] != "7" else "4") + text[at + 1 :]
        with suppress(json.JSONDecodeError), pytest.raises(Problem):  # a leading zero is no JSON
            await verify(town.anvil.rpc, town.pinned, chain, json.loads(forged))


def changed(document: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    found = copy.deepcopy(document)
    inner: Any = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return found


async def test_each_forgery_has_a_sentence_of_its_own(town: Town) -> None:
    right = await town.document(town.charges[0])
    other = await town.document(town.charges[1])
    somebody = "0x" + "55" * 20
    cases: list[tuple[dict[str, Any], type[Problem]]] = [
        (changed(right, "receipt", "cost_nano", to=401), Altered),
        (changed(right, "hash", to=other["hash"]), Altered),
        (changed(right, "chain_id", to=1), OtherChain),
        (changed(right, "book", to=somebody), OtherBook),
        (changed(right, "operator", to=somebody), OtherOperator),
        (changed(right, "signature", to=other["signature"]), WronglySigned),
        (changed(right, "signature", to=None), Unsigned),
        (changed(right, "proof", "root", to="0x" + "ab" * 32), ForgedRoot),
        (changed(right, "proof", "siblings", to=other["proof"]["siblings"]), NotInRoot),
        (changed(right, "proof", "siblings", to=[]), NotInRoot),
        (changed(right, "proof", to=None), NotClosed),
        (changed(right, "receipt", "tip", to=1), ReceiptBroken),
        (changed(right, "receipt", "at", to=right["receipt"]["at"].replace("T08:", "T8:")), ReceiptBroken),
        (changed(right, "receipt", "account", to=right["receipt"]["account"][:-1]), ReceiptBroken),
    ]
    sentences = set()
    for forged, kind in cases:
        with pytest.raises(kind) as refused:
            await town.verify(forged)
        sentences.add(refused.value.message)
    assert len(sentences) == len(cases)


async def test_a_receipt_signed_by_another_key_does_not_verify_although_it_is_consistent(town: Town) -> None:
    stranger = receipts_of(town.till.database, town.till.receipts.domain, ReceiptKey(bytes(31) + b"\x09"))
    forged = wire.document(await stranger.signed(town.charges[0]), stranger.domain)
    with pytest.raises(WronglySigned, match=KEY.address):
        await town.verify(forged)


async def test_an_inner_node_of_the_tree_is_no_receipt(town: Town) -> None:
    book = Contracts.of(town.deployment).book
    signed = [await town.till.receipts.signed(charge) for charge in town.charges]
    leaves = tree.levels([tree.leaf(one.hash) for one in signed])
    inner, sibling = leaves[1][0], leaves[1][1]
    assert tree.root_of(inner, [sibling]) == signed[0].root
    assert not await read(town.anvil.rpc, book, "verify", FIRST.number, inner, [sibling])
    assert await read(town.anvil.rpc, book, "verify", FIRST.number, signed[0].hash, list(signed[0].siblings))


async def test_a_receipt_of_a_day_that_is_not_published_does_not_verify(town: Town) -> None:
    account = await town.till.account(prepaid=100)
    charge = await town.till.charge(account, 5)
    with pytest.raises(NotClosed, match="2027-01-16"):
        await town.verify(await town.document(charge))
    await town.until(Day(THIRD.number + 2))
    assert await town.till.close_all() == 3
    with pytest.raises(NotPublished, match="2027-01-16"):
        await town.verify(await town.document(charge))
    assert await town.publish() == Standing(THIRD.number + 2, 0, ())
    await town.verify(await town.document(charge))
    assert await town.publish() == Standing(THIRD.number + 2, 0, ())


async def test_a_node_of_another_chain_and_a_book_of_another_operator_are_refused(town: Town) -> None:
    document = await town.document(town.charges[0])
    with pytest.raises(NodeOfAnotherChain):
        await town.verify(document, Pinned(replace(town.deployment, chain_id=7), "deployment.toml"))
    with pytest.raises(BookOfAnother):
        await town.verify(document, Pinned(replace(town.deployment, operator="0x" + "55" * 20), "deployment.toml"))
    elsewhere = {**town.deployment.contracts, "book": town.deployment.contracts["vault"]}
    with pytest.raises(Reverted, match="book's operator"):
        await town.verify(document, Pinned(replace(town.deployment, contracts=elsewhere), "deployment.toml"))


async def test_receipts_come_to_their_bill_and_one_less_or_one_twice_does_not(town: Town) -> None:
    account_id = town.charges[0].account_id
    made = await town.till.ledger.bill(account_id, Month.of(START_S))
    bill = {
        "month": str(made.month),
        "used_nano": made.used_nano,
        "calls": made.calls,
        "lines": [
            {
                "day": str(Day(line.day)),
                "model": line.model,
                "key_id": line.key_id,
                "source": line.source and line.source.value,
                "calls": line.calls,
                "cost_nano": line.cost_nano,
            }
            for line in made.lines
        ],
    }
    receipts = [(await town.till.receipts.signed(charge)).receipt for charge in town.charges]
    require_sums(bill, receipts)
    with pytest.raises(BillDoesNotSum, match="the bill has"):
        require_sums(bill, receipts[1:])
    with pytest.raises(BillDoesNotSum, match="twice"):
        require_sums(bill, [*receipts, receipts[0]])
    with pytest.raises(BillDoesNotSum, match="purses"):
        require_sums(bill, [replace(receipts[0], cost_nano=399), *receipts[1:]])
    with pytest.raises(BillDoesNotSum, match="total"):
        require_sums({**bill, "used_nano": made.used_nano + 1}, receipts)


async def test_a_server_that_cannot_publish_looks_and_says_so_once(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no keystore; whoever has one publishes, and it sees that."""
    watcher = Publisher(town.till.receipts, Contracts.of(town.deployment).book, None, rpc=town.anvil.rpc)

    async def opened() -> Publisher:
        return watcher

    days = Days(town.till.receipts, opened)
    ahead = int(await read(town.anvil.rpc, Contracts.of(town.deployment).book, "nextDay"))
    await town.until(Day(ahead + 2))
    assert await town.till.receipts.unclosed(ahead + 2) == 2
    assert await town.till.close_all() == 2
    assert await town.till.receipts.unclosed(ahead + 2) == 0
    for _ in range(2):
        assert await days.publish() == Standing(ahead, 2, ())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "2 closed days aren't in the book on the chain: this server has no keystore of the book's publisher "
        "(FREEHOLD_OPERATOR_KEYSTORE)"
    ]
    assert [seen.right() for seen in await town.till.receipts.standing(since=ahead)] == [False, False]
    assert await town.publish() == Standing(ahead + 2, 0, ())
    assert await days.publish() == Standing(ahead + 2, 0, ())


async def test_a_wrong_entry_in_the_book_is_an_alarm(town: Town) -> None:
    book = template("EpochBook").at(town.deployment.contracts["book"])
    wallet = await DevWallet.open(town.anvil.rpc, "operator")
    day = int(await read(town.anvil.rpc, book, "nextDay"))
    newest = (await town.till.receipts.days(limit=1))[0]
    totals = [one.row() for one in newest.totals.values()]
    carried = [(0, 0, 0, 0, 0), (0, 0, 0, 0, 0), *((row[4], 0, 0, 0, row[4]) for row in totals[2:])]
    await town.until(Day(day + 1))
    data = book.call("publish", day, b"\x66" * 32, tuple(carried))
    await town.anvil.rpc.call(
        "eth_sendTransaction", {"from": wallet.address, "to": book.address, "data": data, "gas": hex(500_000)}
    )
    await town.anvil.mine()
    assert (
        from_hex(
            await town.anvil.rpc.call("eth_call", {"to": book.address, "data": book.call("rootOf", day)}, "latest")
        )
        == b"\x66" * 32
    )
    assert await town.till.close_all() >= 1
    standing = await town.publish()
    assert standing.wrong == (day,)
    assert [one.law for one in await town.till.receipts.check()] == ["what is published is what was closed"]


async def test_a_new_receipt_key_is_registered_on_contracts_that_stand(town: Town) -> None:
    other = ReceiptKey(bytes(31) + b"\x0a").address
    mining = asyncio.create_task(_mine(town.anvil))
    try:
        again = await deploy_dev(town.anvil.rpc, USDC, recorded=town.deployment, receipt_signer=other)
        assert again == town.deployment
        vault = Contracts.of(town.deployment).vault
        assert (await read(town.anvil.rpc, vault, "operatorOf", town.deployment.operator))[1] == other
        await deploy_dev(town.anvil.rpc, USDC, recorded=town.deployment, receipt_signer=KEY.address)
    finally:
        mining.cancel()
        with suppress(asyncio.CancelledError):
            await mining
