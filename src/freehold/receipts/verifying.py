"""Checking a receipt against the chain alone, with chain, book, vault and operator pinned by the deployment file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import read as read_contract
from freehold.clock import Day
from freehold.money import format_usd
from freehold.receipts import tree, wire
from freehold.receipts.model import Domain, Receipt, receipt_hash
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
    Unproven,
    Unsigned,
    WronglySigned,
)
from freehold.receipts.receipts import Signed
from freehold.receipts.signing import signer_of


@dataclass(frozen=True, slots=True)
class Pinned:
    """What is believed from the start, and the file that it is from."""

    deployment: Deployment
    file: str

    def domain(self) -> Domain:
        return Domain(self.deployment.chain_id, self.deployment.contracts["book"], self.deployment.operator)


@dataclass(frozen=True, slots=True)
class OnChain:
    """What the chain says of the pinned operator."""

    signer: str
    """Address of the key that signs its receipts."""
    next_day: int


async def chain_of(rpc: Rpc, pinned: Pinned) -> OnChain:
    """Raises NodeOfAnotherChain, BookOfAnother, NodeUnavailable, Reverted."""
    chain_id = int(await rpc.call("eth_chainId"), 16)
    if chain_id != pinned.deployment.chain_id:
        raise NodeOfAnotherChain(node=rpc.node, theirs=chain_id, ours=pinned.deployment.chain_id, file=pinned.file)
    contracts = Contracts.of(pinned.deployment)
    owner = await read_contract(rpc, contracts.book, "OPERATOR", what="Reading the book's operator")
    if owner != pinned.deployment.operator:
        raise BookOfAnother(book=contracts.book.address, operator=pinned.deployment.operator, theirs=owner)
    _, signer = await read_contract(rpc, contracts.vault, "operatorOf", pinned.deployment.operator)
    return OnChain(str(signer), int(await read_contract(rpc, contracts.book, "nextDay")))


async def verify(
    rpc: Rpc, pinned: Pinned, chain: OnChain, value: object, *, roots: dict[int, bytes] | None = None
) -> Receipt:
    """The receipt of a document, if everything that it says is so. Raises one of `problems`, each for its own reason.

    `roots` keeps what the book says of a day, for whoever checks many receipts.
    """
    domain, signed = wire.read(value)
    _require_pinned(domain, pinned)
    digest = receipt_hash(signed.receipt, pinned.domain())
    if digest != signed.hash:
        raise Altered(ours=_hex(digest), theirs=_hex(signed.hash))
    _require_signed(signed, digest, chain, pinned)
    await _require_published(rpc, pinned, chain, signed, digest, {} if roots is None else roots)
    return signed.receipt


def claimed(value: object) -> Receipt:
    """What a document says, unchecked. Raises ReceiptBroken."""
    return wire.read(value)[1].receipt


def _require_pinned(domain: Domain, pinned: Pinned) -> None:
    ours = pinned.domain()
    if domain.chain_id != ours.chain_id:
        raise OtherChain(theirs=domain.chain_id, ours=ours.chain_id, file=pinned.file)
    if domain.book != ours.book:
        raise OtherBook(theirs=domain.book, ours=ours.book, file=pinned.file)
    if domain.operator != ours.operator:
        raise OtherOperator(theirs=domain.operator, ours=ours.operator, file=pinned.file)


def _require_signed(signed: Signed, digest: bytes, chain: OnChain, pinned: Pinned) -> None:
    if signed.signature is None:
        raise Unsigned
    signer = signer_of(digest, signed.signature)
    if signer != chain.signer:
        theirs = "nobody's" if signer is None else f"that of {signer}"
        raise WronglySigned(operator=pinned.deployment.operator, theirs=theirs, signer=chain.signer)


async def _require_published(
    rpc: Rpc, pinned: Pinned, chain: OnChain, signed: Signed, digest: bytes, roots: dict[int, bytes]
) -> None:
    day = Day(signed.receipt.day)
    if signed.root is None:
        raise NotClosed(day=day)
    book = Contracts.of(pinned.deployment).book
    known = day.number in roots
    if not known:
        roots[day.number] = await read_contract(rpc, book, "rootOf", day.number)
    published = roots[day.number]
    if day.number >= chain.next_day or published == tree.NO_ROOT:
        raise NotPublished(day=day)
    if published != signed.root:
        raise ForgedRoot(theirs=_hex(signed.root), ours=_hex(published), day=day)
    came_to = tree.root_of(tree.leaf(digest), signed.siblings)
    if came_to != signed.root:
        raise NotInRoot(ours=_hex(came_to), theirs=_hex(signed.root))
    if not known and not await read_contract(rpc, book, "verify", day.number, digest, list(signed.siblings)):
        raise Unproven(book=book.address, day=day)


def require_sums(bill: Mapping[str, Any], receipts: Iterable[Receipt]) -> None:
    """Whether receipts come to a bill's lines, as `GET /v1/account/bill` gives them. Raises BillDoesNotSum.

    A line is of one day, model, key and purse. Both sides are compared to the nano-USD, and each receipt counts once.
    """
    lines: dict[tuple[str, str, int, str], int] = {}
    seen: set[str] = set()
    total = 0
    for receipt in receipts:
        if receipt.request_id.hex in seen:
            raise BillDoesNotSum(reason=f"receipt req_{receipt.request_id.hex} is there twice")
        seen.add(receipt.request_id.hex)
        if sum(amount for _, _, amount in receipt.legs) != receipt.cost_nano:
            raise BillDoesNotSum(reason=f"the purses of receipt req_{receipt.request_id.hex} don't come to its cost")
        total += receipt.cost_nano
        for purse, _, amount in receipt.legs:
            key = (str(Day(receipt.day)), receipt.model, receipt.key_id, purse)
            lines[key] = lines.get(key, 0) + amount
    billed: dict[tuple[str, str, int, str], int] = {}
    for line in bill["lines"]:
        if line["source"] is not None:
            billed[(line["day"], line["model"], line["key_id"], line["source"])] = line["cost_nano"]
    for key in sorted(lines.keys() | billed.keys()):
        if lines.get(key, 0) != billed.get(key, 0):
            day, model, key_id, purse = key
            raise BillDoesNotSum(
                reason=f"of {day}, model {model}, key {key_id}, purse {purse} the bill has "
                f"{format_usd(billed.get(key, 0))} USD, and the receipts {format_usd(lines.get(key, 0))} USD"
            )
    if total != bill["used_nano"]:
        raise BillDoesNotSum(
            reason=f"the bill's total is {format_usd(bill['used_nano'])} USD, and the receipts' {format_usd(total)} USD"
        )
    if len(seen) != bill["calls"]:
        raise BillDoesNotSum(reason=f"the bill counts {bill['calls']} calls, and there are {len(seen)} receipts")


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
