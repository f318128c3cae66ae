"""Values as they cross the wire: money, times and texts, read strictly and written exactly."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, WithJsonSchema

from freehold.clock import rfc3339
from freehold.money import AmountError, format_usd, parse_usd

MAX_ID = 2**63 - 1
MAX_TIME_S = 253_402_300_799

_REQUEST_ID = re.compile(r"(?:req_)?([0-9a-fA-F]{32})")


def usd_to_nano(value: object) -> int:
    """A decimal string, or a whole number, of USD as nano-USD. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('send USD as a decimal string such as "12.5", so that no digit is lost')
    try:
        return parse_usd(str(value))
    except AmountError as error:
        raise ValueError(str(error).rstrip(".")) from None


def seconds(value: object) -> int:
    """An RFC 3339 time, or a date (its 00:00 UTC), as unix seconds. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("send a time such as 2026-11-23T08:00:00Z")
    text = value.strip()
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            found = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        else:
            found = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
        at_s = int(found.timestamp()) if found.tzinfo else None
    except (ValueError, OverflowError):
        at_s = None
    if at_s is None or not 0 <= at_s <= MAX_TIME_S:
        raise ValueError("that is not a time with its zone, such as 2026-11-23T08:00:00Z, or a date")
    return at_s


def plain(text: str) -> str:
    """A text that every database, log and terminal takes. Raises ValueError."""
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError("no control characters and no halves of characters, please")
    return text


def request_uuid(text: str) -> UUID | None:
    """The id of `req_<32 hex>`; None when it isn't one."""
    match = _REQUEST_ID.fullmatch(text)
    return UUID(match.group(1)) if match else None


def request_id(number: UUID) -> str:
    return f"req_{number.hex}"


def money(name: str, nano: int | None) -> dict[str, Any]:
    """An amount and its integer twin: `cost` → {"cost": "0.0012", "cost_nano": 1200000}."""
    return {
        name: None if nano is None else format_usd(nano),
        f"{name.removesuffix('_usd')}_nano": nano,
    }


def moment(at_s: float | None) -> str | None:
    """RFC 3339, UTC."""
    return None if at_s is None else rfc3339(at_s)


UsdIn = Annotated[
    int,
    BeforeValidator(usd_to_nano),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d{1,9})?$", "examples": ["12.5"], "description": "USD"}),
]
"""nano-USD inside, decimal USD outside."""

TimeIn = Annotated[
    int,
    BeforeValidator(seconds),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-12-31T00:00:00Z"]}),
]
"""Unix seconds inside, RFC 3339 outside."""

Text = Annotated[str, AfterValidator(plain), StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
ModelId = Annotated[str, AfterValidator(plain), StringConstraints(min_length=1, max_length=200)]


class In(BaseModel):
    """A request's body. An unknown field is an error, because a misspelt cap would be no cap."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    """A response's body."""

    model_config = ConfigDict(frozen=True)
