"""A receipt as a JSON document, written and read strictly: no field is unread, so none can be changed unnoticed. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from eth_utils.address import to_checksum_address

from freehold.clock import Day, rfc3339
from freehold.ledger.model import Source
from freehold.receipts.model import Domain, Receipt
from freehold.receipts.problems import ReceiptBroken
from freehold.receipts.receipts import Signed

FORMAT = 1

_TOP = ("freehold_receipt", "chain_id", "book", "operator", "receipt", "hash", "signature", "proof")
_FIELDS = (
    "request_id", "account", "day", "at", "key_id", "model", "usage", "price_version", "cost_nano", "absorbed_nano",
    "legs", "outcome", "estimated",
)  # fmt: skip
_MOST = 2**63 - 1


def document(signed: Signed, domain: Domain) -> dict[str, Any]:
    """What is handed out, and what `read` takes."""
    receipt = signed.receipt
    return {
        "freehold_receipt": FORMAT,
        "chain_id": domain.chain_id,
        "book": domain.book,
        "operator": domain.operator,
        "receipt": {
            "request_id": f"req_{receipt.request_id.hex}",
            "account": receipt.account,
            "day": str(Day(receipt.day)),
            "at": rfc3339(receipt.at_s),
            "key_id": receipt.key_id,
            "model": receipt.model,
            "usage": dict(receipt.usage),
            "price_version": receipt.price_version,
            "cost_nano": receipt.cost_nano,
            "absorbed_nano": receipt.absorbed_nano,
            "legs": [
                {"purse": purse, "grant_id": grant, "amount_nano": amount} for purse, grant, amount in receipt.legs
            ],
            "outcome": receipt.outcome,
            "estimated": receipt.estimated,
        },
        "hash": _hex(signed.hash),
        "signature": None if signed.signature is None else _hex(signed.signature),
        "proof": None
        if signed.root is None
        else {"root": _hex(signed.root), "siblings": [_hex(sibling) for sibling in signed.siblings]},
    }


def read(value: object) -> tuple[Domain, Signed]:
    """A document as it was handed out. Raises ReceiptBroken, naming what is wrong."""
    top = _object(value, "the document", _TOP)
    if type(top["freehold_receipt"]) is not int or top["freehold_receipt"] != FORMAT:
        raise ReceiptBroken(reason=f"its format is not {FORMAT}")
    said = _object(top["receipt"], "receipt", _FIELDS)
    proof = None if top["proof"] is None else _object(top["proof"], "proof", ("root", "siblings"))
    siblings = proof["siblings"] if proof is not None else []
    if not isinstance(siblings, list) or len(siblings) > 64:
        raise ReceiptBroken(reason="siblings is not a list")
    domain = Domain(_number(top, "chain_id"), _address(top, "book"), _address(top, "operator"))
    signed = Signed(
        receipt=_receipt(said),
        hash=_bytes(top["hash"], "hash", 32),
        signature=None if top["signature"] is None else _bytes(top["signature"], "signature", 65),
        root=None if proof is None else _bytes(proof["root"], "root", 32),
        siblings=tuple(_bytes(sibling, "a sibling", 32) for sibling in siblings),
    )
    if document(signed, domain) != value:
        raise ReceiptBroken(reason="it is not written as Freehold writes it")
    return domain, signed


def _receipt(said: Mapping[str, Any]) -> Receipt:
    usage, legs = said["usage"], said["legs"]
    if not isinstance(usage, dict) or not all(isinstance(unit, str) for unit in usage):
        raise ReceiptBroken(reason="usage is not an object")
    if not isinstance(legs, list):
        raise ReceiptBroken(reason="legs is not a list")
    purses = [_object(leg, "a leg", ("purse", "grant_id", "amount_nano")) for leg in legs]
    if any(leg["purse"] not in set(Source) for leg in purses):
        raise ReceiptBroken(reason="a leg names an unknown purse")
    if type(said["estimated"]) is not bool:
        raise ReceiptBroken(reason="estimated is neither true nor false")
    return Receipt(
        account=_address(said, "account"),
        request_id=_request(said["request_id"]),
        day=_day(said["day"]),
        at_s=_moment(said["at"]),
        key_id=_number(said, "key_id"),
        model=_text(said, "model"),
        usage={unit: _number(usage, unit) for unit in usage},
        price_version=_number(said, "price_version"),
        cost_nano=_number(said, "cost_nano"),
        absorbed_nano=_number(said, "absorbed_nano"),
        legs=tuple((str(leg["purse"]), _number(leg, "grant_id"), _number(leg, "amount_nano")) for leg in purses),
        outcome=_text(said, "outcome"),
        estimated=said["estimated"],
    )


def _object(value: object, name: str, fields: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReceiptBroken(reason=f"{name} is not an object")
    for field in fields:
        if field not in value:
            raise ReceiptBroken(reason=f"{name} has no {field}")
    for field in value:
        if field not in fields:
            raise ReceiptBroken(reason=f"{name} has a field {str(field)[:40]!r}, which no receipt has")
    return value


def _number(of: Mapping[str, Any], name: str) -> int:
    value = of[name]
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ReceiptBroken(reason=f"{name} is not a whole number from 0 on")
    return value


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of[name]
    if not isinstance(value, str):
        raise ReceiptBroken(reason=f"{name} is not a text")
    return value


def _address(of: Mapping[str, Any], name: str) -> str:
    text = _text(of, name)
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text) or to_checksum_address(text) != text:
        raise ReceiptBroken(reason=f"{name} is not an address with its checksum")
    return text


def _bytes(value: object, name: str, length: int) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(rf"0x[0-9a-f]{{{length * 2}}}", value):
        raise ReceiptBroken(reason=f"{name} is not 0x and {length * 2} hexadecimal digits")
    return bytes.fromhex(value[2:])


def _request(value: object) -> UUID:
    if not isinstance(value, str) or not re.fullmatch(r"req_[0-9a-f]{32}", value):
        raise ReceiptBroken(reason="request_id is not req_ and 32 hexadecimal digits")
    return UUID(value[4:])


def _day(value: object) -> int:
    try:
        if not isinstance(value, str):
            raise ValueError
        return (date.fromisoformat(value) - date(1970, 1, 1)).days
    except ValueError:
        raise ReceiptBroken(reason="day is not a day such as 2026-11-23") from None


def _moment(value: object) -> int:
    try:
        return int(datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        raise ReceiptBroken(reason="at is not a time such as 2026-11-23T08:00:00Z") from None


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
