"""Staking, CapacityVault and Strips together, over months of warped time, against an oracle that shares no code with them.

The oracle keeps a stretch of seconds for each DIEM that grants, reckons months by Python's calendar, and predicts each
refusal. After each step the contracts, the events read alone, and the oracle must agree, and the laws must hold: DIEM held
is Σ principals; strips + activated = Σ principals of that month and later; the allowances of a day are at most the supply.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.contracts import calendar_oracle as calendar
from tests.contracts.evm import DAY_S, Contract, Event, Refused, Signer
from tests.contracts.freehold_chain import ONE, OPERATOR, Freehold, deploy
from tests.contracts.lengths import histories, limit_s
from tests.contracts.test_vault_machine import FromEvents, Pair, Seconds, Stretch

OWNERS = [Signer.of(name).address for name in ("ann", "ben", "cat")]
BENEFICIARIES = OWNERS[:2]
OPERATORS = [OPERATOR, Signer.of("other operator").address]
PAIRS = [(operator, beneficiary) for operator in OPERATORS for beneficiary in BENEFICIARIES]
EACH = 500 * ONE
OTHER_COMMITTED = 400 * ONE
BEGIN_S = calendar.moment("2027-11-20 00:00")
"""So that 36 months have the leap day of 2028 in them."""

Place = tuple[str, int, Pair]
"""Owner, month, operator and beneficiary of an activated strip."""


@cache
def chain_at_rest() -> Freehold:
    chain = deploy()
    chain.govern(chain.staking, "setEmission", ONE // 3)
    chain.govern(chain.staking, "setCommitted", OPERATORS[1], OTHER_COMMITTED)
    chain.govern(chain.vault, "registerOperator", OPERATORS[1], "https://other.example", OPERATORS[1])
    for owner in OWNERS:
        chain.give_diem(owner, EACH)
        chain.give_stake(owner, 100_000 * ONE)
        for spender in (chain.vault, chain.strips):
            chain.diem.approve(spender.address, 2**256 - 1, sender=owner)
    chain.evm.warp_to(BEGIN_S)
    return chain


@dataclass
class Lease:
    """Activated strips: the seconds that they grant."""

    past: dict[Pair, list[Stretch]] = field(default_factory=lambda: defaultdict(list))
    running: dict[Place, list[Stretch]] = field(default_factory=lambda: defaultdict(list))

    def start(self, place: Place, amount: int, from_s: int) -> None:
        self.running[place].append(Stretch(amount, from_s, calendar.first_day(place[1] + 1) * DAY_S))

    def move(self, place: Place, to: Place, amount: int, at_s: int) -> None:
        ended, running = [], self.running[place]
        while amount:
            newest = running.pop()
            taken = min(amount, newest.amount)
            if newest.amount > taken:
                running.append(Stretch(newest.amount - taken, newest.start_s, newest.end_s))
            ended.append(Stretch(taken, newest.start_s, max(at_s, newest.start_s)))
            self.start(to, taken, at_s)
            amount -= taken
        self.past[place[2]] += ended

    def position(self, place: Place) -> int:
        return sum(stretch.amount for stretch in self.running[place])

    def open(self) -> list[Place]:
        return [place for place, stretches in self.running.items() if stretches]

    def stretches(self, pair: Pair) -> list[Stretch]:
        going = [stretch for place, found in self.running.items() if place[2] == pair for stretch in found]
        return self.past[pair] + going

    def granted(self, pair: Pair, day: int) -> tuple[Fraction, int]:
        """What the pair is granted on a day, and of how many stretches (each may lose a part of a wei)."""
        touching = [stretch.on(day) for stretch in self.stretches(pair)]
        return sum(touching, Fraction(0)), sum(1 for amount in touching if amount)

    def at(self, moment_s: int) -> int:
        """DIEM whose strips grant at that second."""
        return sum(
            stretch.amount
            for pair in PAIRS
            for stretch in self.stretches(pair)
            if stretch.start_s <= moment_s and stretch.end_s is not None and moment_s < stretch.end_s
        )

    def whole_days(self, operator: str, month: int, now_s: int) -> int:
        """What the operator owes on each whole day of the month that is still to begin."""
        next_day = max(now_s // DAY_S + 1, calendar.first_day(month))
        if next_day >= calendar.first_day(month + 1):
            return 0
        places = [place for place in self.running if place[1] == month and place[2][0] == operator]
        return sum(self.position(place) for place in places)


class StripEvents:
    """Allowances by strips from AllowanceChanged alone: the newest event of the day's month that isn't after the day."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def read(self, events: list[Event]) -> None:
        self._events += [event for event in events if event.name == "AllowanceChanged"]

    def allowance(self, pair: Pair, day: int) -> int:
        month = calendar.month_of(day)
        for event in reversed(self._events):
            said = event.arguments
            of_pair = (said["operator"], said["beneficiary"]) == pair
            if of_pair and said["day"] <= day and calendar.month_of(said["day"]) == month:
                found: int = said["today"] if said["day"] == day else said["onward"]
                return found
        return 0


owners = st.sampled_from(OWNERS)
pairs = st.sampled_from(PAIRS)
amounts = st.one_of(st.integers(1, 5), st.integers(1, 200 * ONE), st.sampled_from([ONE, 86_400, 100 * ONE, EACH]))
parts = st.integers(0, 4)
ahead = st.one_of(st.integers(0, 3), st.integers(0, 36), st.sampled_from([0, 1, 35, -1]))


class AssetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.chain = chain_at_rest()
        self.undone = self.chain.evm.undone()
        self.undone.__enter__()
        self.stakes, self.leases = Seconds(), Lease()
        self.stake_events, self.strip_events = FromEvents(), StripEvents()
        self.wallets = Counter(dict.fromkeys(OWNERS, EACH))
        self.outstanding = Counter(dict.fromkeys(OWNERS, EACH))
        self.strips: Counter[tuple[int, str]] = Counter()
        self.principals: Counter[tuple[int, str]] = Counter()
        self.activated: Counter[int] = Counter()
        self.created: set[tuple[int, bool]] = set()
        self.donated = 0
        self.committed = dict(zip(OPERATORS, (40_000 * ONE, OTHER_COMMITTED), strict=True))
        self.closed: dict[tuple[Pair, int], tuple[int, int]] = {}
        self.tokens: dict[int, tuple[Contract, Contract]] = {}

    def teardown(self) -> None:
        try:
            self.all_principal_is_redeemed_in_the_end()
        finally:
            self.undone.__exit__(None, None, None)

    # ---- helpers

    @property
    def now_s(self) -> int:
        return self.chain.evm.now_s

    @property
    def today(self) -> int:
        return self.chain.evm.today

    @property
    def month(self) -> int:
        return calendar.month_of(self.today)

    @property
    def midnight_s(self) -> int:
        return (self.today + 1) * DAY_S

    def series(self, month: int) -> tuple[Contract, Contract]:
        if month not in self.tokens:
            self.tokens[month] = self.chain.series(month)
        return self.tokens[month]

    def does(self, on: Contract, verb: str, *args: object, sender: str, refusal: str | None) -> int:
        """Calls a contract. It must refuse with `refusal`, or succeed when that is None. 0 without a result."""
        try:
            returned = getattr(on, verb)(*args, sender=sender)
        except Refused as refused:
            assert refused.name == refusal, f"{verb}{args}: {refused}, expected {refusal}"
            return 0
        assert refusal is None, f"{verb}{args} was expected to be refused: {refusal}"
        events = self.chain.evm.events()
        (self.strip_events if on is self.chain.strips else self.stake_events).read(events)
        return returned or 0

    def owed(self, operator: str) -> int:
        """On its fullest coming whole day, as things stand."""
        tomorrow = calendar.month_of(self.today + 1)
        peak = max(self.leases.whole_days(operator, month, self.now_s) for month in range(tomorrow, self.month + 37))
        return self.stakes.staked_to(operator) + peak

    def crowded(self, operator: str, amount: int) -> bool:
        return self.owed(operator) + amount > self.committed[operator]

    def month_refusal(self, month: int) -> str | None:
        return None if self.month <= month < self.month + 36 else "MonthOutOfRange"

    # ---- the vault

    @initialize(hour=st.integers(0, 23), shares=st.lists(st.integers(1, 100 * ONE), min_size=3, max_size=3))
    def begin(self, hour: int, shares: list[int]) -> None:
        self.wait_until(self.now_s + hour * 3_600)
        for owner, share, months in zip(OWNERS, shares, (0, 1, 4), strict=True):
            self.stake(owner, PAIRS[0], share)
            self.split(owner, months, share, owner)

    @rule(owner=owners, pair=pairs, amount=amounts)
    def stake(self, owner: str, pair: Pair, amount: int) -> None:
        refusal = "ERC20InsufficientBalance" if amount > self.wallets[owner] else None
        if self.crowded(pair[0], amount):
            refusal = "BeyondCommitted"
        self.does(self.chain.vault, "stake", amount, *pair, sender=owner, refusal=refusal)
        if refusal is None:
            self.wallets[owner] -= amount
            self.stakes.start(owner, pair, amount, self.now_s)

    @precondition(lambda self: self.stakes.open())
    @rule(data=st.data(), part=st.integers(1, 4))
    def request(self, data: st.DataObject, part: int) -> None:
        owner, pair = data.draw(st.sampled_from(self.stakes.open()))
        amount = -(-self.stakes.position(owner, pair) * part // 4)
        id = self.does(self.chain.vault, "requestUnstake", *pair, amount, sender=owner, refusal=None)
        ended = self.stakes.end(owner, pair, amount, self.midnight_s)
        self.stakes.cooling[id] = (owner, pair, ended, self.now_s)

    @precondition(lambda self: self.stakes.cooling)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.stakes.cooling)))
        owner, pair, ended, _ = self.stakes.cooling[id]
        amount = sum(stretch.amount for stretch in ended)
        refusal = "BeyondCommitted" if self.crowded(pair[0], amount) else None
        self.does(self.chain.vault, "cancelUnstake", id, sender=owner, refusal=refusal)
        if refusal is None:
            del self.stakes.cooling[id]
            for stretch in ended:  # from where its seconds ended, or from now if that is over
                assert stretch.end_s is not None
                self.stakes.start(owner, pair, stretch.amount, max(stretch.end_s, self.now_s))

    @precondition(lambda self: self.stakes.cooling)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.stakes.cooling)))
        owner, _, ended, made_s = self.stakes.cooling[id]
        refusal = "StillCooling" if self.now_s < made_s + DAY_S else None
        self.does(self.chain.vault, "withdraw", id, sender=owner, refusal=refusal)
        if refusal is None:
            del self.stakes.cooling[id]
            self.wallets[owner] += sum(stretch.amount for stretch in ended)

    @precondition(lambda self: self.stakes.open())
    @rule(data=st.data(), to=pairs, part=st.integers(1, 4))
    def redirect(self, data: st.DataObject, to: Pair, part: int) -> None:
        owner, pair = data.draw(st.sampled_from(self.stakes.open()))
        amount = -(-self.stakes.position(owner, pair) * part // 4)
        refusal = "BeyondCommitted" if pair[0] != to[0] and self.crowded(to[0], amount) else None
        self.does(self.chain.vault, "redirect", *pair, *to, amount, sender=owner, refusal=refusal)
        if refusal is None:
            for stretch in self.stakes.end(owner, pair, amount, self.midnight_s):
                assert stretch.end_s is not None
                self.stakes.start(owner, to, stretch.amount, stretch.end_s)

    # ---- strips

    @rule(owner=owners, months=ahead, amount=amounts, to=owners)
    def split(self, owner: str, months: int, amount: int, to: str) -> None:
        month = self.month + months
        refusal = self.month_refusal(month)
        if refusal is None and amount > self.wallets[owner]:
            refusal = "ERC20InsufficientBalance"
        self.does(self.chain.strips, "split", month, amount, to, sender=owner, refusal=refusal)
        if refusal is None:
            self.wallets[owner] -= amount
            for each in range(self.month, month + 1):
                self.strips[each, to] += amount
                self.created.add((each, False))
            self.principals[month, to] += amount
            self.created.add((month, True))

    @precondition(lambda self: +self.principals)
    @rule(data=st.data(), part=parts, to=owners, verb=st.sampled_from(["merge", "merge", "redeem"]))
    def undo(self, data: st.DataObject, part: int, to: str, verb: str) -> None:
        """So many quarters of a principal, or 1 wei more than it."""
        month, owner = data.draw(st.sampled_from(sorted(+self.principals)))
        has = self.principals[month, owner]
        amount = -(-has * part // 4) if part else has + 1
        needed = range(self.month, month + 1)
        refusal = "ERC20InsufficientBalance" if amount > has else None
        if verb == "redeem" and month >= self.month:
            refusal = "NotMatured"
        elif any(self.strips[each, owner] < amount for each in needed):
            refusal = "ERC20InsufficientBalance"
        self.does(self.chain.strips, verb, month, amount, to, sender=owner, refusal=refusal)
        if refusal is None:
            for each in needed:
                self.strips[each, owner] -= amount
            self.principals[month, owner] -= amount
            self.wallets[to] += amount

    @precondition(lambda self: +self.strips)
    @rule(data=st.data(), pair=pairs, part=parts)
    def activate(self, data: st.DataObject, pair: Pair, part: int) -> None:
        month, owner = data.draw(st.sampled_from(sorted(+self.strips)))
        has = self.strips[month, owner]
        amount = -(-has * part // 4) if part else has + 1
        refusal = self.month_refusal(month)
        if refusal is None and self.overbooked(pair[0], month, amount):
            refusal = "BeyondCommitted"
        elif refusal is None and amount > has:
            refusal = "ERC20InsufficientBalance"
        self.does(self.chain.strips, "activate", month, amount, *pair, sender=owner, refusal=refusal)
        if refusal is None:
            self.strips[month, owner] -= amount
            self.activated[month] += amount
            self.leases.start((owner, month, pair), amount, max(self.now_s, calendar.first_day(month) * DAY_S))

    def overbooked(self, operator: str, month: int, amount: int) -> bool:
        """Whether so much more would be beyond what the operator committed, on the month's coming whole days."""
        if self.today + 1 >= calendar.first_day(month + 1):
            return False
        owed = self.stakes.staked_to(operator) + self.leases.whole_days(operator, month, self.now_s)
        return owed + amount > self.committed[operator]

    @precondition(lambda self: self.leases.open())
    @rule(data=st.data(), to=pairs, part=parts)
    def redirect_activated(self, data: st.DataObject, to: Pair, part: int) -> None:
        place = data.draw(st.sampled_from(self.leases.open()))
        owner, month, pair = place
        has = self.leases.position(place)
        amount = -(-has * part // 4) if part else has + 1
        refusal = "BeyondActivated" if amount > has else None
        if self.today + 1 >= calendar.first_day(month + 1):
            refusal = "MonthOver"
        elif refusal is None and pair[0] != to[0] and self.overbooked(to[0], month, amount):
            refusal = "BeyondCommitted"
        self.does(self.chain.strips, "redirectActivated", month, amount, *pair, *to, sender=owner, refusal=refusal)
        if refusal is None:
            at_s = max(self.midnight_s, calendar.first_day(month) * DAY_S)
            self.leases.move(place, (owner, month, to), amount, at_s)

    @precondition(lambda self: +self.strips)
    @rule(data=st.data(), to=owners, part=st.integers(1, 4), principal=st.booleans())
    def sell(self, data: st.DataObject, to: str, part: int, principal: bool) -> None:
        """A strip changes hands; or, if there is any, a principal."""
        of = self.principals if principal and +self.principals else self.strips
        month, owner = data.draw(st.sampled_from(sorted(+of)))
        amount = -(-of[month, owner] * part // 4)
        self.series(month)[1 if of is self.principals else 0].transfer(to, amount, sender=owner)
        of[month, owner] -= amount
        of[month, to] += amount

    # ---- the supply

    @rule(owner=owners, amount=st.integers(1, 100 * ONE))
    def mint(self, owner: str, amount: int) -> None:
        staking = self.chain.staking
        refusal = "NotUnlocked" if staking.quoteLock(amount) > staking.unlockedOf(owner) else None
        self.does(staking, "mintExact", amount, 2**256 - 1, sender=owner, refusal=refusal)
        if refusal is None:
            self.wallets[owner] += amount
            self.outstanding[owner] += amount

    @rule(owner=owners, part=st.integers(1, 4))
    def burn(self, owner: str, part: int) -> None:
        amount = min(self.wallets[owner], self.outstanding[owner]) * part // 4
        refusal = None if amount else "ZeroAmount"
        self.does(self.chain.staking, "burn", amount, 0, sender=owner, refusal=refusal)
        self.wallets[owner] -= amount
        self.outstanding[owner] -= amount

    @rule(owner=owners)
    def claim_and_stake(self, owner: str) -> None:
        claimable = self.chain.staking.claimable(owner)
        refusal = None if claimable else "NothingToClaim"
        assert self.does(self.chain.staking, "claimAndStake", sender=owner, refusal=refusal) == claimable

    @rule(owner=owners, amount=st.integers(1, 5))
    def donate(self, owner: str, amount: int) -> None:
        if amount <= self.wallets[owner]:
            self.chain.diem.transfer(self.chain.strips.address, amount, sender=owner)
            self.wallets[owner] -= amount
            self.donated += amount

    @rule(amount=st.integers(0, 800 * ONE))
    def commit(self, amount: int) -> None:
        """The second operator promises more or less."""
        self.chain.govern(self.chain.staking, "setCommitted", OPERATORS[1], amount)
        self.committed[OPERATORS[1]] = amount

    # ---- time

    @rule(seconds=st.one_of(st.integers(1, 3 * DAY_S), st.integers(1, 100 * DAY_S), st.sampled_from([1, DAY_S])))
    def wait(self, seconds: int) -> None:
        self.wait_until(self.now_s + seconds)

    @rule(off_s=st.sampled_from([-DAY_S, -DAY_S // 2, -1, 0, 1]), of_month=st.booleans())
    def wait_for_a_boundary(self, off_s: int, of_month: bool) -> None:
        boundary_s = calendar.first_day(self.month + 1) * DAY_S if of_month else self.midnight_s
        self.wait_until(max(self.now_s, boundary_s + off_s))

    def wait_until(self, time_s: int) -> None:
        for day in range(self.today, min(time_s // DAY_S, self.today + 3)):
            for pair in PAIRS:
                self.closed[pair, day] = self.allowances(pair, day)
        self.chain.evm.warp_to(time_s)

    # ---- laws

    def allowances(self, pair: Pair, day: int) -> tuple[int, int]:
        """By stakes, by strips."""
        return self.chain.vault.allowanceOf(*pair, day), self.chain.strips.allowanceOf(*pair, day)

    @invariant()
    def each_day_is_as_the_oracle_and_the_events_say(self) -> None:
        supply = self.chain.diem.totalSupply()
        next_month = calendar.first_day(self.month + 1)
        for day in {self.today, self.today + 1, next_month - 1, next_month, calendar.first_day(self.month + 2)}:
            totals = dict.fromkeys(OPERATORS, 0)
            for pair in PAIRS:
                by_stakes, by_strips = self.allowances(pair, day)
                for found, granted, stretches in (
                    (by_stakes, *self.stakes.granted(pair, day)),
                    (by_strips, *self.leases.granted(pair, day)),
                ):
                    assert granted - stretches <= found <= granted
                assert by_stakes == self.stake_events.allowance(pair, day)
                assert by_strips == self.strip_events.allowance(pair, day)
                totals[pair[0]] += by_stakes + by_strips
            for operator in OPERATORS:
                of_both = (
                    self.chain.vault.totalAllowance(operator, day),
                    self.chain.strips.totalAllowance(operator, day),
                )
                assert sum(of_both) == totals[operator]
            assert sum(totals.values()) <= supply

    @invariant()
    def no_second_of_a_diem_is_granted_twice(self) -> None:
        staked = [
            stretch
            for pair in PAIRS
            for stretch in self.stakes.past[pair]
            + [one for (_, other), found in self.stakes.running.items() if other == pair for one in found]
        ]
        for moment_s in (self.now_s, self.midnight_s - 1, self.midnight_s):
            granting = sum(
                one.amount for one in staked if one.start_s <= moment_s and (one.end_s is None or moment_s < one.end_s)
            )
            assert granting + self.leases.at(moment_s) <= self.chain.diem.totalSupply()

    @invariant()
    def an_ended_day_never_changes(self) -> None:
        for (pair, day), found in list(self.closed.items())[-2 * len(PAIRS) :]:
            assert self.allowances(pair, day) == found

    @invariant()
    def strips_and_activated_are_the_principals_of_that_month_and_later(self) -> None:
        supply = {key: self.series(key[0])[key[1]].totalSupply() for key in self.created}
        months = {month for month, _ in self.created}
        for month in months:
            assert supply.get((month, False), 0) == sum(self.strips[month, owner] for owner in OWNERS)
            assert supply.get((month, True), 0) == sum(self.principals[month, owner] for owner in OWNERS)
            assert self.chain.strips.activatedOf(month) == self.activated[month]
            if month >= self.month:
                later = sum(supply.get((other, True), 0) for other in months if other >= month)
                assert supply.get((month, False), 0) + self.activated[month] == later
        held = self.chain.diem.balanceOf(self.chain.strips.address)
        assert held == self.donated + sum(amount for (_, is_principal), amount in supply.items() if is_principal)

    @invariant()
    def everybody_has_what_the_history_gave(self) -> None:
        for owner in OWNERS:
            assert self.chain.diem.balanceOf(owner) == self.wallets[owner]
        for owner, month, pair in self.leases.open():
            position = self.leases.position((owner, month, pair))
            assert self.chain.strips.positionOf(owner, month, *pair) == position
        for operator in OPERATORS:
            assert self.chain.vault.coverage(operator) == (self.committed[operator], self.owed(operator))

    def all_principal_is_redeemed_in_the_end(self) -> None:
        """Whoever holds it, whatever became of the strips: what stays is what was donated."""
        self.chain.evm.warp_to(calendar.first_day(self.month + 36) * DAY_S)
        for (month, owner), amount in (+self.principals).items():
            self.chain.strips.redeem(month, amount, owner, sender=owner)
        assert self.chain.diem.balanceOf(self.chain.strips.address) == self.donated
        assert self.chain.diem.totalSupply() == self.outstanding.total()


@pytest.mark.timeout(limit_s(900))  # half a minute of work, on a machine that may be busy
def test_the_asset_keeps_its_laws_under_any_history() -> None:
    run_state_machine_as_test(
        AssetMachine, settings=settings(max_examples=histories(60), stateful_step_count=40, deadline=None)
    )
