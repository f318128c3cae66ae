"""What a wallet does with dated capacity: split DIEM into strips, merge, redeem, activate, redirect, send.

Amounts are base units (10^-18). Months are `clock.Month`; the contracts count them from January 1970.
"""

from dataclasses import dataclass

from freehold.chain.abi import Contract, template
from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.verbs import Done, address_of, approve, done, need, own_events, place, reads, said, shown
from freehold.chain.wallet import Wallet
from freehold.clock import Day, Month

_FIRST = 1970 * 12
"""`Month.number` of January 1970."""


@dataclass(frozen=True, slots=True)
class Split(Done):
    amount: int
    first: Month
    last: Month
    """Strips of the months from `first` to `last`, and the principal of `last`, went to `to`."""
    to: str


@dataclass(frozen=True, slots=True)
class Merged(Done):
    amount: int
    last: Month
    to: str


@dataclass(frozen=True, slots=True)
class Redeemed(Done):
    amount: int
    month: Month
    to: str


@dataclass(frozen=True, slots=True)
class Activated(Done):
    amount: int
    month: Month
    operator: str
    beneficiary: str
    day: int
    """The first day that they grant something on."""
    today: int
    """The beneficiary's allowance by strips on that day."""
    onward: int
    """And on each later day of the month."""


@dataclass(frozen=True, slots=True)
class StripsRedirected(Done):
    amount: int
    month: Month
    new_operator: str
    new_beneficiary: str
    effective_at_s: int


@dataclass(frozen=True, slots=True)
class SeriesSent(Done):
    symbol: str
    amount: int
    to: str


@dataclass(frozen=True, slots=True)
class Series:
    """One month's tokens, and what a wallet has of them."""

    month: Month
    strip_token: str
    principal_token: str
    strips: int
    principal: int


@dataclass(frozen=True, slots=True)
class Activation:
    """Strips of a month that a wallet has activated for somebody."""

    month: Month
    operator: str
    beneficiary: str
    amount: int


@dataclass(frozen=True, slots=True)
class Dated:
    """All dated capacity of a wallet."""

    address: str
    chain_time_s: int
    series: tuple[Series, ...]
    """Months of which it has something."""
    activated: tuple[Activation, ...]


def number_of(month: Month) -> int:
    """Months since January 1970, as the contracts count."""
    return month.number - _FIRST


def month_of(number: int) -> Month:
    return Month(number + _FIRST)


async def split(wallet: Wallet, deployment: Deployment, last: Month, amount: int, *, to: str | None = None) -> Split:
    """Split DIEM into the strips of every month from the running one to `last`, and the principal of `last`.

    Raises NotEnough, Reverted.
    """
    contracts = Contracts.of(deployment)
    mend = "Staked DIEM comes back with `freehold unstake diem`."
    await need(wallet, contracts.diem, "DIEM", amount, mend)
    await approve(wallet, contracts.diem, contracts.strips, amount)
    whose = address_of(to) if to else wallet.address
    what = f"Splitting {shown(amount, 'DIEM')}"
    receipt = await wallet.send(contracts.strips, "split", number_of(last), amount, whose, what=what)
    return Split(*done(receipt), amount=amount, first=Month.of(receipt.at_s), last=last, to=whose)


async def merge(wallet: Wallet, deployment: Deployment, last: Month, amount: int, *, to: str | None = None) -> Merged:
    """Undo a split: the strips of every month from this one to `last`, and its principal, become DIEM. Raises Reverted."""
    contracts = Contracts.of(deployment)
    whose = address_of(to) if to else wallet.address
    what = f"Merging {shown(amount, 'DIEM')}"
    receipt = await wallet.send(contracts.strips, "merge", number_of(last), amount, whose, what=what)
    return Merged(*done(receipt), amount=amount, last=last, to=whose)


async def redeem(
    wallet: Wallet, deployment: Deployment, month: Month, amount: int, *, to: str | None = None
) -> Redeemed:
    """Turn the principal of a month that is over into DIEM, one to one. Raises Reverted."""
    contracts = Contracts.of(deployment)
    whose = address_of(to) if to else wallet.address
    what = f"Redeeming {shown(amount, 'DIEM')}"
    receipt = await wallet.send(contracts.strips, "redeem", number_of(month), amount, whose, what=what)
    return Redeemed(*done(receipt), amount=amount, month=month, to=whose)


async def activate(
    wallet: Wallet,
    deployment: Deployment,
    month: Month,
    amount: int,
    *,
    beneficiary: str | None = None,
    operator: str | None = None,
) -> Activated:
    """Burn strips of a month for its daily allowance at an operator (the deployment's). Raises Reverted."""
    contracts = Contracts.of(deployment)
    at, whose = place(wallet, deployment, operator, beneficiary)
    what = f"Activating {shown(amount, 'DIEM').removesuffix(' DIEM')} strips of {month}"
    receipt = await wallet.send(contracts.strips, "activate", number_of(month), amount, at, whose, what=what)
    told = said(receipt, contracts.strips, "AllowanceChanged")
    return Activated(
        *done(receipt),
        amount=amount,
        month=month,
        operator=at,
        beneficiary=whose,
        day=told["day"],
        today=told["today"],
        onward=told["onward"],
    )


async def redirect_activated(
    wallet: Wallet,
    deployment: Deployment,
    month: Month,
    amount: int,
    *,
    beneficiary: str | None = None,
    operator: str | None = None,
    new_beneficiary: str | None = None,
    new_operator: str | None = None,
) -> StripsRedirected:
    """Move activated strips to another beneficiary or operator, from the next 00:00 or the month's first on. Raises Reverted."""
    contracts = Contracts.of(deployment)
    at, whose = place(wallet, deployment, operator, beneficiary)
    to_operator = address_of(new_operator) if new_operator else at
    to_whom = address_of(new_beneficiary) if new_beneficiary else whose
    what = f"Redirecting activated strips of {month}"
    places = (at, whose, to_operator, to_whom)
    receipt = await wallet.send(contracts.strips, "redirectActivated", number_of(month), amount, *places, what=what)
    return StripsRedirected(
        *done(receipt),
        amount=amount,
        month=month,
        new_operator=to_operator,
        new_beneficiary=to_whom,
        effective_at_s=max(Day.of(receipt.at_s).end_s, month.start_s),
    )


async def send(
    wallet: Wallet, deployment: Deployment, month: Month, amount: int, to: str, *, principal: bool = False
) -> SeriesSent:
    """Send strips, or principal, of a month. Raises Reverted."""
    contracts = Contracts.of(deployment)
    tokens = await wallet.read(contracts.strips, "seriesOf", number_of(month))
    token = template("Strip").at(tokens[1 if principal else 0])
    symbol = f"{'p' if principal else ''}DIEM-{month}"
    whom = address_of(to)
    receipt = await wallet.send(token, "transfer", whom, amount, what=f"Sending {symbol}")
    return SeriesSent(*done(receipt), symbol=symbol, amount=amount, to=whom)


async def dated(rpc: Rpc, deployment: Deployment, address: str) -> Dated:
    """Strips, principals and activations of `address`: of the running month, all that are older and 35 coming ones."""
    contracts = Contracts.of(deployment)
    owner = address_of(address)
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    at = block["number"]
    created = await own_events(rpc, contracts.strips, ("SeriesCreated",), None, deployment.from_block, at, owner)
    months = sorted({event["month"] for _, event in created})
    places = await reads(rpc, at, [(contracts.strips, "seriesOf", (month,)) for month in months])
    balances = await _balances(rpc, at, [token for pair in places for token in pair], owner)
    series = [
        Series(month_of(month), pair[0], pair[1], balances[pair[0]], balances[pair[1]])
        for month, pair in zip(months, places, strict=True)
    ]
    return Dated(
        address=owner,
        chain_time_s=int(block["timestamp"], 16),
        series=tuple(each for each in series if each.strips or each.principal),
        activated=tuple(await _activated(rpc, contracts.strips, deployment.from_block, at, owner)),
    )


async def _balances(rpc: Rpc, at: str, tokens: list[str], owner: str) -> dict[str, int]:
    """Balances of series' tokens; one that nobody has created yet has none."""
    codes = await rpc.batch([("eth_getCode", [token, at]) for token in tokens])
    there = [token for token, code in zip(tokens, codes, strict=True) if code not in ("0x", None)]
    found = await reads(rpc, at, [(template("Strip").at(token), "balanceOf", (owner,)) for token in there])
    return dict.fromkeys(tokens, 0) | dict(zip(there, found, strict=True))


async def _activated(rpc: Rpc, strips: Contract, first: int, at: str, owner: str) -> list[Activation]:
    """What `owner` has activated and not redirected away, of months that aren't over as far as it matters."""
    places: dict[tuple[int, str, str], None] = {}
    for name, told in await own_events(rpc, strips, ("Activated", "ActivatedRedirected"), 0, first, at, owner):
        operator, beneficiary = (
            ("operator", "beneficiary") if name == "Activated" else ("newOperator", "newBeneficiary")
        )
        places[told["month"], told[operator], told[beneficiary]] = None
    amounts = await reads(rpc, at, [(strips, "positionOf", (owner, *where)) for where in places])
    return [
        Activation(month_of(month), operator, beneficiary, amount)
        for (month, operator, beneficiary), amount in zip(places, amounts, strict=True)
        if amount
    ]
