"""Reads the contracts' events from a node into the store, and finds reorgs by the hashes of what was read.

A block has N confirmations when N blocks stand on it; only such blocks are read. One poll is one transaction, and
says nothing unless logs, headers and the blocks read before fit together by their hashes.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from eth_utils.crypto import keccak

from freehold.chain.abi import from_hex, read_log
from freehold.chain.events import Events
from freehold.chain.model import DEV_CHAIN_ID, Block, Deployment, Event, Progress
from freehold.chain.problems import ChainChanged, NodeUnavailable, RpcError
from freehold.chain.rpc import Rpc
from freehold.chain.store import KEEP_BLOCKS, Cursor, Overtaken, Store
from freehold.db import Database

MOST_BLOCKS = 20_000
"""Blocks that one poll reads at most; the next goes on."""
MOST_SPAN = 5_000
"""Blocks that one eth_getLogs asks for at most; halved when the node finds them too many."""

_TRIES = 5


class _Moved(Exception):
    """The node's answers are of different forks: ask again."""


class LogReader:
    """Follows one deployment's events. One reader at a time does the work; a second one is harmless."""

    def __init__(
        self,
        rpc: Rpc,
        database: Database,
        deployment: Deployment,
        *,
        accept_new_chain: bool = False,
        most_blocks: int = MOST_BLOCKS,
        span: int = MOST_SPAN,
    ) -> None:
        """`accept_new_chain`: another chain, or other contracts, take back all events instead of raising ChainChanged.

        For the dev chain only, which may be lost with its directory.
        """
        if accept_new_chain and deployment.chain_id != DEV_CHAIN_ID:
            raise ValueError("only a dev chain may be replaced")
        self._rpc = rpc
        self._store = Store(database)
        self._deployment = deployment
        self._events = Events(deployment)
        self._accept_new_chain = accept_new_chain
        self._most_blocks = most_blocks
        self._most_span = self._span = span

    async def poll(self) -> Progress:
        """Read what is newly confirmed. Raises NodeUnavailable, RpcError, ChainChanged; nothing is half done then."""
        for _ in range(_TRIES):
            try:
                return await self._poll()
            except (_Moved, Overtaken):
                continue
        raise NodeUnavailable(node=self._rpc.node, reason="its answers belong to different forks", retry_after_s=2)

    async def _poll(self) -> Progress:
        head, genesis = await self._look()
        before = await self._store.cursor()
        here = await self._known(before, genesis)
        base = await self._base(here, head)
        reverted_from = base.number + 1 if before is not None and base != before else None
        kept = base.number if base.block else -1
        end = min(max(0, head.number - self._deployment.confirmations), base.number + self._most_blocks)
        if end <= base.number:
            if base != before:
                await self._store.write(before=before, after=base, kept=kept)
            confirmed = base.block or await self._block(max(0, min(end, head.number)))
            return Progress(head, confirmed, (), reverted_from)
        blocks, events = await self._read(base, end)
        after = Cursor(base.chain_id, base.genesis_hash, base.vault, base.prepaid, end, blocks[-1])
        await self._store.write(
            before=before, after=after, kept=kept, blocks=blocks, events=events, strips=self._events.strips
        )
        return Progress(head, blocks[-1], tuple(events), reverted_from)

    async def _look(self) -> tuple[Block, str]:
        """The node's head and its genesis hash. Raises ChainChanged for another chain id."""
        chain_id, first, last = await self._rpc.batch(
            [
                ("eth_chainId", []),
                ("eth_getBlockByNumber", [hex(0), False]),
                ("eth_getBlockByNumber", ["latest", False]),
            ]
        )
        if int(chain_id, 16) != self._deployment.chain_id:
            raise ChainChanged(
                reason=f"The node at {self._rpc.node} is on chain {int(chain_id, 16)}, and the contracts were deployed "
                f"on chain {self._deployment.chain_id}. Check FREEHOLD_RPC_URL."
            )
        if first is None or last is None:
            raise NodeUnavailable(node=self._rpc.node, reason="it has no blocks yet", retry_after_s=2)
        return _block(last), first["hash"]

    async def _known(self, before: Cursor | None, genesis: str) -> Cursor:
        """The cursor to go on from: the stored one, if it belongs to this chain and these contracts."""
        fresh = Cursor(
            self._deployment.chain_id,
            genesis,
            self._events.vault,
            self._events.prepaid,
            self._deployment.from_block - 1,
            None,
        )
        if before is None:
            return fresh
        if (before.chain_id, before.genesis_hash) != (fresh.chain_id, genesis):
            what = f"another chain (its first block was {before.genesis_hash[:10]}…, this one's is {genesis[:10]}…)"
        elif (before.vault, before.prepaid) != (fresh.vault, fresh.prepaid):
            what = f"other contracts (its vault was {before.vault}, this one's is {fresh.vault})"
        else:
            return before
        if self._accept_new_chain:
            return fresh
        raise ChainChanged(
            reason=f"The database was written from {what}. Point FREEHOLD_RPC_URL and the deployment file at the "
            "chain that it belongs to, or start with a new --data and database."
        )

    async def _base(self, here: Cursor, head: Block) -> Cursor:
        """`here`, or where the chain that was read and the node's chain part, when there was a reorg."""
        if here.block is None:
            return here
        if head.number < here.number and here.chain_id != DEV_CHAIN_ID:
            # Off the dev chain a head below what was confirmed is a node that lags behind the one asked before.
            raise NodeUnavailable(
                node=self._rpc.node,
                reason=f"it is behind: its newest block is {head.number}, and {here.number} was read before",
                retry_after_s=10,
            )
        if await self._standing([here.block], head):
            return here
        below, size = here.number - 1, 10
        while stored := await self._store.blocks_down(below, size):
            block = await self._standing(stored, head)
            if block:
                return Cursor(here.chain_id, here.genesis_hash, here.vault, here.prepaid, block.number, block)
            below, size = stored[-1].number - 1, min(size * 2, 100)
        first = self._deployment.from_block - 1
        return Cursor(here.chain_id, here.genesis_hash, here.vault, here.prepaid, first, None)

    async def _standing(self, stored: Sequence[Block], head: Block) -> Block | None:
        """The newest of the stored blocks (given from the newest down) that is on the node's chain."""
        asked = [block for block in stored if block.number <= head.number]
        found = await self._headers(block.number for block in asked)
        return next((block for block in asked if found[block.number]["hash"] == block.hash), None)

    async def _read(self, base: Cursor, end: int) -> tuple[list[Block], list[Event]]:
        """Blocks to store and events of (base, end]. Raises _Moved when they don't fit together."""
        recent = range(max(base.number + 1, end - KEEP_BLOCKS + 1), end + 1)
        headers = await self._headers(recent)
        _linked([headers[number] for number in recent])
        if (
            base.block is not None
            and recent[0] == base.number + 1
            and headers[recent[0]]["parentHash"] != base.block.hash
        ):
            raise _Moved
        raw_logs = await self._logs(base.number + 1, end)
        logged = {int(raw["blockNumber"], 16) for raw in raw_logs}
        raw_logs += await self._missed(headers[number] for number in recent if number not in logged)
        logs = sorted((read_log(raw) for raw in raw_logs), key=lambda log: (log.block_number, log.log_index))
        headers |= await self._headers({log.block_number for log in logs} - set(headers))
        events: list[Event] = []
        for log in logs:
            header = headers[log.block_number]
            if header["hash"] != log.block_hash:
                raise _Moved
            event = self._events.read(log, _block(header))
            if event is not None:
                events.append(event)
        # The headers were read before the logs; if the last still stands, so do all.
        if (await self._header(end))["hash"] != headers[end]["hash"]:
            raise _Moved
        return [_block(headers[number]) for number in sorted(headers)], events

    async def _logs(self, first: int, last: int) -> list[Mapping[str, Any]]:
        """Raw logs of [first, last], in as many calls as the node's limits ask for."""
        logs: list[Mapping[str, Any]] = []
        while first <= last:
            to = min(last, first + self._span - 1)
            try:
                logs += await self._rpc.call(
                    "eth_getLogs", {**self._events.filter(), "fromBlock": hex(first), "toBlock": hex(to)}
                )
            except (RpcError, NodeUnavailable) as error:
                # Every node words "too many" in its own way, so any refusal of several blocks is tried with fewer.
                if to == first or (isinstance(error, NodeUnavailable) and not error.timed_out):
                    raise
                self._span = max(1, (to - first + 1) // 2)
                continue
            first = to + 1
            self._span = min(self._most_span, self._span * 2)
        return logs

    async def _missed(self, headers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Logs of blocks whose bloom filter says there may be some, asked for by block hash.

        A node that doesn't have a block yet may answer a range with no logs, which no hash in the logs can show.
        """
        logs: list[Mapping[str, Any]] = []
        for header in headers:
            if self._may_hold(header):
                try:
                    logs += await self._rpc.call("eth_getLogs", {**self._events.filter(), "blockHash": header["hash"]})
                except RpcError:
                    raise _Moved from None
        return logs

    def _may_hold(self, header: Mapping[str, Any]) -> bool:
        bloom = int(header.get("logsBloom") or "0x0", 16)
        return any(_in_bloom(bloom, address) and _in_bloom(bloom, topic) for address, topic in self._events.logged)

    async def _headers(self, numbers: Iterable[int]) -> dict[int, Mapping[str, Any]]:
        """Headers by number. Raises _Moved when the node lacks one."""
        wanted = list(numbers)
        found = await self._rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in wanted])
        if any(header is None for header in found):
            raise _Moved
        return dict(zip(wanted, found, strict=True))

    async def _header(self, number: int) -> Mapping[str, Any]:
        return (await self._headers([number]))[number]

    async def _block(self, number: int) -> Block:
        return _block(await self._header(number))


def _block(header: Mapping[str, Any]) -> Block:
    return Block(int(header["number"], 16), header["hash"], header["parentHash"], int(header["timestamp"], 16))


def _linked(headers: Sequence[Mapping[str, Any]]) -> None:
    for parent, child in pairwise(headers):
        if child["parentHash"] != parent["hash"]:
            raise _Moved


def _in_bloom(bloom: int, item: str) -> bool:
    """Whether a block's 2048-bit log filter may hold an address or topic: three bits of its keccak (Yellow Paper, 4.3.1)."""
    digest = keccak(from_hex(item))
    return all(bloom >> (int.from_bytes(digest[n : n + 2], "big") & 2047) & 1 for n in (0, 2, 4))
