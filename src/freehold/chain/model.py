"""The chain as values: where the contracts are, and the events that Freehold reads."""

from collections.abc import Mapping
from dataclasses import dataclass

DEV_CHAIN_ID = 402031


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where one set of contracts lives. Addresses are checksummed; `from_block` is the first worth reading."""

    chain_id: int
    contracts: Mapping[str, str]
    """hold, staking, diem, vault, prepaid, usdc, timelock, strips, book."""
    operator: str
    """The operator whose stakes this gateway honours."""
    from_block: int
    confirmations: int


@dataclass(frozen=True, slots=True)
class Block:
    number: int
    hash: str
    parent_hash: str
    time_s: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands. With the block hash, because a re-mined transaction may keep its hash and log index."""

    chain_id: int
    block_number: int
    block_hash: str
    block_time_s: int
    tx_hash: str
    log_index: int

    def external_id(self) -> str:
        return f"evt:{self.chain_id}:{self.block_hash}:{self.tx_hash}:{self.log_index}"


@dataclass(frozen=True, slots=True)
class AllowanceChanged:
    """Resulting daily allowance, DIEM base units: of `day` itself, and of each later day."""

    place: Place
    operator: str
    beneficiary: str
    day: int
    today: int
    onward: int
    strips: bool = False
    """True: by activated strips, and only for the rest of the month of `day`, which may begin later. Else by stakes."""


@dataclass(frozen=True, slots=True)
class Deposited:
    """A prepaid deposit, USDC base units."""

    place: Place
    beneficiary: str
    payer: str
    amount: int


Event = AllowanceChanged | Deposited


@dataclass(frozen=True, slots=True)
class Progress:
    """What one poll of the log reader did."""

    head: Block
    confirmed: Block
    """Newest block with enough confirmations: everything up to it is in the store."""
    events: tuple[Event, ...]
    reverted_from: int | None
    """First block number whose stored events were taken back by a reorg, if there was one."""
