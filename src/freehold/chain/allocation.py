"""Where a wallet's staked DIEM goes: to whose allowance at which operator, and moving it, as one transaction.

A redirect takes effect at the next 00:00 UTC: until then each beneficiary has what it had. Amounts are base units (10^-18).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from freehold.chain.abi import from_hex
from freehold.chain.contracts import Contracts
from freehold.chain.model import Deployment
from freehold.chain.rpc import Rpc
from freehold.chain.steps import Step, rehearse, send_all
from freehold.chain.verbs import Done, address_of, done, positions, reads, shown
from freehold.chain.wallet import Wallet
from freehold.clock import Day
from freehold.problems import Conflict, InvalidRequest

REST = -1
"""As a target's amount: all that no other target takes."""


@dataclass(frozen=True, order=True, slots=True)
class Seat:
    """An operator, and the beneficiary whose allowance there it is."""

    operator: str
    beneficiary: str


@dataclass(frozen=True, slots=True)
class Seated:
    """What a wallet's stake gives a seat, and what the beneficiary has there of everybody's."""

    seat: Seat
    amount: int
    """This wallet's stake, from the next 00:00 on."""
    today: int
    """The beneficiary's allowance there, of this day."""
    onward: int
    """And of each day from the next 00:00 on."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A wallet's stakes at one block."""

    address: str
    now_s: int
    seats: tuple[Seated, ...]

    @property
    def effective_at_s(self) -> int:
        """The next 00:00 UTC, when what is moved now takes effect."""
        return Day.of(self.now_s).end_s


@dataclass(frozen=True, slots=True)
class Move:
    """A part of a stake that goes from one seat to another."""

    amount: int
    source: Seat
    to: Seat


@dataclass(frozen=True, slots=True)
class Order:
    """Moves that were tried and not sent yet."""

    before: Allocation
    moves: tuple[Move, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Allocated(Done):
    moves: tuple[Move, ...]
    effective_at_s: int
    after: Allocation


async def look(rpc: Rpc, deployment: Deployment, address: str) -> Allocation:
    """Where the staked DIEM of `address` goes. Raises NodeUnavailable."""
    return await _seated(rpc, deployment, address_of(address), ())


async def plan(wallet: Wallet, deployment: Deployment, targets: Mapping[Seat, int]) -> Order:
    """The moves that give each target exactly its amount (REST: what the others leave), tried on the chain.

    Raises InvalidRequest when they don't add up, Conflict when nothing would change, Reverted in words.
    """
    before = await _seated(wallet.rpc, deployment, wallet.address, tuple(targets))
    moves = moves_to({each.seat: each.amount for each in before.seats if each.amount}, targets)
    if not moves:
        raise Conflict(reason=f"Nothing would change: the stakes of {wallet.name} are there already.")
    vault = Contracts.of(deployment).vault
    what = f"Moving {shown(sum(move.amount for move in moves), 'DIEM')}"
    calls = [
        (move.source.operator, move.source.beneficiary, move.to.operator, move.to.beneficiary, move.amount)
        for move in moves
    ]
    step = (
        Step(vault, "redirect", calls[0], what)
        if len(calls) == 1
        else Step(vault, "multicall", ([from_hex(vault.call("redirect", *call)) for call in calls],), what)
    )
    await rehearse(wallet, [step])
    return Order(before, tuple(moves), (step,))


async def carry_out(wallet: Wallet, deployment: Deployment, order: Order) -> Allocated:
    """Send the moves, all or none. Raises Reverted, NotMined, NodeUnavailable."""
    receipt = (await send_all(wallet, order.steps))[-1]
    seats = tuple(dict.fromkeys([each.seat for each in order.before.seats] + [move.to for move in order.moves]))
    return Allocated(
        *done(receipt),
        moves=order.moves,
        effective_at_s=Day.of(receipt.at_s).end_s,
        after=await _seated(wallet.rpc, deployment, wallet.address, seats),
    )


def moves_to(now: Mapping[Seat, int], targets: Mapping[Seat, int]) -> list[Move]:
    """The fewest moves that do: what a target lacks comes from targets that have too much, then from the largest other seats.

    Raises InvalidRequest when there isn't as much, when something is left that no target takes, or when two take the rest.
    """
    staked = sum(now.values())
    wanted = _resolved(now, targets, staked)
    over = {seat: now.get(seat, 0) - amount for seat, amount in wanted.items() if now.get(seat, 0) > amount}
    lacks = {seat: amount - now.get(seat, 0) for seat, amount in wanted.items() if amount > now.get(seat, 0)}
    missing = sum(lacks.values())
    if sum(over.values()) > missing:
        raise InvalidRequest(
            reason=f"That leaves {shown(sum(over.values()) - missing, 'DIEM')} of {shown(staked, 'DIEM')} staked that nobody "
            "is named for. Name somebody for the rest: WHO=rest."
        )
    others = sorted((seat for seat in now if seat not in wanted), key=lambda seat: (-now[seat], seat))
    sources = [*over.items(), *((seat, now[seat]) for seat in others)]
    if sum(amount for _, amount in sources) < missing:
        raise InvalidRequest(
            reason=f"{shown(sum(wanted.values()), 'DIEM')} are named, and {shown(staked, 'DIEM')} are staked. "
            "`freehold stake diem` stakes more."
        )
    moves = []
    for to, amount in lacks.items():
        while amount:
            source, has = sources[0]
            taken = min(has, amount)
            moves.append(Move(taken, source, to))
            amount -= taken
            sources[0] = (source, has - taken)
            if has == taken:
                sources.pop(0)
    return moves


def _resolved(now: Mapping[Seat, int], targets: Mapping[Seat, int], staked: int) -> dict[Seat, int]:
    """Targets with the rest as an amount; then every seat that isn't named is emptied."""
    resting = [seat for seat, amount in targets.items() if amount == REST]
    if not resting:
        return dict(targets)
    if len(resting) > 1:
        raise InvalidRequest(reason="Only one can get the rest.")
    named = sum(amount for amount in targets.values() if amount != REST)
    if named > staked:
        raise InvalidRequest(
            reason=f"{shown(named, 'DIEM')} are named, and {shown(staked, 'DIEM')} are staked. `freehold stake diem` stakes more."
        )
    return dict.fromkeys(now, 0) | {
        seat: staked - named if amount == REST else amount for seat, amount in targets.items()
    }


async def _seated(rpc: Rpc, deployment: Deployment, owner: str, more: Sequence[Seat]) -> Allocation:
    has = await positions(rpc, deployment, owner)
    amounts = {Seat(stake.operator, stake.beneficiary): stake.amount for stake in has.stakes}
    seats = list(dict.fromkeys([*amounts, *more]))
    vault, today = Contracts.of(deployment).vault, Day.of(has.chain_time_s).number
    days = await reads(
        rpc,
        "latest",
        [
            (vault, "allowanceOf", (seat.operator, seat.beneficiary, day))
            for seat in seats
            for day in (today, today + 1)
        ],
    )
    return Allocation(
        owner,
        has.chain_time_s,
        tuple(Seated(seat, amounts.get(seat, 0), *days[2 * n : 2 * n + 2]) for n, seat in enumerate(seats)),
    )
