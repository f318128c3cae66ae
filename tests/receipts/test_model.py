"""A receipt's hash is EIP-712's, over every field."""

from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from tests.receipts.lab import DOMAIN, KEY

from freehold.ledger.model import Source
from freehold.receipts.model import ClosedDay, Domain, PurseTotals, Receipt, day_hash, receipt_hash
from freehold.receipts.signing import ReceiptKey, signer_of

RECEIPT = Receipt(
    account="0x" + "44" * 20,
    request_id=UUID(int=0xF00D),
    day=20_833,
    at_s=1_800_000_123,
    key_id=5,
    model="vendor/größer",
    usage={"input": 3, "cached_input": 2, "output": 5},
    price_version=7,
    cost_nano=1_234,
    absorbed_nano=1,
    legs=(("allowance", 11, 1_000), ("prepaid", 12, 234)),
    outcome="complete",
    estimated=False,
)
DOMAIN_FIELDS = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]


def members(text: str) -> list[dict[str, str]]:
    return [dict(zip(("type", "name"), part.split(), strict=True)) for part in text.split(",")]


def typed(receipt: Receipt, domain: Domain = DOMAIN) -> dict[str, Any]:
    """The receipt as any wallet would be given it."""
    return {
        "types": {
            "EIP712Domain": DOMAIN_FIELDS,
            "Leg": members("string purse,uint64 grant,uint64 amountNano"),
            "Tokens": members("string unit,uint64 count"),
            "Receipt": members(
                "address operator,address account,bytes16 requestId,uint32 day,uint64 time,uint64 key,string model,"
                "Tokens[] usage,uint32 priceVersion,uint64 costNano,uint64 absorbedNano,Leg[] legs,string outcome,"
                "bool estimated"
            ),
        },
        "primaryType": "Receipt",
        "domain": {
            "name": "Freehold",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.book,
        },
        "message": {
            "operator": domain.operator,
            "account": receipt.account,
            "requestId": receipt.request_id.bytes,
            "day": receipt.day,
            "time": receipt.at_s,
            "key": receipt.key_id,
            "model": receipt.model,
            "usage": [{"unit": unit, "count": receipt.usage[unit]} for unit in sorted(receipt.usage)],
            "priceVersion": receipt.price_version,
            "costNano": receipt.cost_nano,
            "absorbedNano": receipt.absorbed_nano,
            "legs": [{"purse": purse, "grant": grant, "amountNano": nano} for purse, grant, nano in receipt.legs],
            "outcome": receipt.outcome,
            "estimated": receipt.estimated,
        },
    }


def by_eth_account(data: dict[str, Any]) -> bytes:
    message = encode_typed_data(full_message=data)
    return keccak(b"\x19" + message.version + message.header + message.body)


@pytest.mark.parametrize("receipt", [RECEIPT, replace(RECEIPT, usage={}, legs=(), estimated=True, model="")])
def test_the_hash_is_what_any_wallet_would_sign(receipt: Receipt) -> None:
    assert receipt_hash(receipt, DOMAIN) == by_eth_account(typed(receipt))


OTHER = {
    "account": "0x" + "45" * 20,
    "request_id": UUID(int=0xF00E),
    "model": "vendor/other",
    "usage": {"input": 3, "cached_input": 2, "output": 6},
    "legs": (("allowance", 11, 1_000), ("promo", 12, 234)),
    "outcome": "deadline",
    "estimated": True,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Receipt)])
def test_no_field_can_change_without_changing_the_hash(name: str) -> None:
    other = OTHER[name] if name in OTHER else getattr(RECEIPT, name) + 1
    assert receipt_hash(replace(RECEIPT, **{name: other}), DOMAIN) != receipt_hash(RECEIPT, DOMAIN)


@pytest.mark.parametrize("change", [{"chain_id": 1}, {"book": "0x" + "23" * 20}, {"operator": "0x" + "34" * 20}])
def test_a_receipt_is_good_for_one_chain_one_book_and_one_operator(change: dict[str, Any]) -> None:
    assert receipt_hash(RECEIPT, replace(DOMAIN, **change)) != receipt_hash(RECEIPT, DOMAIN)


def test_a_signature_names_its_signer_and_is_what_a_wallet_would_make() -> None:
    secret = bytes(31) + b"\x07"
    digest = receipt_hash(RECEIPT, DOMAIN)
    signature = KEY.sign(digest)
    assert signer_of(digest, signature) == KEY.address == Account.from_key(secret).address
    assert signature == bytes(
        Account.from_key(secret).sign_message(encode_typed_data(full_message=typed(RECEIPT))).signature
    )
    assert signer_of(digest[::-1], signature) != KEY.address
    assert "7" not in repr(ReceiptKey(secret)).replace(KEY.address, "")


@pytest.mark.parametrize("broken", [b"", bytes(65), b"\xff" * 64 + b"\x1b", bytes(64) + b"\x1d"])
def test_what_is_no_signature_is_nobodys(broken: bytes) -> None:
    assert signer_of(bytes(32), broken) is None


def test_a_closed_days_totals_hash_is_that_of_their_abi_encoding() -> None:
    totals = {
        Source.ALLOWANCE: PurseTotals(0, 10, 4, 6, 0),
        Source.STRIP: PurseTotals(),
        Source.PROMO: PurseTotals(5, 0, 1, 0, 4),
        Source.PREPAID: PurseTotals(7, 8, 9, 0, 6),
    }
    purse = "(uint64,uint64,uint64,uint64,uint64)"
    encoded = encode([f"({purse},{purse},{purse},{purse})"], [tuple(totals[one].row() for one in totals)])
    closed = ClosedDay(20_833, b"\x01" * 32, 3, totals)
    assert closed.totals_hash() == keccak(encoded)
    day = {
        "types": {
            "EIP712Domain": DOMAIN_FIELDS,
            "DayRoot": members("address operator,uint32 day,bytes32 root,uint64 count,bytes32 totals"),
        },
        "primaryType": "DayRoot",
        "domain": typed(RECEIPT)["domain"],
        "message": {
            "operator": DOMAIN.operator,
            "day": closed.day,
            "root": closed.root,
            "count": closed.count,
            "totals": closed.totals_hash(),
        },
    }
    assert day_hash(closed, DOMAIN) == by_eth_account(day)
