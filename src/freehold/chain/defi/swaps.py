"""Buying and selling against USDC on Uniswap v3: a quote with its price impact, an order that was tried, and what it came to.

Amounts are base units: USDC 10^-6, the other token 10^-18. The bound is never looser than the slippage that was asked for.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext

from freehold.chain.abi import Contract
from freehold.chain.defi import uniswap
from freehold.chain.defi.model import Defi
from freehold.chain.defi.pools import USDC, State, need, said, state_of, strip_month, token_at
from freehold.chain.model import Deployment
from freehold.chain.problems import Reverted
from freehold.chain.rpc import Rpc
from freehold.chain.steps import Step, approval, rehearse, send_all
from freehold.chain.verbs import Done, done
from freehold.chain.verbs import said as logged
from freehold.chain.wallet import Wallet, read
from freehold.problems import InvalidRequest


@dataclass(frozen=True, slots=True)
class Quote:
    """What a trade would come to now."""

    state: State
    """The pool before it."""
    buying: bool
    exact_paid: bool
    """What is paid was asked for, and what is received follows; else the other way round."""
    paid: int
    received: int
    root_after: int
    slippage: Decimal
    """Share by which it may come out worse before it is refused."""

    @property
    def paid_symbol(self) -> str:
        return USDC if self.buying else self.state.symbol

    @property
    def received_symbol(self) -> str:
        return self.state.symbol if self.buying else USDC

    @property
    def most_paid(self) -> int:
        return self.paid if self.exact_paid else uniswap.more_down(self.paid, self.slippage)

    @property
    def least_received(self) -> int:
        return uniswap.part_up(self.received, self.slippage) if self.exact_paid else self.received

    @property
    def fee(self) -> int:
        """Of what is paid, rounded up."""
        return -(-self.paid * self.state.pool.fee // 1_000_000)

    @property
    def price(self) -> Decimal:
        """USD a token, all in."""
        return price_of(self.paid, self.received, buying=self.buying)

    @property
    def price_after(self) -> Decimal:
        """The pool's."""
        return uniswap.price_usd(self.root_after, base_first=self.state.base_first)

    @property
    def impact(self) -> Decimal:
        """Share of the value that is lost because the trade moves the price; the fee is beside it."""
        with localcontext(prec=40):
            entering = Decimal(self.paid - self.fee)
            price = self.state.price / uniswap.USDC_SCALE
            fair = entering / price if self.buying else entering * price
            return max(Decimal(0), 1 - self.received / fair) if fair else Decimal(0)


@dataclass(frozen=True, slots=True)
class Order:
    """A trade that was tried and not sent yet."""

    quote: Quote
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Traded(Done):
    symbol: str
    buying: bool
    paid: int
    received: int
    price_after: Decimal

    @property
    def price(self) -> Decimal:
        return price_of(self.paid, self.received, buying=self.buying)


def price_of(paid: int, received: int, *, buying: bool) -> Decimal:
    """USD for one token."""
    usdc, token = (paid, received) if buying else (received, paid)
    with localcontext(prec=40):
        return Decimal(usdc) / Decimal(token) * uniswap.USDC_SCALE if token else Decimal(0)


async def quote(
    rpc: Rpc,
    deployment: Deployment,
    defi: Defi,
    symbol: str,
    amount: int,
    *,
    buying: bool,
    in_usdc: bool,
    slippage: Decimal,
) -> Quote:
    """What buying or selling `amount` of a token comes to; `in_usdc`: the amount is the USDC to pay, or to get.

    Raises NotFound, InvalidRequest for more than the pool has, or for a strip that is over.
    """
    state = await state_of(rpc, deployment, defi, symbol)
    month = strip_month(state.symbol)
    if buying and month is not None and month.end_s <= state.at_s:
        raise InvalidRequest(reason=f"{state.symbol} is over and worth nothing; buy the strip of a later month.")
    exact_paid = buying == in_usdc
    given, wanted = (state.usdc, state.pool.base) if buying else (state.pool.base, state.usdc)
    function = "quoteExactInputSingle" if exact_paid else "quoteExactOutputSingle"
    held, name = (state.base_held, state.symbol) if buying else (state.usdc_held, USDC)
    beyond = InvalidRequest(
        reason=f"The pool has {said(held, name)}, and can't give {said(amount, name)} at any price: trade less."
    )
    try:
        question = (given, wanted, amount, state.pool.fee, 0)
        found, root_after, _, _ = await read(rpc, uniswap.quoter(defi), function, question, what="Asking for a quote")
    except Reverted:
        if not exact_paid:
            raise beyond from None
        raise
    paid, received = (amount, found) if exact_paid else (found, amount)
    if not received:
        raise InvalidRequest(reason=f"{said(paid, USDC if buying else name)} buy nothing here: trade more.")
    return Quote(state, buying, exact_paid, paid, received, root_after, slippage)


async def prepare(wallet: Wallet, defi: Defi, asked: Quote) -> Order:
    """The trade's transactions, all tried in a row: an approval of no more than may be paid, the swap, and what is
    left of the approval taken back. Raises NotEnough, Reverted in words.
    """
    state, contract = asked.state, uniswap.router(defi)
    given, wanted = (state.usdc, state.pool.base) if asked.buying else (state.pool.base, state.usdc)
    await need(wallet, given, asked.paid_symbol, asked.most_paid)
    token = token_at(given, asked.paid_symbol)
    approving = await approval(wallet, token, contract, asked.most_paid, symbol=asked.paid_symbol)
    way = (given, wanted, state.pool.fee, wallet.address, state.at_s + uniswap.DEADLINE_S)
    verb = "Buying" if asked.buying else "Selling"
    if asked.exact_paid:
        order = (*way, asked.paid, asked.least_received, 0)
        swap = Step(contract, "exactInputSingle", (order,), f"{verb} {state.symbol}")
    else:
        order = (*way, asked.received, asked.most_paid, 0)
        swap = Step(contract, "exactOutputSingle", (order,), f"{verb} {state.symbol}")
    steps = [*approving, swap]
    if approving and not asked.exact_paid:
        steps.append(take_back(token, contract))
    await rehearse(wallet, steps)
    return Order(asked, tuple(steps))


def take_back(token: Contract, spender: Contract) -> Step:
    """What wasn't needed of an approval."""
    return Step(token, "approve", (spender.address, 0), "Taking back the rest of the approval")


async def carry_out(wallet: Wallet, order: Order) -> Traded:
    """Send it. Raises Reverted, NotMined, NodeUnavailable."""
    state = order.quote.state
    receipts = await send_all(wallet, order.steps)
    swapped = next(r for r, step in zip(receipts, order.steps, strict=True) if step.function.startswith("exact"))
    told = logged(swapped, Contract(uniswap.POOL, address=state.pool.address, name="the pool"), "Swap")
    amounts = dict(zip(state.symbols, (told["amount0"], told["amount1"]), strict=True))
    return Traded(
        *done(swapped),
        symbol=state.symbol,
        buying=order.quote.buying,
        paid=amounts[order.quote.paid_symbol],
        received=-amounts[order.quote.received_symbol],
        price_after=uniswap.price_usd(told["sqrtPriceX96"], base_first=state.base_first),
    )
