"""The log reader against a real node: confirmations, reorgs, limits, and a node that goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.chain.lab import START_S, Anvil, Emitters, emitters

from freehold.chain.model import AllowanceChanged, Deployment, Deposited, Event
from freehold.chain.problems import ChainChanged, NodeUnavailable, RpcError
from freehold.chain.reader import LogReader
from freehold.chain.rpc import Rpc
from freehold.chain.store import Store
from freehold.db import Database

ALICE = "0x" + "a1" * 20
BOB = "0x" + "b0" * 20
DAY = START_S // 86_400


async def standing(database: Database, deployment: Deployment) -> list[tuple[str, int]]:
    """What stands in the store: kind and amount of each event, in the chain's order."""
    rows = await database.fetch(
        "select kind, coalesce(onward, amount) as n from chain_event where not reverted order by block_number, log_index"
    )
    return [(row["kind"], int(row["n"])) for row in rows]


def amounts(events: tuple[Event, ...]) -> list[int]:
    return [event.onward if isinstance(event, AllowanceChanged) else event.amount for event in events]


async def test_an_event_is_read_once_when_enough_blocks_stand_on_it(emitter: Emitters, database: Database) -> None:
    reader = LogReader(emitter.anvil.rpc, database, emitter.deployment)
    await emitter.deposit(ALICE, amount=5)
    mined_in = await emitter.anvil.head()
    await emitter.anvil.mine()
    early = await reader.poll()
    await emitter.anvil.mine()
    in_time = await reader.poll()
    after = await reader.poll()
    assert early.events == ()
    assert early.confirmed.number == mined_in - 1
    assert amounts(in_time.events) == [5]
    assert (in_time.head.number, in_time.confirmed.number) == (mined_in + 2, mined_in)
    assert after.events == ()


async def test_events_come_typed_with_their_place(emitter: Emitters, database: Database) -> None:
    sent = await emitter.allowance(ALICE, day=DAY, today=7, onward=2**200)
    await emitter.deposit(ALICE, amount=1_000_000, payer=BOB)
    await emitter.anvil.mine(2)
    staked, deposited = (await LogReader(emitter.anvil.rpc, database, emitter.deployment).poll()).events
    assert isinstance(staked, AllowanceChanged)
    assert isinstance(deposited, Deposited)
    assert (staked.operator, staked.beneficiary.lower()) == (emitter.deployment.operator, ALICE)
    assert (staked.day, staked.today, staked.onward) == (DAY, 7, 2**200)
    assert staked.place.tx_hash == sent
    assert START_S <= staked.place.block_time_s < START_S + 3600
    assert (deposited.payer.lower(), deposited.amount) == (BOB, 1_000_000)
    assert staked.place.external_id().startswith(f"evt:402031:{staked.place.block_hash}:{sent}:")


async def test_the_store_gives_an_accounts_events_back_as_they_were_read(emitter: Emitters, database: Database) -> None:
    await emitter.allowance(ALICE, day=DAY, today=7, onward=2**200)
    await emitter.deposit(BOB, amount=1)
    await emitter.deposit(ALICE, amount=2)
    await emitter.anvil.mine(2)
    progress = await LogReader(emitter.anvil.rpc, database, emitter.deployment).poll()
    async with database.transaction() as connection:
        stored = await Store(database).events_of(connection, emitter.deployment, progress.events[0].beneficiary)
    assert stored == [progress.events[0], progress.events[2]]


async def test_a_reorg_within_the_confirmations_changes_nothing_in_the_store(
    emitter: Emitters, database: Database
) -> None:
    reader = LogReader(emitter.anvil.rpc, database, emitter.deployment)
    await emitter.anvil.mine(3)
    await reader.poll()
    await emitter.deposit(ALICE, amount=5)
    await emitter.anvil.mine()
    await reader.poll()
    await emitter.anvil.reorg(2)
    await emitter.anvil.mine(4)
    progress = await reader.poll()
    assert progress.reverted_from is None
    assert await standing(database, emitter.deployment) == []


async def test_a_deeper_reorg_takes_back_exactly_the_events_above_the_fork(
    emitter: Emitters, database: Database
) -> None:
    reader = LogReader(emitter.anvil.rpc, database, emitter.deployment)
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(3)
    fork = await emitter.anvil.head()
    await emitter.deposit(ALICE, amount=2)
    await emitter.anvil.mine(4)
    assert amounts((await reader.poll()).events) == [1, 2]
    await emitter.anvil.reorg(5)
    await emitter.anvil.mine(3)
    progress = await reader.poll()
    assert progress.reverted_from == fork + 1
    assert await standing(database, emitter.deployment) == [("Deposited", 1)]
    changes = [(change.event.amount, change.reverted) for change in await Store(database).changes(0, 10)]  # type: ignore[union-attr]
    assert changes == [(1, False), (2, False), (2, True)]
    again = await reader.poll()
    assert again.reverted_from is None


async def test_a_fork_below_every_kept_block_is_read_again_from_the_start(
    emitter: Emitters, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.chain.store.KEEP_BLOCKS", 3)
    reader = LogReader(emitter.anvil.rpc, database, emitter.deployment)
    await emitter.anvil.mine(20)
    await reader.poll()
    await emitter.anvil.reorg(15)
    await emitter.deposit(ALICE, amount=3)
    await emitter.anvil.mine(3)
    progress = await reader.poll()
    assert progress.reverted_from == emitter.deployment.from_block
    assert amounts(progress.events) == [3]


async def test_blocks_without_events_are_kept_only_for_a_while(emitter: Emitters, database: Database) -> None:
    reader = LogReader(emitter.anvil.rpc, database, emitter.deployment)
    await emitter.deposit(ALICE, amount=1)
    at = await emitter.anvil.head()
    await emitter.anvil.rpc.call("anvil_mine", hex(700))
    for _ in range(2):
        await reader.poll()
        await emitter.anvil.mine(350)
    await reader.poll()
    kept = [row["number"] for row in await database.fetch("select number from chain_block order by number")]
    assert kept[0] == at
    assert 300 <= len(kept) <= 302


async def test_a_second_reader_reads_nothing_twice(emitter: Emitters, database: Database) -> None:
    await emitter.deposit(ALICE, amount=1)
    await emitter.deposit(ALICE, amount=2)
    await emitter.anvil.mine(2)
    readers = [LogReader(emitter.anvil.rpc, database, emitter.deployment) for _ in range(3)]
    progress = await asyncio.gather(*(reader.poll() for reader in readers))
    assert sorted(len(each.events) for each in progress) == [0, 0, 2]
    assert await standing(database, emitter.deployment) == [("Deposited", 1), ("Deposited", 2)]


async def test_a_node_that_was_killed_and_lost_its_newest_blocks_takes_their_events_back(
    database: Database, tmp_path: Path
) -> None:
    anvil = Anvil("--no-mining", "--timestamp", str(START_S), "--state", str(tmp_path / "state.json"))
    await anvil.start()
    emitter = await emitters(anvil)
    await emitter.deposit(ALICE, amount=1)
    await anvil.mine(2)
    await anvil.stop()
    await anvil.start()
    reader = LogReader(anvil.rpc, database, emitter.deployment)
    assert amounts((await reader.poll()).events) == [1]
    await emitter.deposit(ALICE, amount=2)
    await anvil.mine(2)
    assert amounts((await reader.poll()).events) == [2]

    await anvil.stop(kill=True)
    with pytest.raises(NodeUnavailable):
        await reader.poll()
    await anvil.start()
    progress = await LogReader(anvil.rpc, database, emitter.deployment).poll()
    assert progress.reverted_from is not None
    assert await standing(database, emitter.deployment) == [("Deposited", 1)]
    await emitter.deposit(ALICE, amount=2)
    await anvil.mine(3)
    await LogReader(anvil.rpc, database, emitter.deployment).poll()
    assert await standing(database, emitter.deployment) == [("Deposited", 1), ("Deposited", 2)]
    await anvil.stop()


async def test_reading_goes_on_where_it_stopped_when_the_node_is_back(emitter: Emitters, database: Database) -> None:
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(2)
    async with proxy(emitter.anvil, lambda method, params: None) as door:
        reader = LogReader(door.rpc, database, emitter.deployment)
        await reader.poll()
        door.closed = True
        await emitter.deposit(ALICE, amount=2)
        await emitter.anvil.mine(2)
        with pytest.raises(NodeUnavailable, match="HTTP status 503"):
            await reader.poll()
        door.closed = False
        asked = len(door.asked)
        assert amounts((await reader.poll()).events) == [2]
        first = next(params[0]["fromBlock"] for method, params in door.asked[asked:] if method == "eth_getLogs")
    assert int(first, 16) == await emitter.anvil.head() - 4


async def test_a_range_that_the_node_finds_too_large_is_read_in_smaller_ones(
    emitter: Emitters, database: Database
) -> None:
    for amount in range(1, 8):
        await emitter.deposit(ALICE, amount=amount)
    await emitter.anvil.mine(30)

    def at_most_four(method: str, params: list[Any]) -> Any:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) >= 4:
            return {"error": {"code": -32005, "message": "query returned more than 10000 results"}}
        return None

    async with proxy(emitter.anvil, at_most_four) as door:
        progress = await LogReader(door.rpc, database, emitter.deployment).poll()
    assert amounts(progress.events) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_node_that_refuses_even_one_block_is_an_error(emitter: Emitters, database: Database) -> None:
    def refuse(method: str, params: list[Any]) -> Any:
        return {"error": {"code": -32601, "message": "no logs here"}} if method == "eth_getLogs" else None

    await emitter.anvil.mine(3)
    async with proxy(emitter.anvil, refuse) as door:
        with pytest.raises(RpcError, match="eth_getLogs with an error: no logs here"):
            await LogReader(door.rpc, database, emitter.deployment).poll()
    assert await Store(database).cursor() is None


async def test_a_long_history_is_read_in_several_polls(emitter: Emitters, database: Database) -> None:
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(40)
    await emitter.deposit(ALICE, amount=2)
    await emitter.anvil.mine(2)
    reader = LogReader(emitter.anvil.rpc, database, emitter.deployment, most_blocks=25, span=7)
    first = await reader.poll()
    second = await reader.poll()
    assert (amounts(first.events), first.confirmed.number) == ([1], 25)
    assert (amounts(second.events), second.confirmed.number) == ([2], second.head.number - 2)


async def test_logs_of_another_fork_are_not_believed(emitter: Emitters, database: Database) -> None:
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(2)
    answers = 0

    def other_fork(method: str, params: list[Any]) -> Any:
        nonlocal answers
        if method != "eth_getLogs" or answers:
            return None
        answers += 1
        log = {
            "address": emitter.deployment.contracts["prepaid"],
            "topics": ["0x" + "00" * 32],
            "data": "0x",
            "blockNumber": hex(3),
            "blockHash": "0x" + "77" * 32,
            "transactionHash": "0x" + "66" * 32,
            "logIndex": "0x0",
        }
        return {"result": [log]}

    async with proxy(emitter.anvil, other_fork) as door:
        progress = await LogReader(door.rpc, database, emitter.deployment).poll()
    assert answers == 1
    assert amounts(progress.events) == [1]


@pytest.mark.parametrize("deposits", [0, 1])
async def test_a_reorg_between_headers_and_logs_is_noticed(
    emitter: Emitters, database: Database, deposits: int
) -> None:
    for amount in range(deposits):
        await emitter.deposit(ALICE, amount=amount)
    await emitter.anvil.mine(4)
    reorganised = False

    async def reorg_before_logs(method: str, params: list[Any]) -> Any:
        nonlocal reorganised
        if method == "eth_getLogs" and not reorganised:
            reorganised = True
            await emitter.anvil.reorg(5)
            await emitter.anvil.mine(3)
        return None

    async with proxy(emitter.anvil, reorg_before_logs) as door:
        progress = await LogReader(door.rpc, database, emitter.deployment).poll()
    assert progress.events == ()
    await is_on_the_chain(emitter, database)


@pytest.mark.parametrize("ahead", [1, 2, 3])
async def test_a_reorg_while_headers_are_read_is_noticed(emitter: Emitters, database: Database, ahead: int) -> None:
    """Before the first new header, so that it has another parent than what was read, or between two of them."""
    await emitter.anvil.mine(6)
    read = (await LogReader(emitter.anvil.rpc, database, emitter.deployment).poll()).confirmed.number
    await emitter.anvil.mine(4)
    reorganised = False

    async def reorg_midway(method: str, params: list[Any]) -> Any:
        nonlocal reorganised
        if method == "eth_getBlockByNumber" and params[0] == hex(read + ahead) and not reorganised:
            reorganised = True
            await emitter.anvil.reorg(8)
            await emitter.anvil.mine(2)
        return None

    async with proxy(emitter.anvil, reorg_midway) as door:
        await LogReader(door.rpc, database, emitter.deployment).poll()
    assert reorganised
    await is_on_the_chain(emitter, database)


async def is_on_the_chain(emitter: Emitters, database: Database) -> None:
    """Every block in the store is on the node's chain."""
    for row in await database.fetch("select number, hash from chain_block"):
        block = await emitter.anvil.rpc.call("eth_getBlockByNumber", hex(row["number"]), False)
        assert block["hash"] == row["hash"], row["number"]


async def test_an_empty_answer_is_not_believed_when_the_blocks_filter_says_otherwise(
    emitter: Emitters, database: Database
) -> None:
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(2)

    def forgetful(method: str, params: list[Any]) -> Any:
        return {"result": []} if method == "eth_getLogs" and "fromBlock" in params[0] else None

    async with proxy(emitter.anvil, forgetful) as door:
        progress = await LogReader(door.rpc, database, emitter.deployment).poll()
    assert amounts(progress.events) == [1]


async def test_another_chain_is_refused_in_a_sentence(emitter: Emitters, database: Database) -> None:
    await emitter.anvil.mine(3)
    await LogReader(emitter.anvil.rpc, database, emitter.deployment).poll()
    other = Anvil("--no-mining", "--timestamp", str(START_S + 1))
    await other.start()
    deployment = (await emitters(other)).deployment
    await other.mine(9)
    with pytest.raises(ChainChanged, match="written from another chain"):
        await LogReader(other.rpc, database, deployment).poll()
    await other.stop()


async def test_a_dev_chain_that_was_lost_takes_all_its_events_back(emitter: Emitters, database: Database) -> None:
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(3)
    await LogReader(emitter.anvil.rpc, database, emitter.deployment).poll()
    other = Anvil("--no-mining", "--timestamp", str(START_S + 1))
    await other.start()
    fresh = await emitters(other)
    await fresh.deposit(ALICE, amount=2)
    await other.mine(2)
    progress = await LogReader(other.rpc, database, fresh.deployment, accept_new_chain=True).poll()
    assert progress.reverted_from == fresh.deployment.from_block
    assert await standing(database, fresh.deployment) == [("Deposited", 2)]
    await other.stop()


async def test_a_node_on_another_chain_id_is_refused_in_a_sentence(emitter: Emitters, database: Database) -> None:
    deployment = Deployment(1, emitter.deployment.contracts, emitter.deployment.operator, 1, 2)
    with pytest.raises(ChainChanged, match="is on chain 402031, and the contracts were deployed on chain 1"):
        await LogReader(emitter.anvil.rpc, database, deployment).poll()


async def test_off_the_dev_chain_a_node_that_lags_takes_nothing_back(emitter: Emitters, database: Database) -> None:
    def chain_7(method: str, params: list[Any]) -> Any:
        return {"result": hex(7)} if method == "eth_chainId" else None

    deployment = Deployment(7, emitter.deployment.contracts, emitter.deployment.operator, 1, 2)
    await emitter.deposit(ALICE, amount=1)
    await emitter.anvil.mine(6)
    async with proxy(emitter.anvil, chain_7) as door:
        await LogReader(door.rpc, database, deployment).poll()
        await emitter.anvil.rpc.call("anvil_rollback", 5)
        with pytest.raises(NodeUnavailable, match="it is behind"):
            await LogReader(door.rpc, database, deployment).poll()
    assert await standing(database, deployment) == [("Deposited", 1)]


class Door:
    """A node in front of the node, which may answer for itself."""

    def __init__(self) -> None:
        self.rpc: Rpc
        self.closed = False
        self.asked: list[tuple[str, list[Any]]] = []


@asynccontextmanager
async def proxy(anvil: Anvil, answer: Callable[[str, list[Any]], Any | Awaitable[Any]]) -> AsyncIterator[Door]:
    """Pass calls on to anvil, except those that `answer` gives a result or error for."""
    door = Door()

    async def one(question: dict[str, Any]) -> dict[str, Any]:
        door.asked.append((question["method"], question["params"]))
        own = answer(question["method"], question["params"])
        if asyncio.iscoroutine(own):
            own = await own
        if own is None:
            try:
                own = {"result": await anvil.rpc.call(question["method"], *question["params"])}
            except RpcError as error:
                own = {"error": {"code": error.number, "message": error.reason}}
        return {"jsonrpc": "2.0", "id": question["id"], **own}

    async def handle(request: web.Request) -> web.Response:
        if door.closed:
            return web.Response(status=503, text="closed")
        body = json.loads(await request.read())
        if isinstance(body, list):
            return web.json_response([await one(question) for question in body])
        return web.json_response(await one(body))

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    door.rpc = Rpc(f"http://{host}:{port}/")
    try:
        yield door
    finally:
        await door.rpc.close()
        await runner.cleanup()
