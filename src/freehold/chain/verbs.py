"""What a wallet does on the chain: each verb checks, sends, waits, and returns what came of it, or refuses in words.

Amounts are base units (HOLD, sHOLD and DIEM 10^-18, USDC 10^-6), times unix seconds of block time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from freehold.chain.abi import Contract, from_hex, read_log
from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.problems import NotEnough
from freehold.chain.rpc import Rpc
from freehold.chain.wallet import DevWallet, Receipt, Wallet
from freehold.clock import Day
from freehold.money import DIEM_DECIMALS, HOLD_DECIMALS, USDC_DECIMALS, format_units
from freehold.problems import InvalidRequest

DECIMALS: Mapping[str, int] = {
    "HOLD": HOLD_DECIMALS,
    "sHOLD": HOLD_DECIMALS,
    "DIEM": DIEM_DECIMALS,
    "USDC": USDC_DECIMALS,
}


@dataclass(frozen=True, slots=True)
class Done:
    """A verb's transaction: where and when it was mined."""

    tx_hash: str
    block_number: int
    at_s: int


@dataclass(frozen=True, slots=True)
class HoldStaked(Done):
    amount: int
    staked: int
    """All sHOLD of the wallet now."""


@dataclass(frozen=True, slots=True)
class Minted(Done):
    diem_out: int
    cost: int
    """sHOLD locked for it."""
    locked: int
    outstanding: int


@dataclass(frozen=True, slots=True)
class Burned(Done):
    diem_in: int
    unlocked: int
    """sHOLD that came free."""
    locked: int
    outstanding: int


@dataclass(frozen=True, slots=True)
class DiemStaked(Done):
    amount: int
    operator: str
    beneficiary: str
    day: int
    today: int
    """The beneficiary's allowance of that day now, DIEM base units."""
    onward: int
    """And of each later day."""


@dataclass(frozen=True, slots=True)
class UnstakeRequested(Done):
    token: str
    id: int
    amount: int
    ready_at_s: int


@dataclass(frozen=True, slots=True)
class UnstakeCancelled(Done):
    token: str
    id: int
    amount: int


@dataclass(frozen=True, slots=True)
class Withdrawn(Done):
    token: str
    id: int
    amount: int


@dataclass(frozen=True, slots=True)
class Redirected(Done):
    amount: int
    operator: str
    beneficiary: str
    new_operator: str
    new_beneficiary: str
    effective_at_s: int
    """The next 00:00 UTC."""


@dataclass(frozen=True, slots=True)
class DepositMade(Done):
    amount: int
    beneficiary: str


@dataclass(frozen=True, slots=True)
class Transferred(Done):
    token: str
    to: str
    amount: int


@dataclass(frozen=True, slots=True)
class Stake:
    operator: str
    beneficiary: str
    amount: int


@dataclass(frozen=True, slots=True)
class Request:
    """Something on its way out of a stake."""

    token: str
    id: int
    amount: int
    ready_at_s: int


@dataclass(frozen=True, slots=True)
class Positions:
    """Everything a wallet has in these contracts."""

    address: str
    chain_time_s: int
    hold: int
    staked_hold: int
    locked_hold: int
    outstanding_diem: int
    """Minted and not burned yet."""
    diem: int
    usdc: int
    stakes: tuple[Stake, ...]
    requests: tuple[Request, ...]


async def stake_hold(
    wallet: Wallet, deployment: Deployment, amount: int, *, recipient: str | None = None
) -> HoldStaked:
    """Stake HOLD. Raises NotEnough, Reverted."""
    contracts = Contracts.of(deployment)
    await need(wallet, contracts.hold, "HOLD", amount, _funded(wallet))
    await approve(wallet, contracts.hold, contracts.staking, amount)
    to = address_of(recipient) if recipient else wallet.address
    receipt = await wallet.send(contracts.staking, "stake", to, amount, what=f"Staking {shown(amount, 'HOLD')}")
    told = said(receipt, contracts.staking, "Staked")
    return HoldStaked(*done(receipt), amount=told["amount"], staked=told["balance"])


async def unstake_hold(wallet: Wallet, deployment: Deployment, amount: int) -> UnstakeRequested:
    """Ask for unlocked sHOLD back, as HOLD, 7 days later. Raises NotEnough, Reverted."""
    contracts = Contracts.of(deployment)
    await _need_unlocked(
        wallet,
        contracts.staking,
        amount,
        needs=shown(amount, "sHOLD"),
        mend="Burning DIEM unlocks more: `freehold burn`.",
    )
    what = f"Unstaking {shown(amount, 'HOLD')}"
    receipt = await wallet.send(contracts.staking, "requestUnstake", amount, what=what)
    return _requested(receipt, contracts.staking, "HOLD")


async def mint(wallet: Wallet, deployment: Deployment, diem_out: int, *, max_lock: int | None = None) -> Minted:
    """Mint exactly `diem_out`, locking at most `max_lock` sHOLD (1 % over the quote when None). Raises NotEnough, Reverted."""
    staking = Contracts.of(deployment).staking
    what = f"Minting {shown(diem_out, 'DIEM')}"
    quote = await wallet.read(staking, "quoteLock", diem_out, what=what)
    await _need_unlocked(
        wallet,
        staking,
        quote,
        needs=f"{shown(quote, 'sHOLD')} for {shown(diem_out, 'DIEM')}",
        mend=f"Stake more with `freehold stake hold AMOUNT {wallet.option}`.",
    )
    most = quote + quote // 100 if max_lock is None else max_lock
    receipt = await wallet.send(staking, "mintExact", diem_out, most, what=what)
    return _minted(receipt, staking)


async def mint_by_lock(wallet: Wallet, deployment: Deployment, amount_to_lock: int, *, least_out: int = 0) -> Minted:
    """Mint what locking `amount_to_lock` sHOLD pays for, at least `least_out` DIEM. Raises Reverted."""
    staking = Contracts.of(deployment).staking
    what = f"Minting DIEM for {shown(amount_to_lock, 'sHOLD')}"
    return _minted(await wallet.send(staking, "mint", amount_to_lock, least_out, what=what), staking)


async def burn(wallet: Wallet, deployment: Deployment, diem: int, *, least_unlocked: int = 0) -> Burned:
    """Burn DIEM, unlocking sHOLD of the wallet's own position, pro rata. Raises NotEnough, Reverted."""
    contracts = Contracts.of(deployment)
    await need(wallet, contracts.diem, "DIEM", diem, "Staked DIEM comes back with `freehold unstake diem`.")
    what = f"Burning {shown(diem, 'DIEM')}"
    receipt = await wallet.send(contracts.staking, "burn", diem, least_unlocked, what=what)
    told = said(receipt, contracts.staking, "Burned")
    return Burned(
        *done(receipt),
        diem_in=told["diemIn"],
        unlocked=told["unlocked"],
        locked=told["locked"],
        outstanding=told["outstanding"],
    )


async def stake_diem(
    wallet: Wallet,
    deployment: Deployment,
    amount: int,
    *,
    beneficiary: str | None = None,
    operator: str | None = None,
) -> DiemStaked:
    """Stake DIEM for a beneficiary (the wallet) at an operator (the deployment's). Raises NotEnough, Reverted."""
    contracts = Contracts.of(deployment)
    mend = f"Mint more with `freehold mint AMOUNT {wallet.option}`."
    await need(wallet, contracts.diem, "DIEM", amount, mend)
    await approve(wallet, contracts.diem, contracts.vault, amount)
    at, whose = place(wallet, deployment, operator, beneficiary)
    what = f"Staking {shown(amount, 'DIEM')}"
    receipt = await wallet.send(contracts.vault, "stake", amount, at, whose, what=what)
    told = said(receipt, contracts.vault, "AllowanceChanged")
    return DiemStaked(
        *done(receipt),
        amount=amount,
        operator=at,
        beneficiary=whose,
        day=told["day"],
        today=told["today"],
        onward=told["onward"],
    )


async def unstake_diem(
    wallet: Wallet,
    deployment: Deployment,
    amount: int,
    *,
    beneficiary: str | None = None,
    operator: str | None = None,
) -> UnstakeRequested:
    """Ask for staked DIEM back, 24 hours later: today's allowance stays, there is none from tomorrow. Raises Reverted."""
    vault = Contracts.of(deployment).vault
    at, whose = place(wallet, deployment, operator, beneficiary)
    what = f"Unstaking {shown(amount, 'DIEM')}"
    receipt = await wallet.send(vault, "requestUnstake", at, whose, amount, what=what)
    return _requested(receipt, vault, "DIEM")


async def cancel(wallet: Wallet, deployment: Deployment, token: str, request_id: int) -> UnstakeCancelled:
    """Cancel a request to unstake HOLD or DIEM. Raises Reverted."""
    contract = _staked_in(deployment, token)
    what = f"Cancelling request {request_id}"
    receipt = await wallet.send(contract, "cancelUnstake", request_id, what=what)
    told = said(receipt, contract, "UnstakeCancelled")
    return UnstakeCancelled(*done(receipt), token=token, id=request_id, amount=told["amount"])


async def withdraw(wallet: Wallet, deployment: Deployment, token: str, request_id: int) -> Withdrawn:
    """Take out a request to unstake HOLD or DIEM that has cooled. Raises Reverted."""
    contract = _staked_in(deployment, token)
    what = f"Withdrawing request {request_id}"
    receipt = await wallet.send(contract, "withdraw", request_id, what=what)
    told = said(receipt, contract, "Withdrawn")
    return Withdrawn(*done(receipt), token=token, id=request_id, amount=told["amount"])


async def redirect(
    wallet: Wallet,
    deployment: Deployment,
    amount: int,
    *,
    beneficiary: str | None = None,
    operator: str | None = None,
    new_beneficiary: str | None = None,
    new_operator: str | None = None,
) -> Redirected:
    """Move staked DIEM to another beneficiary or operator, from the next 00:00 on; what isn't given stays. Raises Reverted."""
    vault = Contracts.of(deployment).vault
    at, whose = place(wallet, deployment, operator, beneficiary)
    to_operator = address_of(new_operator) if new_operator else at
    to_whom = address_of(new_beneficiary) if new_beneficiary else whose
    what = f"Redirecting {shown(amount, 'DIEM')}"
    receipt = await wallet.send(vault, "redirect", at, whose, to_operator, to_whom, amount, what=what)
    return Redirected(
        *done(receipt),
        amount=amount,
        operator=at,
        beneficiary=whose,
        new_operator=to_operator,
        new_beneficiary=to_whom,
        effective_at_s=Day.of(receipt.at_s).end_s,
    )


async def deposit(
    wallet: Wallet, deployment: Deployment, amount: int, *, beneficiary: str | None = None
) -> DepositMade:
    """Pay USDC for prepaid credit. Raises NotEnough, Reverted."""
    contracts = Contracts.of(deployment)
    await need(wallet, contracts.usdc, "USDC", amount, _funded(wallet))
    await approve(wallet, contracts.usdc, contracts.prepaid, amount)
    whose = address_of(beneficiary) if beneficiary else wallet.address
    what = f"Depositing {shown(amount, 'USDC')}"
    receipt = await wallet.send(contracts.prepaid, "deposit", whose, amount, what=what)
    told = said(receipt, contracts.prepaid, "Deposited")
    return DepositMade(*done(receipt), amount=told["amount"], beneficiary=told["beneficiary"])


async def transfer(wallet: Wallet, deployment: Deployment, token: str, amount: int, to: str) -> Transferred:
    """Send HOLD, DIEM or USDC. Raises NotEnough, Reverted, InvalidRequest."""
    contracts = Contracts.of(deployment)
    tokens = {"HOLD": contracts.hold, "DIEM": contracts.diem, "USDC": contracts.usdc}
    if token not in tokens:
        raise InvalidRequest(reason=f"{token} can't be sent. HOLD, DIEM and USDC can.")
    whom = address_of(to)
    mends = {"DIEM": f"Mint more with `freehold mint AMOUNT {wallet.option}`."}
    mend = mends.get(token, _funded(wallet))
    await need(wallet, tokens[token], token, amount, mend)
    receipt = await wallet.send(tokens[token], "transfer", whom, amount, what=f"Sending {shown(amount, token)}")
    return Transferred(*done(receipt), token=token, to=whom, amount=amount)


async def positions(rpc: Rpc, deployment: Deployment, address: str) -> Positions:
    """Everything that `address` has: balances by reading, stakes and requests from the logs of its own doings."""
    contracts = Contracts.of(deployment)
    owner = address_of(address)
    staking, vault = contracts.staking, contracts.vault
    block = await rpc.call("eth_getBlockByNumber", "latest", False)
    at = block["number"]
    hold, staked, locks, diem, usdc = await reads(
        rpc,
        at,
        [
            (contracts.hold, "balanceOf", (owner,)),
            (staking, "balanceOf", (owner,)),
            (staking, "positionOf", (owner,)),
            (contracts.diem, "balanceOf", (owner,)),
            (contracts.usdc, "balanceOf", (owner,)),
        ],
    )
    places = await _staked_for(rpc, vault, deployment.from_block, at, owner)
    amounts = await reads(rpc, at, [(vault, "positionOf", (owner, *where)) for where in places])
    stakes = [Stake(*where, amount) for where, amount in zip(places, amounts, strict=True) if amount]
    return Positions(
        address=owner,
        chain_time_s=int(block["timestamp"], 16),
        hold=hold,
        staked_hold=staked,
        locked_hold=locks[0],
        outstanding_diem=locks[1],
        diem=diem,
        usdc=usdc,
        stakes=tuple(stakes),
        requests=tuple(
            await _requests(rpc, staking, "HOLD", deployment.from_block, at, owner)
            + await _requests(rpc, vault, "DIEM", deployment.from_block, at, owner)
        ),
    )


def place(wallet: Wallet, deployment: Deployment, operator: str | None, beneficiary: str | None) -> tuple[str, str]:
    """Where capacity is: an operator, else the deployment's, and a beneficiary, else the wallet. Raises InvalidRequest."""
    at = address_of(operator) if operator else deployment.operator
    return at, address_of(beneficiary) if beneficiary else wallet.address


def shown(amount: int, token: str) -> str:
    """An amount in words: `12.5 HOLD`."""
    return f"{format_units(amount, decimals=DECIMALS[token])} {token}"


def _funded(wallet: Wallet) -> str:
    """Where HOLD and USDC come from, on the chain where they come from nowhere."""
    who = wallet.name if isinstance(wallet, DevWallet) else wallet.address
    return f"Get some with `freehold dev fund {who}`."


async def need(wallet: Wallet, token: Contract, symbol: str, amount: int, mend: str) -> None:
    """Raises NotEnough when the wallet has less of a token."""
    has = await wallet.read(token, "balanceOf", wallet.address)
    if has < amount:
        raise NotEnough(name=wallet.name, has=shown(has, symbol), needs=shown(amount, symbol), mend=mend)


async def _need_unlocked(wallet: Wallet, staking: Contract, amount: int, *, needs: str, mend: str) -> None:
    unlocked = await wallet.read(staking, "unlockedOf", wallet.address)
    if unlocked < amount:
        raise NotEnough(name=wallet.name, has=f"{shown(unlocked, 'sHOLD')} unlocked", needs=needs, mend=mend)


async def approve(wallet: Wallet, token: Contract, spender: Contract, amount: int) -> None:
    """Let `spender` take so much, when it may not yet."""
    if await wallet.read(token, "allowance", wallet.address, spender.address) < amount:
        await wallet.send(token, "approve", spender.address, amount, what=f"Approving {spender.name}")


def done(receipt: Receipt) -> tuple[str, int, int]:
    """Where and when it was mined, as every result begins."""
    return receipt.tx_hash, receipt.block_number, receipt.at_s


def said(receipt: Receipt, contract: Contract, event: str) -> dict[str, Any]:
    """The last `event` that `contract` logged."""
    for log in reversed(receipt.logs):
        found = contract.event(log) if log.address == contract.address else None
        if found and found[0] == event:
            return found[1]
    raise AssertionError(f"{contract.name} always logs {event} here")


def _minted(receipt: Receipt, staking: Contract) -> Minted:
    told = said(receipt, staking, "Minted")
    return Minted(
        *done(receipt),
        diem_out=told["diemOut"],
        cost=told["cost"],
        locked=told["locked"],
        outstanding=told["outstanding"],
    )


def _requested(receipt: Receipt, contract: Contract, token: str) -> UnstakeRequested:
    told = said(receipt, contract, "UnstakeRequested")
    return UnstakeRequested(
        *done(receipt), token=token, id=told["id"], amount=told["amount"], ready_at_s=told["readyAt"]
    )


def _staked_in(deployment: Deployment, token: str) -> Contract:
    contracts = Contracts.of(deployment)
    places = {"HOLD": contracts.staking, "DIEM": contracts.vault}
    if token not in places:
        raise InvalidRequest(reason=f"{token} can't be staked. HOLD and DIEM can.")
    return places[token]


def address_of(text: str) -> str:
    """In checksum form. Raises InvalidRequest."""
    if not is_address(text):
        raise InvalidRequest(reason=f"{text!r} is not an address: 0x and 40 hexadecimal digits.")
    return str(to_checksum_address(text))


async def reads(rpc: Rpc, at: str, asked: list[tuple[Contract, str, tuple[Any, ...]]]) -> list[Any]:
    """Results of many views at one block."""
    answers = await rpc.batch(
        [
            ("eth_call", [{"to": contract.address, "data": contract.call(function, *arguments)}, at])
            for contract, function, arguments in asked
        ]
    )
    return [contract.result(function, answer) for (contract, function, _), answer in zip(asked, answers, strict=True)]


async def own_events(
    rpc: Rpc, contract: Contract, events: tuple[str, ...], owner_topic: int | None, first: int, at: str, owner: str
) -> list[tuple[str, dict[str, Any]]]:
    """Name and arguments of the events whose indexed argument number `owner_topic` is `owner`; None: of all of them."""
    topics: list[Any] = [[contract.topic(event) for event in events], None, None]
    if owner_topic is not None:
        topics[owner_topic + 1] = "0x" + from_hex(owner).rjust(32, b"\0").hex()
    query = {"address": contract.address, "topics": topics, "fromBlock": hex(first), "toBlock": at}
    found = (contract.event(read_log(raw)) for raw in await rpc.call("eth_getLogs", query))
    return [event for event in found if event is not None]


async def _staked_for(rpc: Rpc, vault: Contract, first: int, at: str, owner: str) -> list[tuple[str, str]]:
    """Every (operator, beneficiary) that `owner` may have a position for."""
    places: dict[tuple[str, str], None] = {}
    for name, told in await own_events(rpc, vault, ("Staked", "Redirected"), 0, first, at, owner):
        operator, beneficiary = ("operator", "beneficiary") if name == "Staked" else ("newOperator", "newBeneficiary")
        places[told[operator], told[beneficiary]] = None
    return list(places)


async def _requests(rpc: Rpc, contract: Contract, token: str, first: int, at: str, owner: str) -> list[Request]:
    """Requests to unstake that were neither cancelled nor withdrawn."""
    made = {}
    for _, told in await own_events(rpc, contract, ("UnstakeRequested",), 1, first, at, owner):
        made[told["id"]] = Request(token, told["id"], told["amount"], told["readyAt"])
    standing = await reads(rpc, at, [(contract, "requestOf", (number,)) for number in made])
    return [request for request, now in zip(made.values(), standing, strict=True) if int(now[0], 16)]
