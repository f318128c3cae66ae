"""Integer money: nano-USD and token base units. Nothing here, or anywhere, is a float.

1 USD = 1,000,000,000 nano-USD. 1 DIEM (10^18 base units) staked = 1 USD of credit a day, so one nano-USD of
daily credit is 10^9 base units of DIEM. 1 USDC (10^6 base units) = 1 USD, so one base unit is 1,000 nano-USD.
Every function that rounds says which way in its name.
"""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

NANO = 1_000_000_000
"""nano-USD in one USD."""

MAX_NANO = 2**63 - 1
"""The largest amount that a ledger column holds (about 9.2 billion USD)."""

DIEM_DECIMALS = 18
HOLD_DECIMALS = 18
USDC_DECIMALS = 6

DIEM_PER_NANO = 10**9
"""DIEM base units that grant one nano-USD a day."""

NANO_PER_USDC_UNIT = 1_000
"""nano-USD that one base unit of USDC is worth."""


class AmountError(ValueError):
    """An amount that can't be read: the text says why, in one sentence."""


def parse_units(text: str, *, decimals: int, what: str = "amount") -> int:
    """Read a decimal amount exactly, as an integer of 10^-`decimals` units.

    Raises AmountError for anything that isn't a plain, non-negative decimal number with at most `decimals`
    places ("1e3", "nan", "-1", "1,000" are refused).
    """
    plain = text.strip()
    if not plain or any(c not in "0123456789." for c in plain) or plain.count(".") > 1 or plain == ".":
        raise AmountError(f"{what} {text!r} is not a plain decimal number, such as 12.5.")
    try:
        value = Decimal(plain)
    except InvalidOperation:
        raise AmountError(f"{what} {text!r} is not a plain decimal number, such as 12.5.") from None
    whole, _, fraction = plain.partition(".")
    if len(fraction.rstrip("0")) > decimals:
        raise AmountError(f"{what} {text!r} has more than {decimals} decimal places.")
    if len(whole.lstrip("0")) > 60:
        raise AmountError(f"{what} {text!r} is too large.")
    _, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)) or "0")
    shift = decimals + int(exponent)
    scale: int = 10 ** abs(shift)
    return number * scale if shift >= 0 else number // scale


def format_units(amount: int, *, decimals: int, least_places: int = 0) -> str:
    """Write an integer amount as an exact decimal, without trailing zeros beyond `least_places`."""
    sign, magnitude = ("-", -amount) if amount < 0 else ("", amount)
    whole, rest = divmod(magnitude, 10**decimals)
    fraction = str(rest).zfill(decimals).rstrip("0") if decimals else ""
    fraction = fraction.ljust(least_places, "0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def parse_usd(text: str) -> int:
    """Read USD as nano-USD. Raises AmountError, also above what the ledger can hold."""
    amount = parse_units(text, decimals=9, what="USD amount")
    if amount > MAX_NANO:
        raise AmountError(f"USD amount {text!r} is above {format_usd(MAX_NANO)}, the most the ledger can hold.")
    return amount


def format_usd(nano: int) -> str:
    """nano-USD as exact decimal USD with at least two places: 12_300 → '0.0000123'."""
    return format_units(nano, decimals=9, least_places=2)


def cost_nano_up(items: Iterable[tuple[int, int]]) -> int:
    """Price of `(quantity, nano-USD per million)` pairs, summed exactly and rounded up once, to 1 nano-USD.

    Rounded in favour of the ledger, never of the caller.
    """
    return -(-sum(quantity * per_million for quantity, per_million in items) // 1_000_000)


def quantity_down(nano: int, *, per_million: int) -> int:
    """The most units that `nano` pays for at `per_million` nano-USD a million; `per_million` > 0."""
    return nano * 1_000_000 // per_million


def diem_to_nano_down(base_units: int) -> int:
    """Daily credit of a DIEM amount, rounded down to 1 nano-USD."""
    return base_units // DIEM_PER_NANO


def usdc_to_nano(base_units: int) -> int:
    """USDC base units as nano-USD: exact."""
    return base_units * NANO_PER_USDC_UNIT
