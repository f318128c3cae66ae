"""What a dev chain's pools open with: one yield for all, so that strips and principal are worth a DIEM together.

DIEM pays 1 USD of inference a day, for ever. At a price of P USD its yield is 1/P a day; a day's dollar t days ahead is then
worth exp(−t/P), a strip the sum of its days, and a principal what is left of P.
"""

from decimal import Decimal, localcontext
from math import isqrt

DIEM_USD = 183
"""What 1 DIEM opens at."""
USDC_UNITS = 10**6
DIEM_UNITS = 10**18


def strip_usd(first: Decimal, after: Decimal) -> Decimal:
    """Of a strip that pays from `first` days ahead until `after` days ahead."""
    with localcontext(prec=40):
        return DIEM_USD * (_discount(first) - _discount(after))


def principal_usd(days: Decimal) -> Decimal:
    """Of what gives 1 DIEM in so many days."""
    with localcontext(prec=40):
        return DIEM_USD * _discount(days)


def usdc_for(amount: int, price_usd: Decimal) -> int:
    """USDC base units that `amount` base units of an 18-decimals token are worth, rounded down."""
    with localcontext(prec=60):
        return int(amount * price_usd * USDC_UNITS / DIEM_UNITS)


def root_price(first_amount: int, second_amount: int) -> int:
    """Uniswap's price: the square root of token1 for token0, times 2^96, rounded down."""
    return isqrt((second_amount << 192) // first_amount)


def _discount(days: Decimal) -> Decimal:
    return (-days / DIEM_USD).exp()
