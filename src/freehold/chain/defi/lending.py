"""Lending and borrowing on Morpho Blue: supply, withdraw, borrow, repay, liquidate, and how near a debt is to its end.

Each verb reads where it stands, refuses in words with the number that would do, tries all of its transactions in a row, and
hands back an order; `carry_out` sends it. Amounts are base units: USDC 10^-6, collateral 10^-18.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from freehold.chain.abi import Abi, Contract, from_hex, read_log
from freehold.chain.contracts import ERC20
from freehold.chain.defi import credit
from freehold.chain.defi.credit import Book, Health
from freehold.chain.defi.model import Defi, Market
from freehold.chain.defi.problems import BeyondCredit
from freehold.chain.model import Deployment
from freehold.chain.problems import NotEnough
from freehold.chain.rpc import Rpc
from freehold.chain.steps import Step, approval, rehearse, send_all
from freehold.chain.verbs import Done, address_of, done, reads, said
from freehold.chain.wallet import Wallet, read
from freehold.money import DIEM_DECIMALS, USDC_DECIMALS, format_units
from freehold.problems import NotFound

REPAYING_S = 900
"""A debt repaid in whole grows until it is: so much interest more is approved, and what isn't taken is taken back."""
DUST = 100
"""Base units of USDC by which what may still be borrowed is said lower: the debt grows in the seconds until it is mined."""

_PARAMETERS = {
    "name": "marketParams",
    "type": "tuple",
    "components": [
        {"name": name, "type": kind}
        for name, kind in (
            ("loanToken", "address"),
            ("collateralToken", "address"),
            ("oracle", "address"),
            ("irm", "address"),
            ("lltv", "uint256"),
        )
    ],
}
_TOTALS = (
    "totalSupplyAssets",
    "totalSupplyShares",
    "totalBorrowAssets",
    "totalBorrowShares",
    "lastUpdate",
    "fee",
)


def _function(name: str, inputs: Sequence[tuple[str, str]], outputs: Sequence[str], *, market: bool = True) -> Any:
    return {
        "type": "function",
        "name": name,
        "inputs": [*([_PARAMETERS] if market else []), *({"name": each, "type": kind} for each, kind in inputs)],
        "outputs": [{"name": "", "type": kind} for kind in outputs],
    }


def _event(name: str, who: Mapping[str, int], amounts: Sequence[str]) -> Any:
    """`who`: the id and addresses, and whether each is indexed."""
    fields = [
        {"name": each, "type": "bytes32" if each == "id" else "address", "indexed": bool(indexed)}
        for each, indexed in who.items()
    ]
    fields += [{"name": each, "type": "uint256", "indexed": False} for each in amounts]
    return {"type": "event", "name": name, "inputs": fields}


_BY_AMOUNT = [("assets", "uint256"), ("shares", "uint256"), ("onBehalf", "address")]
_BOTH = ["uint256", "uint256"]
ABI: Abi = [
    _function("supply", [*_BY_AMOUNT, ("data", "bytes")], _BOTH),
    _function("withdraw", [*_BY_AMOUNT, ("receiver", "address")], _BOTH),
    _function("borrow", [*_BY_AMOUNT, ("receiver", "address")], _BOTH),
    _function("repay", [*_BY_AMOUNT, ("data", "bytes")], _BOTH),
    _function("supplyCollateral", [("assets", "uint256"), ("onBehalf", "address"), ("data", "bytes")], []),
    _function("withdrawCollateral", [("assets", "uint256"), ("onBehalf", "address"), ("receiver", "address")], []),
    _function(
        "liquidate",
        [("borrower", "address"), ("seizedAssets", "uint256"), ("repaidShares", "uint256"), ("data", "bytes")],
        _BOTH,
    ),
    _function("position", [("id", "bytes32"), ("user", "address")], ["uint256", "uint128", "uint128"], market=False),
    _function("market", [("id", "bytes32")], ["uint128"] * 6, market=False),
    _event("Withdraw", {"id": 1, "caller": 0, "onBehalf": 1, "receiver": 1}, ("assets", "shares")),
    _event("Borrow", {"id": 1, "caller": 0, "onBehalf": 1, "receiver": 1}, ("assets", "shares")),
    _event("Repay", {"id": 1, "caller": 1, "onBehalf": 1}, ("assets", "shares")),
    _event(
        "Liquidate",
        {"id": 1, "caller": 1, "borrower": 1},
        ("repaidAssets", "repaidShares", "seizedAssets", "badDebtAssets", "badDebtShares"),
    ),
]
"""What is used of Morpho Blue, whose own ABI isn't shipped."""
_RATE_MODEL: Abi = [
    {
        "type": "function",
        "name": "borrowRateView",
        "inputs": [
            _PARAMETERS,
            {
                "name": "market",
                "type": "tuple",
                "components": [{"name": name, "type": "uint128"} for name in _TOTALS],
            },
        ],
        "outputs": [{"name": "", "type": "uint256"}],
    }
]
_ORACLE: Abi = [
    {"type": "function", "name": "price", "inputs": [], "outputs": [{"name": "", "type": "uint256"}]},
]


@dataclass(frozen=True, slots=True)
class Account:
    """What one address has in one market, with the interest until `at_s`."""

    owner: str
    symbol: str
    """The collateral's: DIEM, pDIEM-2027-01."""
    at_s: int
    supplied: int
    """USDC lent, with what it has earned."""
    supply_shares: int
    debt_shares: int
    health: Health
    book: Book

    @property
    def empty(self) -> bool:
        return not (self.supplied or self.debt_shares or self.health.collateral)


@dataclass(frozen=True, slots=True)
class Order:
    """What is about to be done in a market: its transactions, tried and not sent yet, and what will stand after them."""

    account: Account
    steps: tuple[Step, ...]
    supplied: int = 0
    """USDC that moves, by what is done with it; collateral in its own base units."""
    withdrawn: int = 0
    borrowed: int = 0
    repaid: int = 0
    pledged: int = 0
    released: int = 0
    seized: int = 0
    unpaid: int = 0
    after: Health | None = None
    """The borrower's, where it changes."""
    take_back: tuple[Contract, Contract] | None = None
    """A token, and who was allowed more of it than was taken."""


@dataclass(frozen=True, slots=True)
class Lent(Done):
    """An order that was carried out: what moved, and what stands now."""

    market: str
    supplied: int
    withdrawn: int
    borrowed: int
    repaid: int
    pledged: int
    released: int
    seized: int
    unpaid: int
    """Debt that no collateral was left for."""
    account: Account


def morpho(defi: Defi) -> Contract:
    return Contract(ABI, address=defi.morpho, name="Morpho Blue")


def market_of(defi: Defi, symbol: str) -> tuple[str, Market]:
    """The market whose collateral is called so, in any case. Raises NotFound, naming those that there are."""
    for name, market in defi.markets.items():
        if name.lower() == symbol.lower():
            return name, market
    raise NotFound(reason=f"There is no market against {symbol!r}; there are {', '.join(defi.markets)}.")


async def account_of(rpc: Rpc, defi: Defi, symbol: str, owner: str, *, at: str | None = None) -> Account:
    """What `owner` has in a market, at the newest block or at block `at`. Raises Reverted when its price can't be told."""
    name, market = market_of(defi, symbol)
    block = await rpc.call("eth_getBlockByNumber", at or "latest", False)
    number, now_s = block["number"], int(block["timestamp"], 16)
    contract, key = morpho(defi), from_hex(market.id)
    totals, position = await reads(
        rpc, number, [(contract, "market", (key,)), (contract, "position", (key, address_of(owner)))]
    )
    model = Contract(_RATE_MODEL, address=market.rate_model, name="the rate model")
    rate = await read(rpc, model, "borrowRateView", market.parameters, totals, at=number)
    oracle = Contract(_ORACLE, address=market.oracle, name="the price oracle")
    price = await read(rpc, oracle, "price", what=f"Reading the price of {name}", at=number)
    book = replace(Book(*totals), rate=rate).at(now_s)
    supply_shares, debt_shares, collateral = position
    return Account(
        owner=address_of(owner),
        symbol=name,
        at_s=now_s,
        supplied=book.supplied_down(supply_shares),
        supply_shares=supply_shares,
        debt_shares=debt_shares,
        health=Health(collateral, book.debt_up(debt_shares), price, market.lltv),
        book=book,
    )


async def accounts_of(rpc: Rpc, defi: Defi, owner: str, *, at: str | None = None) -> list[Account]:
    """What `owner` has in each market, those with nothing included."""
    return [await account_of(rpc, defi, symbol, owner, at=at) for symbol in defi.markets]


async def borrowers(rpc: Rpc, deployment: Deployment, defi: Defi, symbol: str) -> list[Account]:
    """Everybody who owes something in a market, the nearest to liquidation first."""
    _, market = market_of(defi, symbol)
    contract = morpho(defi)
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    query = {
        "address": contract.address,
        "topics": [contract.topic("Borrow"), market.id],
        "fromBlock": hex(deployment.from_block),
        "toBlock": block["number"],
    }
    logs = [contract.event(read_log(raw)) for raw in await rpc.call("eth_getLogs", query)]
    owners = dict.fromkeys(told["onBehalf"] for _, told in filter(None, logs))
    found = [await account_of(rpc, defi, symbol, owner, at=block["number"]) for owner in owners]
    owing = [each for each in found if each.debt_shares]
    return sorted(owing, key=lambda each: -(each.health.ltv if each.health.ltv is not None else 10**9))


# --- verbs ------------------------------------------------------------------------------------------------------------


async def supply(wallet: Wallet, defi: Defi, symbol: str, amount: int) -> Order:
    """Lend USDC against a collateral's market. Raises NotEnough, NotFound, Reverted."""
    account, market, contract = await _begin(wallet, defi, symbol)
    await _need(wallet, market.loan, "USDC", amount)
    what = f"Lending {usdc(amount)}"
    steps = [
        *await approval(wallet, _token(market.loan, "USDC"), contract, amount, symbol="USDC"),
        Step(contract, "supply", (market.parameters, amount, 0, wallet.address, b""), what),
    ]
    await rehearse(wallet, steps)
    return Order(account, tuple(steps), supplied=amount)


async def withdraw(wallet: Wallet, defi: Defi, symbol: str, amount: int | None) -> Order:
    """Take lent USDC back, with its interest; None: all of it. Raises NotFound, BeyondCredit, Reverted."""
    account, market, contract = await _begin(wallet, defi, symbol)
    if not account.supply_shares:
        raise NotFound(reason=f"{wallet.name} has lent nothing in the market against {account.symbol}.")
    wanted = account.supplied if amount is None else amount
    if wanted > account.supplied:
        raise BeyondCredit(
            reason=f"{wallet.name} has {usdc(account.supplied)} in this market and asks for {usdc(wanted)}."
        )
    if wanted > account.book.liquid:
        raise BeyondCredit(
            reason=f"The market has lent out all but {usdc(account.book.liquid)}, and {usdc(wanted)} are asked for: "
            "take that much now, and the rest when borrowers have repaid."
        )
    by = (0, account.supply_shares) if amount is None else (amount, 0)
    steps = [
        Step(
            contract,
            "withdraw",
            (market.parameters, *by, wallet.address, wallet.address),
            f"Withdrawing {usdc(wanted)}",
        )
    ]
    await rehearse(wallet, steps)
    return Order(account, tuple(steps), withdrawn=wanted)


async def borrow(wallet: Wallet, defi: Defi, symbol: str, amount: int, *, collateral: int = 0) -> Order:
    """Pledge `collateral` more, if any, and borrow USDC, if any.

    Raises BeyondCredit over the LLTV, with what would be allowed; NotEnough, NotFound, Reverted.
    """
    account, market, contract = await _begin(wallet, defi, symbol)
    name = account.symbol
    steps: list[Step] = []
    if collateral:
        await _need(wallet, market.collateral, name, collateral)
        steps += await approval(wallet, _token(market.collateral, name), contract, collateral, symbol=name)
        pledge = (market.parameters, collateral, wallet.address, b"")
        steps.append(Step(contract, "supplyCollateral", pledge, f"Pledging {token(collateral, name)}"))
    pledged = replace(account.health, collateral=account.health.collateral + collateral)
    after = replace(pledged, debt=pledged.debt + amount)
    if amount:
        _within(wallet, account, pledged, amount)
        order = (market.parameters, amount, 0, wallet.address, wallet.address)
        steps.append(Step(contract, "borrow", order, f"Borrowing {usdc(amount)}"))
    await rehearse(wallet, steps)
    return Order(account, tuple(steps), borrowed=amount, pledged=collateral, after=after)


async def repay(wallet: Wallet, defi: Defi, symbol: str, amount: int | None, *, collateral: int | None = 0) -> Order:
    """Repay so much USDC (None: all of the debt; 0: nothing), then take out collateral (None: all of it).

    Raises BeyondCredit when what is left owed needs the collateral, with what could be taken; NotEnough, NotFound,
    Reverted.
    """
    account, market, contract = await _begin(wallet, defi, symbol)
    name, health = account.symbol, account.health
    if amount != 0 and not account.debt_shares:
        raise NotFound(reason=f"{wallet.name} owes nothing in the market against {name}.")
    whole = amount is None or amount >= health.debt
    repaid = health.debt if whole else amount or 0
    steps: list[Step] = []
    extra = None
    if repaid:
        await _need(wallet, market.loan, "USDC", repaid)
        loan = _token(market.loan, "USDC")
        grown = account.book.at(account.at_s + REPAYING_S).debt_up(account.debt_shares) if whole else repaid
        approving = await approval(wallet, loan, contract, grown, symbol="USDC")
        extra = (loan, contract) if approving and whole else None
        by = (0, account.debt_shares) if whole else (repaid, 0)
        steps += [
            *approving,
            Step(contract, "repay", (market.parameters, *by, wallet.address, b""), f"Repaying {usdc(repaid)}"),
        ]
    left = replace(health, debt=health.debt - repaid)
    released = health.collateral if collateral is None else collateral
    if released or collateral is None:
        _releasable(wallet, name, left, released)
        order = (market.parameters, released, wallet.address, wallet.address)
        steps.append(Step(contract, "withdrawCollateral", order, f"Taking out {token(released, name)}"))
    after = replace(left, collateral=left.collateral - released)
    await rehearse(wallet, steps)
    return Order(account, tuple(steps), repaid=repaid, released=released, after=after, take_back=extra)


async def liquidate(wallet: Wallet, defi: Defi, symbol: str, borrower: str, amount: int | None = None) -> Order:
    """Repay another's debt that is over its limit, at most `amount` of it (None: all), for collateral worth more.

    Raises BeyondCredit while the debt is within its limit, saying at which price it no longer is; NotEnough, Reverted.
    """
    name, market = market_of(defi, symbol)
    contract = morpho(defi)
    account = await account_of(wallet.rpc, defi, name, borrower)
    health = account.health
    if not account.debt_shares:
        raise NotFound(reason=f"{account.owner} owes nothing in the market against {name}.")
    if health.healthy:
        raise BeyondCredit(
            reason=f"{account.owner} owes {usdc(health.debt)} and may owe {usdc(health.most)}: it can be liquidated when "
            f"{name} is below {price(health.liquidation_price or 0)}, and it is at {price(health.price)}."
        )
    found = credit.liquidation(account.book, health, account.debt_shares, most=amount)
    if not (found.shares or found.seized):
        raise BeyondCredit(reason=f"{usdc(amount or 0)} are too little to repay anything.")
    await _need(wallet, market.loan, "USDC", found.repaid)
    loan = _token(market.loan, "USDC")
    # By shares it grows with the interest, by collateral it moves with the price: a little more is approved, then taken back.
    grown = (
        account.book.at(account.at_s + REPAYING_S).debt_up(found.shares) if found.shares else found.repaid * 101 // 100
    )
    by = (0, found.shares) if found.shares else (found.seized, 0)
    approving = await approval(wallet, loan, contract, grown, symbol="USDC")
    steps = [
        *approving,
        Step(contract, "liquidate", (market.parameters, account.owner, *by, b""), f"Liquidating {account.owner}"),
    ]
    await rehearse(wallet, steps)
    after = replace(health, collateral=health.collateral - found.seized, debt=max(0, health.debt - found.repaid))
    return Order(
        account,
        tuple(steps),
        repaid=found.repaid,
        seized=found.seized,
        unpaid=found.unpaid,
        after=after,
        take_back=(loan, contract) if approving else None,
    )


async def carry_out(wallet: Wallet, defi: Defi, order: Order) -> Lent:
    """Send an order's transactions, and say what moved. Raises Reverted, NotMined, NodeUnavailable."""
    receipts = await send_all(wallet, order.steps)
    contract = morpho(defi)
    told = {step.function: receipt for step, receipt in zip(order.steps, receipts, strict=True)}
    if order.take_back:
        loan, spender = order.take_back
        if await wallet.read(loan, "allowance", wallet.address, spender.address):
            await send_all(
                wallet, [Step(loan, "approve", (spender.address, 0), "Taking back the rest of the approval")]
            )
    withdrawn = said(told["withdraw"], contract, "Withdraw")["assets"] if "withdraw" in told else 0
    repaid = said(told["repay"], contract, "Repay")["assets"] if "repay" in told else 0
    seized = unpaid = 0
    if "liquidate" in told:
        event = said(told["liquidate"], contract, "Liquidate")
        repaid, seized, unpaid = event["repaidAssets"], event["seizedAssets"], event["badDebtAssets"]
    return Lent(
        *done(receipts[-1]),
        market=order.account.symbol,
        supplied=order.supplied,
        withdrawn=withdrawn,
        borrowed=order.borrowed,
        repaid=repaid,
        pledged=order.pledged,
        released=order.released,
        seized=seized,
        unpaid=unpaid,
        account=await account_of(wallet.rpc, defi, order.account.symbol, order.account.owner),
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def usdc(units: int) -> str:
    return f"{format_units(units, decimals=USDC_DECIMALS)} USDC"


def token(units: int, symbol: str) -> str:
    return f"{format_units(units, decimals=DIEM_DECIMALS)} {symbol}"


def price(of: int) -> str:
    """An oracle's price of a whole token, in USD with six places, rounded down."""
    return f"{format_units(of // 10**18, decimals=USDC_DECIMALS)} USD"


async def _begin(wallet: Wallet, defi: Defi, symbol: str) -> tuple[Account, Market, Contract]:
    name, market = market_of(defi, symbol)
    return await account_of(wallet.rpc, defi, name, wallet.address), market, morpho(defi)


def _token(address: str, symbol: str) -> Contract:
    return Contract(ERC20, address=address, name=symbol)


async def _need(wallet: Wallet, address: str, symbol: str, amount: int) -> None:
    has = await wallet.read(_token(address, symbol), "balanceOf", wallet.address)
    if has < amount:
        write = usdc if symbol == "USDC" else lambda units: token(units, symbol)
        raise NotEnough(name=wallet.name, has=write(has), needs=write(amount), mend="Name less, or get more first.")


def _within(wallet: Wallet, account: Account, health: Health, amount: int) -> None:
    """Raises BeyondCredit when borrowing `amount` more would be over the LLTV, or more than there is."""
    allowed = max(0, min(health.spare, account.book.liquid) - DUST)
    if amount <= health.spare and amount <= account.book.liquid:
        return
    if amount > health.spare:
        raise BeyondCredit(
            reason=f"{wallet.name} asks for {usdc(amount)}, and may borrow {usdc(allowed)} more: "
            f"{token(health.collateral, account.symbol)} at {price(health.price)} are worth {usdc(health.worth)}, "
            f"of which {percent(health.lltv)} may be owed, and {usdc(health.debt) if health.debt else 'nothing'} is. "
            "Borrow less, or pledge more with --collateral."
        )
    raise BeyondCredit(reason=f"The market has {usdc(allowed)} left to lend, and {usdc(amount)} are asked for.")


def _releasable(wallet: Wallet, symbol: str, health: Health, amount: int) -> None:
    if amount > health.collateral or not health.collateral:
        raise BeyondCredit(
            reason=f"{wallet.name} has pledged {token(health.collateral, symbol)} and asks for {token(amount, symbol)}."
        )
    if amount > health.free_collateral:
        raise BeyondCredit(
            reason=f"{wallet.name} asks for {token(amount, symbol)} of its collateral, and {usdc(health.debt)} would still be "
            f"owed: {token(health.free_collateral, symbol)} can be taken out. Take less, or repay more."
        )


def percent(wad: int) -> str:
    return f"{format_units(wad * 100, decimals=18)} %"
