"""The pools as they are: their prices, what they hold, and the half hour's mean where an oracle looks."""

from dataclasses import dataclass
from decimal import Decimal, localcontext

from freehold.chain.abi import Contract, template
from freehold.chain.contracts import ERC20
from freehold.chain.defi import uniswap
from freehold.chain.defi.model import Defi, Pool
from freehold.chain.model import Deployment
from freehold.chain.problems import NotEnough, Reverted
from freehold.chain.rpc import Rpc
from freehold.chain.verbs import reads
from freehold.chain.wallet import Wallet, read
from freehold.clock import Month
from freehold.money import DIEM_DECIMALS, USDC_DECIMALS, format_units
from freehold.problems import NotFound

USDC = "USDC"


@dataclass(frozen=True, slots=True)
class State:
    """One pool at one block."""

    symbol: str
    pool: Pool
    usdc: str
    """Address of the other token."""
    root: int
    """Its price, as Uniswap keeps it."""
    base_held: int
    usdc_held: int
    at_s: int

    @property
    def base_first(self) -> bool:
        return int(self.pool.base, 16) < int(self.usdc, 16)

    @property
    def tokens(self) -> tuple[str, str]:
        """Addresses of token0 and token1."""
        return (self.pool.base, self.usdc) if self.base_first else (self.usdc, self.pool.base)

    @property
    def symbols(self) -> tuple[str, str]:
        """Of token0 and token1."""
        return (self.symbol, USDC) if self.base_first else (USDC, self.symbol)

    @property
    def price(self) -> Decimal:
        """USD for one token, for an amount next to nothing and without the fee."""
        return uniswap.price_usd(self.root, base_first=self.base_first)


@dataclass(frozen=True, slots=True)
class Price:
    """What one DIEM costs, and where that is read."""

    usd: Decimal
    mean: bool
    """Over the last half hour; else of this moment."""
    pool: str
    at_s: int

    @property
    def source(self) -> str:
        """In words, to stand behind the number."""
        from freehold.clock import rfc3339

        how = "half hour's mean" if self.mean else "price of the moment, for it has no half hour's history yet,"
        return f"the {how} of the Uniswap v3 pool {self.pool} at {rfc3339(self.at_s)}"


def pool_of(defi: Defi, symbol: str) -> tuple[str, Pool]:
    """The pool of a token, called so in any case, against USDC. Raises NotFound, naming those that there are."""
    for name, pool in defi.pools.items():
        if name.lower() == symbol.lower():
            return name, pool
    raise NotFound(reason=f"There is no pool of {symbol!r} against USDC; there are pools of {', '.join(defi.pools)}.")


def strip_month(symbol: str) -> Month | None:
    """The month that a strip is of; None for what is no strip: DIEM, a principal."""
    return Month.parse(symbol.removeprefix("DIEM-")) if symbol.startswith("DIEM-") else None


def principal_month(symbol: str) -> Month | None:
    """The month whose end a principal waits for; None for what is none."""
    return Month.parse(symbol.removeprefix("pDIEM-")) if symbol.startswith("pDIEM-") else None


async def state_of(rpc: Rpc, deployment: Deployment, defi: Defi, symbol: str) -> State:
    """A pool at the newest block. Raises NotFound, NodeUnavailable."""
    name, pool = pool_of(defi, symbol)
    usdc = deployment.contracts["usdc"]
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    slot, base_held, usdc_held = await reads(
        rpc,
        block["number"],
        [
            (Contract(uniswap.POOL, address=pool.address, name="the pool"), "slot0", ()),
            (token_at(pool.base, name), "balanceOf", (pool.address,)),
            (token_at(usdc, USDC), "balanceOf", (pool.address,)),
        ],
    )
    return State(name, pool, usdc, slot[0], base_held, usdc_held, int(block["timestamp"], 16))


async def states(rpc: Rpc, deployment: Deployment, defi: Defi) -> list[State]:
    """All pools."""
    return [await state_of(rpc, deployment, defi, symbol) for symbol in defi.pools]


async def diem_price(rpc: Rpc, deployment: Deployment, defi: Defi) -> Price:
    """What one DIEM costs: the oracle's half-hour mean where the pool has so much history, else its price now.

    Raises NotFound, NodeUnavailable.
    """
    state = await state_of(rpc, deployment, defi, "DIEM")
    market = defi.markets.get("DIEM")
    if market is not None:
        try:
            mean = await read(rpc, template("TwapOracle").at(market.oracle), "price")
        except Reverted as refused:
            if refused.error != "HistoryTooShort":
                raise
        else:
            with localcontext(prec=40):
                return Price(Decimal(mean) / 10**24, mean=True, pool=state.pool.address, at_s=state.at_s)
    return Price(state.price, mean=False, pool=state.pool.address, at_s=state.at_s)


def token_at(address: str, symbol: str) -> Contract:
    return Contract(ERC20, address=address, name=symbol)


def decimals_of(symbol: str) -> int:
    return USDC_DECIMALS if symbol == USDC else DIEM_DECIMALS


def said(amount: int, symbol: str) -> str:
    """An amount in words, whole: `1.5 DIEM-2026-12`."""
    return f"{format_units(amount, decimals=decimals_of(symbol))} {symbol}"


async def need(wallet: Wallet, address: str, symbol: str, amount: int, *, mend: str = "") -> None:
    """Raises NotEnough when the wallet has less of a token."""
    has = await wallet.read(token_at(address, symbol), "balanceOf", wallet.address)
    if has < amount:
        mend = mend or (
            "On the development chain `freehold dev fund` gives some."
            if symbol == USDC
            else "`freehold trade buy` gets some."
        )
        raise NotEnough(name=wallet.name, has=said(has, symbol), needs=said(amount, symbol), mend=mend)
