"""A receipt as a value, its canonical bytes, and its hash: an EIP-712 typed struct. Pure.

What is signed names chain, book and operator by the domain and the struct, so a receipt is good for one book only. The
hash is over every field, so nothing of a receipt can be changed without changing it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from eth_utils.crypto import keccak

from freehold.ledger.model import Charge, Source

NAME, VERSION = "Freehold", "1"
_DOMAIN = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_LEG = "Leg(string purse,uint64 grant,uint64 amountNano)"
_TOKENS = "Tokens(string unit,uint64 count)"
RECEIPT_TYPE = (
    "Receipt(address operator,address account,bytes16 requestId,uint32 day,uint64 time,uint64 key,string model,"
    "Tokens[] usage,uint32 priceVersion,uint64 costNano,uint64 absorbedNano,Leg[] legs,string outcome,bool estimated)"
    + _LEG
    + _TOKENS
)
DAY_TYPE = "DayRoot(address operator,uint32 day,bytes32 root,uint64 count,bytes32 totals)"
_RECEIPT_HASH, _LEG_HASH, _TOKENS_HASH = (keccak(text=text) for text in (RECEIPT_TYPE, _LEG, _TOKENS))
_DAY_HASH = keccak(text=DAY_TYPE)
PURSES = (Source.ALLOWANCE, Source.STRIP, Source.PROMO, Source.PREPAID)
"""In the order of the book's totals."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Which book a receipt is for. Addresses are checksummed."""

    chain_id: int
    book: str
    operator: str

    def separator(self) -> bytes:
        """EIP-712's domain separator."""
        return keccak(_DOMAIN + keccak(text=NAME) + keccak(text=VERSION) + _word(self.chain_id) + _address(self.book))


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record of one charge. Amounts are nano-USD."""

    account: str
    """The account's address: the beneficiary of stakes and deposits."""
    request_id: UUID
    day: int
    at_s: int
    key_id: int
    model: str
    usage: Mapping[str, int]
    price_version: int
    cost_nano: int
    absorbed_nano: int
    legs: Sequence[tuple[str, int, int]]
    """Purse, grant, amount; they sum to the cost."""
    outcome: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class PurseTotals:
    """What a purse came to in a day, over all accounts: opening + granted = used + expired + closing."""

    opening: int = 0
    granted: int = 0
    used: int = 0
    expired: int = 0
    closing: int = 0

    def even(self) -> bool:
        return self.opening + self.granted == self.used + self.expired + self.closing

    def row(self) -> tuple[int, int, int, int, int]:
        return (self.opening, self.granted, self.used, self.expired, self.closing)


@dataclass(frozen=True, slots=True)
class ClosedDay:
    """A day whose receipts are all in one root."""

    day: int
    root: bytes
    count: int
    totals: Mapping[Source, PurseTotals]

    def totals_hash(self) -> bytes:
        """keccak256(abi.encode(totals)), as the book keeps it."""
        return keccak(b"".join(_word(amount) for purse in PURSES for amount in self.totals[purse].row()))


def receipt_of(charge: Charge, account: str) -> Receipt:
    """The receipt of a charge; a charge never changes, and neither does its receipt."""
    return Receipt(
        account=account,
        request_id=charge.request_id,
        day=charge.day,
        at_s=int(charge.at_s),
        key_id=charge.key_id,
        model=charge.model,
        usage=dict(sorted(charge.usage.items())),
        price_version=charge.price_version,
        cost_nano=charge.cost_nano,
        absorbed_nano=charge.absorbed_nano,
        legs=tuple((leg.source.value, leg.grant_id, leg.amount_nano) for leg in charge.legs),
        outcome=charge.outcome,
        estimated=charge.estimated,
    )


def receipt_hash(receipt: Receipt, domain: Domain, separator: bytes | None = None) -> bytes:
    """EIP-712's digest. `separator` spares making the domain's again for each of many."""
    usage = b"".join(
        keccak(_TOKENS_HASH + keccak(text=unit) + _word(count)) for unit, count in sorted(receipt.usage.items())
    )
    legs = b"".join(
        keccak(_LEG_HASH + keccak(text=purse) + _word(grant) + _word(amount)) for purse, grant, amount in receipt.legs
    )
    struct = keccak(
        b"".join(
            (
                _RECEIPT_HASH,
                _address(domain.operator),
                _address(receipt.account),
                receipt.request_id.bytes + bytes(16),
                _word(receipt.day),
                _word(receipt.at_s),
                _word(receipt.key_id),
                keccak(text=receipt.model),
                keccak(usage),
                _word(receipt.price_version),
                _word(receipt.cost_nano),
                _word(receipt.absorbed_nano),
                keccak(legs),
                keccak(text=receipt.outcome),
                _word(int(receipt.estimated)),
            )
        )
    )
    return keccak(b"\x19\x01" + (separator or domain.separator()) + struct)


def day_hash(closed: ClosedDay, domain: Domain) -> bytes:
    """EIP-712's digest of a closed day."""
    struct = keccak(
        _DAY_HASH
        + _address(domain.operator)
        + _word(closed.day)
        + closed.root
        + _word(closed.count)
        + closed.totals_hash()
    )
    return keccak(b"\x19\x01" + domain.separator() + struct)


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _address(text: str) -> bytes:
    return bytes(12) + bytes.fromhex(text.removeprefix("0x"))
