"""Being a pool's counterparty on Uniswap v3: positions with what they hold and have earned; adding, removing, collecting.

Amounts are base units: USDC 10^-6, the other token 10^-18.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from freehold.chain.abi import Contract, from_hex
from freehold.chain.defi import uniswap
from freehold.chain.defi.model import Defi
from freehold.chain.defi.pools import USDC, State, need, said, state_of, states, token_at
from freehold.chain.defi.swaps import take_back
from freehold.chain.model import Deployment
from freehold.chain.problems import WalletRefused
from freehold.chain.rpc import Rpc
from freehold.chain.steps import Step, approval, rehearse, send_all
from freehold.chain.verbs import Done, address_of, done, reads
from freehold.chain.verbs import said as logged
from freehold.chain.wallet import Wallet, read
from freehold.problems import InvalidRequest, NotFound

_NEVER_S = 2**40


@dataclass(frozen=True, slots=True)
class Position:
    """Liquidity between two prices, as the wallet's that owns it."""

    id: int
    state: State
    """Its pool."""
    lower: int
    upper: int
    """Ticks."""
    liquidity: int
    base: int
    usdc: int
    """What removing all of it gives now."""
    base_owed: int
    usdc_owed: int
    """What waits to be collected: fees, and what was removed and not taken."""

    @property
    def whole_range(self) -> bool:
        return (self.lower, self.upper) == (-uniswap.LAST_TICK, uniswap.LAST_TICK)

    @property
    def range_usd(self) -> tuple[Decimal, Decimal]:
        """The prices of one token that it works between."""
        return range_usd(self.state, self.lower, self.upper)

    @property
    def active(self) -> bool:
        """Whether the pool's price is in its range, so that it earns."""
        return self.range_usd[0] <= self.state.price < self.range_usd[1]


@dataclass(frozen=True, slots=True)
class Offer:
    """What adding comes to now."""

    state: State
    lower: int
    upper: int
    base: int
    usdc: int
    """The most that is taken of each."""
    slippage: Decimal

    @property
    def range_usd(self) -> tuple[Decimal, Decimal]:
        return range_usd(self.state, self.lower, self.upper)

    @property
    def whole_range(self) -> bool:
        return (self.lower, self.upper) == (-uniswap.LAST_TICK, uniswap.LAST_TICK)


@dataclass(frozen=True, slots=True)
class Adding:
    """An offer that was tried and not sent yet."""

    offer: Offer
    steps: tuple[Step, ...]
    approved: tuple[Contract, ...]
    """Tokens of which a rest of the approval may stay."""


@dataclass(frozen=True, slots=True)
class Removing:
    """A removal, or a collection of fees, that was tried and not sent yet."""

    position: Position
    steps: tuple[Step, ...]
    whole: bool
    base: int
    usdc: int
    """What is taken out of the pool; what is owed comes with it."""


@dataclass(frozen=True, slots=True)
class Added(Done):
    id: int
    symbol: str
    base: int
    usdc: int


@dataclass(frozen=True, slots=True)
class Removed(Done):
    id: int
    symbol: str
    base: int
    usdc: int
    """What came to the wallet, fees included."""
    base_fees: int
    usdc_fees: int
    closed: bool


def range_usd(state: State, lower: int, upper: int) -> tuple[Decimal, Decimal]:
    low, high = sorted(uniswap.price_at(tick, base_first=state.base_first) for tick in (lower, upper))
    return low, high


async def positions_of(rpc: Rpc, deployment: Deployment, defi: Defi, owner: str) -> list[Position]:
    """Every position of `owner` in a known pool. Raises NodeUnavailable."""
    contract, whose = uniswap.positions(defi), address_of(owner)
    known = {(state.tokens, state.pool.fee): state for state in await states(rpc, deployment, defi)}
    count = await read(rpc, contract, "balanceOf", whose)
    ids = await reads(rpc, "latest", [(contract, "tokenOfOwnerByIndex", (whose, index)) for index in range(count)])
    facts = await reads(rpc, "latest", [(contract, "positions", (number,)) for number in ids])
    found = []
    for number, fact in zip(ids, facts, strict=True):
        state = known.get(((fact[2], fact[3]), fact[4]))
        if state is not None:
            found.append(await _position(rpc, contract, number, fact, state, whose))
    return found


async def position_of(rpc: Rpc, deployment: Deployment, defi: Defi, number: int, owner: str) -> Position:
    """A position of `owner`'s. Raises NotFound, WalletRefused when it is another's, Reverted when there is none."""
    contract = uniswap.positions(defi)
    holder = await read(rpc, contract, "ownerOf", number, what=f"Reading position {number}")
    if holder != address_of(owner):
        raise WalletRefused(reason=f"Position {number} belongs to {holder}.")
    for position in await positions_of(rpc, deployment, defi, owner):
        if position.id == number:
            return position
    raise NotFound(reason=f"Position {number} is in a pool that isn't known here.")


async def offer(
    rpc: Rpc,
    deployment: Deployment,
    defi: Defi,
    symbol: str,
    amount: int,
    *,
    in_usdc: bool,
    between: tuple[Decimal, Decimal] | None,
    slippage: Decimal,
) -> Offer:
    """What goes with `amount` of a token (`in_usdc`: of USDC), over the whole range or between two prices in USD.

    Raises NotFound, InvalidRequest for a range that holds nothing of what was given.
    """
    state = await state_of(rpc, deployment, defi, symbol)
    lower, upper = -uniswap.LAST_TICK, uniswap.LAST_TICK
    if between is not None:
        lower, upper = sorted(uniswap.tick_near(usd, base_first=state.base_first) for usd in between)
        if lower == upper:
            raise InvalidRequest(reason="That range is narrower than the pool's steps of 0.6 %: name a wider one.")
    first = state.base_first != in_usdc
    other = uniswap.paired_up(amount, first=first, root=state.root, lower=lower, upper=upper)
    if other is None:
        given, wanted = (USDC, state.symbol) if in_usdc else (state.symbol, USDC)
        mend = f"say how much {wanted} instead" + (", without --usdc" if in_usdc else ", with --usdc")
        where = "above" if in_usdc else "below"
        raise InvalidRequest(
            reason=f"A range {where} the price of {float(state.price):.6g} USD takes {wanted} alone, no {given}: {mend}."
        )
    base, usdc = (other, amount) if in_usdc else (amount, other)
    return Offer(state, lower, upper, base, usdc, slippage)


async def prepare_adding(wallet: Wallet, defi: Defi, asked: Offer) -> Adding:
    """The transactions, all tried in a row. Raises NotEnough, Reverted in words."""
    state, contract = asked.state, uniswap.positions(defi)
    most = dict(zip((state.symbol, USDC), (asked.base, asked.usdc), strict=True))
    steps: list[Step] = []
    approved = []
    for address, symbol in zip(state.tokens, state.symbols, strict=True):
        if not most[symbol]:
            continue
        await need(wallet, address, symbol, most[symbol])
        token = token_at(address, symbol)
        approving = await approval(wallet, token, contract, most[symbol], symbol=symbol)
        steps += approving
        approved += [token] if approving else []

    def mint(least: tuple[int, int]) -> Step:
        amounts = (*(most[symbol] for symbol in state.symbols), *least)
        until_s = state.at_s + uniswap.DEADLINE_S
        order = (*state.tokens, state.pool.fee, asked.lower, asked.upper, *amounts, wallet.address, until_s)
        what = f"Adding {' and '.join(said(amount, symbol) for symbol, amount in most.items() if amount)}"
        return Step(contract, "mint", (order,), what)

    tried = await rehearse(wallet, [*steps, mint((0, 0))])
    would = tried[-1][2:] if tried else (0, 0)
    least = tuple(uniswap.part_down(amount, asked.slippage) for amount in would)
    steps.append(mint((least[0], least[1])))
    await rehearse(wallet, steps)
    return Adding(asked, tuple(steps), tuple(approved))


async def add(wallet: Wallet, order: Adding) -> Added:
    """Send it. Raises Reverted, NotMined, NodeUnavailable."""
    receipts = await send_all(wallet, order.steps)
    contract, state = order.steps[-1].contract, order.offer.state
    for token in order.approved:
        if await wallet.read(token, "allowance", wallet.address, contract.address):
            await send_all(wallet, [take_back(token, contract)])
    told = logged(receipts[-1], contract, "IncreaseLiquidity")
    amounts = dict(zip(state.symbols, (told["amount0"], told["amount1"]), strict=True))
    return Added(
        *done(receipts[-1]), id=told["tokenId"], symbol=state.symbol, base=amounts[state.symbol], usdc=amounts[USDC]
    )


async def prepare_removing(
    wallet: Wallet, deployment: Deployment, defi: Defi, number: int, *, share: Decimal, slippage: Decimal
) -> Removing:
    """Take a share of a position out, all that is owed with it; a share of 0 only collects. One transaction, tried.

    Raises NotFound, WalletRefused, InvalidRequest, Reverted in words.
    """
    position = await position_of(wallet.rpc, deployment, defi, number, wallet.address)
    contract, whole = uniswap.positions(defi), share == 1
    part = position.liquidity if whole else uniswap.part_down(position.liquidity, 1 - share)
    if not part and not (position.base_owed or position.usdc_owed or whole):
        raise InvalidRequest(reason=f"Position {number} has earned nothing yet that could be collected.")
    calls, amounts = [], (0, 0)
    if part:
        amounts = await _removable(wallet.rpc, contract, number, part, wallet.address)
        least = [uniswap.part_down(amount, slippage) for amount in amounts]
        order = (number, part, *least, position.state.at_s + uniswap.DEADLINE_S)
        calls.append(contract.call("decreaseLiquidity", order))
    calls.append(contract.call("collect", (number, wallet.address, uniswap.ALL_OWED, uniswap.ALL_OWED)))
    if whole:
        calls.append(contract.call("burn", number))
    what = f"{'Taking out of' if part else 'Collecting from'} position {number}"
    steps = (Step(contract, "multicall", ([from_hex(call) for call in calls],), what),)
    await rehearse(wallet, steps)
    taken = dict(zip(position.state.symbols, amounts, strict=True))
    return Removing(position, steps, whole, taken[position.state.symbol], taken[USDC])


async def remove(wallet: Wallet, order: Removing) -> Removed:
    """Send it. Raises Reverted, NotMined, NodeUnavailable."""
    (receipt,) = await send_all(wallet, order.steps)
    contract, state = order.steps[0].contract, order.position.state
    collected = logged(receipt, contract, "Collect")
    taken = (0, 0)
    if order.base or order.usdc:
        event = logged(receipt, contract, "DecreaseLiquidity")
        taken = (event["amount0"], event["amount1"])
    came = dict(zip(state.symbols, (collected["amount0"], collected["amount1"]), strict=True))
    out = dict(zip(state.symbols, taken, strict=True))
    return Removed(
        *done(receipt),
        id=order.position.id,
        symbol=state.symbol,
        base=came[state.symbol],
        usdc=came[USDC],
        base_fees=came[state.symbol] - out[state.symbol],
        usdc_fees=came[USDC] - out[USDC],
        closed=order.whole,
    )


async def _position(rpc: Rpc, contract: Contract, number: int, fact: Any, state: State, owner: str) -> Position:
    amounts = (0, 0)
    if fact[7]:
        amounts = await _removable(rpc, contract, number, fact[7], owner)
    order = (number, owner, uniswap.ALL_OWED, uniswap.ALL_OWED)
    nothing = not (fact[7] or fact[10] or fact[11])
    owed = (0, 0) if nothing else await read(rpc, contract, "collect", order, sender=owner)
    held = dict(zip(state.symbols, amounts, strict=True))
    waiting = dict(zip(state.symbols, owed, strict=True))
    return Position(
        id=number,
        state=state,
        lower=fact[5],
        upper=fact[6],
        liquidity=fact[7],
        base=held[state.symbol],
        usdc=held[USDC],
        base_owed=waiting[state.symbol],
        usdc_owed=waiting[USDC],
    )


async def _removable(rpc: Rpc, contract: Contract, number: int, part: int, owner: str) -> tuple[int, int]:
    """What taking so much liquidity out would give: tried, not sent."""
    first, second = await read(rpc, contract, "decreaseLiquidity", (number, part, 0, 0, _NEVER_S), sender=owner)
    return first, second
