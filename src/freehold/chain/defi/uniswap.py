"""What is used of Uniswap v3: its contracts' functions and events, and the arithmetic of its prices.

A pool's price is the square root of token1 for token0, in base units, times 2^96; ticks are powers of 1.0001. Sources:
Uniswap v3 Core (2021), sections 6.1 to 6.3.
"""

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from freehold.chain.abi import Abi, Contract
from freehold.chain.defi.model import Defi

SPACING = 60
"""Ticks between those that a position of a 0.3 % pool may begin or end at."""
LAST_TICK = 887_220
"""The last such tick; the whole range is from −this to this."""
DEADLINE_S = 1_200
"""How long after it was tried a transaction may still be mined."""
USDC_SCALE = Decimal(10) ** (18 - 6)
"""From base units of USDC for base units of an 18-decimals token, to USD a token."""
ALL_OWED = 2**128 - 1
_ROOT_UNIT = 2**96
_DIGITS = 60


def _function(name: str, inputs: Sequence[str], outputs: Sequence[str], *, struct: bool = False) -> Any:
    """Inputs as "kind name"; with `struct` they are the members of the one argument."""
    given = [dict(zip(("type", "name"), each.split(), strict=True)) for each in inputs]
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": "params", "type": "tuple", "components": given}] if struct else given,
        "outputs": [{"name": "", "type": kind} for kind in outputs],
    }


def _event(name: str, *fields: str) -> Any:
    """Fields as "kind name", with " indexed" behind where it is."""
    found = []
    for each in fields:
        kind, called, *indexed = each.split()
        found.append({"type": kind, "name": called, "indexed": bool(indexed)})
    return {"type": "event", "name": name, "inputs": found}


_ID, _U, _ADDRESS = "uint256 tokenId", "uint256", "address"
POOL: Abi = [
    _function("slot0", (), ("uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool")),
    _function("liquidity", (), ("uint128",)),
    _event(
        "Swap",
        *("address sender indexed", "address recipient indexed", "int256 amount0", "int256 amount1"),
        *("uint160 sqrtPriceX96", "uint128 liquidity", "int24 tick"),
    ),
]
_QUOTED = (_U, "uint160", "uint32", _U)
QUOTER: Abi = [
    _function(
        name,
        ("address tokenIn", "address tokenOut", f"uint256 {amount}", "uint24 fee", "uint160 sqrtPriceLimitX96"),
        _QUOTED,
        struct=True,
    )
    for name, amount in (("quoteExactInputSingle", "amountIn"), ("quoteExactOutputSingle", "amount"))
]
_WAY = ("address tokenIn", "address tokenOut", "uint24 fee", "address recipient", "uint256 deadline")
ROUTER: Abi = [
    _function(
        "exactInputSingle",
        (*_WAY, "uint256 amountIn", "uint256 amountOutMinimum", "uint160 sqrtPriceLimitX96"),
        (_U,),
        struct=True,
    ),
    _function(
        "exactOutputSingle",
        (*_WAY, "uint256 amountOut", "uint256 amountInMaximum", "uint160 sqrtPriceLimitX96"),
        (_U,),
        struct=True,
    ),
]
POSITIONS: Abi = [
    _function("balanceOf", ("address owner",), (_U,)),
    _function("ownerOf", (_ID,), (_ADDRESS,)),
    _function("tokenOfOwnerByIndex", ("address owner", "uint256 index"), (_U,)),
    _function(
        "positions",
        (_ID,),
        ("uint96", _ADDRESS, _ADDRESS, _ADDRESS, "uint24", "int24", "int24", "uint128", _U, _U, "uint128", "uint128"),
    ),
    _function(
        "mint",
        (
            *("address token0", "address token1", "uint24 fee", "int24 tickLower", "int24 tickUpper"),
            *("uint256 amount0Desired", "uint256 amount1Desired", "uint256 amount0Min", "uint256 amount1Min"),
            *("address recipient", "uint256 deadline"),
        ),
        (_U, "uint128", _U, _U),
        struct=True,
    ),
    _function(
        "decreaseLiquidity",
        (_ID, "uint128 liquidity", "uint256 amount0Min", "uint256 amount1Min", "uint256 deadline"),
        (_U, _U),
        struct=True,
    ),
    _function("collect", (_ID, "address recipient", "uint128 amount0Max", "uint128 amount1Max"), (_U, _U), struct=True),
    _function("burn", (_ID,), ()),
    _function("multicall", ("bytes[] data",), ("bytes[]",)),
    _event("IncreaseLiquidity", "uint256 tokenId indexed", "uint128 liquidity", "uint256 amount0", "uint256 amount1"),
    _event("DecreaseLiquidity", "uint256 tokenId indexed", "uint128 liquidity", "uint256 amount0", "uint256 amount1"),
    _event("Collect", "uint256 tokenId indexed", "address recipient", "uint256 amount0", "uint256 amount1"),
]


def quoter(defi: Defi) -> Contract:
    return Contract(QUOTER, address=defi.quoter, name="Uniswap's quoter")


def router(defi: Defi) -> Contract:
    return Contract(ROUTER, address=defi.router, name="Uniswap's router")


def positions(defi: Defi) -> Contract:
    return Contract(POSITIONS, address=defi.positions, name="Uniswap's positions")


def price_usd(root: int, *, base_first: bool) -> Decimal:
    """USD for one token at a pool's price; `base_first` when the token, not USDC, is the pool's token0."""
    with localcontext(prec=_DIGITS):
        ratio = (Decimal(root) / _ROOT_UNIT) ** 2
        return +(ratio if base_first else 1 / ratio) * USDC_SCALE


def price_at(tick: int, *, base_first: bool) -> Decimal:
    """USD for one token at a tick."""
    with localcontext(prec=_DIGITS):
        ratio = Decimal("1.0001") ** tick
        return +(ratio if base_first else 1 / ratio) * USDC_SCALE


def tick_near(usd: Decimal, *, base_first: bool) -> int:
    """The tick nearest to a price that a position may begin or end at."""
    with localcontext(prec=_DIGITS):
        ratio = usd / USDC_SCALE if base_first else USDC_SCALE / usd
        steps = ratio.ln() / Decimal("1.0001").ln() / SPACING
        return max(-LAST_TICK, min(LAST_TICK, int(steps.to_integral_value()) * SPACING))


def paired_up(amount: int, *, first: bool, root: int, lower: int, upper: int) -> int | None:
    """How much of the other token goes with `amount` of one (`first`: of token0) between two ticks, rounded up.

    None where the range holds nothing of the given token. Whitepaper, formulas 6.29 and 6.30.
    """
    with localcontext(prec=_DIGITS):
        here = Decimal(root) / _ROOT_UNIT
        low, high = (Decimal("1.0001") ** (Decimal(tick) / 2) for tick in (lower, upper))
        here = max(low, min(high, here))
        zero_per_liquidity, one_per_liquidity = 1 / here - 1 / high, here - low
        given, other = (zero_per_liquidity, one_per_liquidity) if first else (one_per_liquidity, zero_per_liquidity)
        if given <= 0:
            return None
        return int((amount * other / given).to_integral_value(ROUND_CEILING))


def part_up(amount: int, share: Decimal) -> int:
    """`amount` less a share of it, rounded up: the least that is taken for it."""
    with localcontext(prec=_DIGITS):
        return int((amount * (1 - share)).to_integral_value(ROUND_CEILING))


def part_down(amount: int, share: Decimal) -> int:
    """`amount` less a share of it, rounded down."""
    with localcontext(prec=_DIGITS):
        return int((amount * (1 - share)).to_integral_value(ROUND_FLOOR))


def more_down(amount: int, share: Decimal) -> int:
    """`amount` and a share of it, rounded down: the most that is given for it."""
    with localcontext(prec=_DIGITS):
        return int((amount * (1 + share)).to_integral_value(ROUND_FLOOR))
