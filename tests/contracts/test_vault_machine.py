"""CapacityVault under random histories: the mid-day rule, reckoned two other ways.

One model keeps, for each DIEM, the stretch of time in which its seconds are granted, and refuses to grant one twice.
The other reads nothing but AllowanceChanged. After each step both must give what the contract says.
"""

from collections import defaultdict
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
from tests.contracts.evm import DAY_S, Event, Refused, Signer
from tests.contracts.freehold_chain import ONE, OPERATOR, Freehold, deploy
from tests.contracts.lengths import histories, limit_s

OWNERS = [Signer.of(name).address for name in ("ann", "ben", "cat")]
BENEFICIARIES = OWNERS[:2]
OPERATORS = [OPERATOR, Signer.of("other operator").address]
PAIRS = [(operator, beneficiary) for operator in OPERATORS for beneficiary in BENEFICIARIES]
EACH = 1_000 * ONE
OTHER_COMMITTED = 700 * ONE

Pair = tuple[str, str]


@cache
def chain_at_rest() -> Freehold:
    chain = deploy()
    chain.govern(chain.staking, "setCommitted", OPERATORS[1], OTHER_COMMITTED)
    chain.govern(chain.vault, "registerOperator", OPERATORS[1], "https://other.example", OPERATORS[1])
    for owner in OWNERS:
        chain.give_diem(owner, EACH)
        chain.diem.approve(chain.vault.address, 2**256 - 1, sender=owner)
    return chain


@dataclass
class Stretch:
    """`amount` of DIEM, granted from `start_s` to `end_s`, or on and on."""

    amount: int
    start_s: int
    end_s: int | None = None

    def on(self, day: int) -> Fraction:
        """What it grants on a day, a DIEM's whole day being 1 USD."""
        end_s = (day + 1) * DAY_S if self.end_s is None else min(self.end_s, (day + 1) * DAY_S)
        return Fraction(self.amount * max(end_s - max(self.start_s, day * DAY_S), 0), DAY_S)


@dataclass
class Seconds:
    """The granted seconds of every DIEM in the vault."""

    past: dict[Pair, list[Stretch]] = field(default_factory=lambda: defaultdict(list))
    running: dict[tuple[str, Pair], list[Stretch]] = field(default_factory=lambda: defaultdict(list))
    cooling: dict[int, tuple[str, Pair, list[Stretch], int]] = field(default_factory=dict)

    def start(self, owner: str, pair: Pair, amount: int, from_s: int) -> None:
        self.running[owner, pair].append(Stretch(amount, from_s))

    def end(self, owner: str, pair: Pair, amount: int, at_s: int) -> list[Stretch]:
        """Ends `amount` of the owner's running stretches, the newest first; returns them."""
        ended, running = [], self.running[owner, pair]
        while amount:
            newest = running.pop()
            taken = min(amount, newest.amount)
            if newest.amount > taken:
                running.append(Stretch(newest.amount - taken, newest.start_s))
            ended.append(Stretch(taken, newest.start_s, max(at_s, newest.start_s)))
            amount -= taken
        self.past[pair] += ended
        return ended

    def position(self, owner: str, pair: Pair) -> int:
        return sum(stretch.amount for stretch in self.running[owner, pair])

    def open(self) -> list[tuple[str, Pair]]:
        return [place for place, stretches in self.running.items() if stretches]

    def staked_to(self, operator: str) -> int:
        return sum(self.position(owner, pair) for owner, pair in list(self.running) if pair[0] == operator)

    def granted(self, pair: Pair, day: int) -> tuple[Fraction, int]:
        """What the pair is granted on a day, and of how many stretches (each may lose a part of a wei)."""
        all_stretches = self.past[pair] + [
            stretch for (_, other), stretches in self.running.items() if other == pair for stretch in stretches
        ]
        touching = [stretch.on(day) for stretch in all_stretches]
        return sum(touching, Fraction(0)), sum(1 for amount in touching if amount)


class FromEvents:
    """Allowances by AllowanceChanged alone."""

    def __init__(self) -> None:
        self._last: dict[Pair, Event] = {}
        self._days: dict[tuple[Pair, int], int] = {}

    def read(self, events: list[Event]) -> None:
        for event in events:
            if event.name == "AllowanceChanged":
                pair = (event.arguments["operator"], event.arguments["beneficiary"])
                self._settle(pair, event.arguments["day"])
                self._last[pair] = event
                self._days[pair, event.arguments["day"]] = event.arguments["today"]

    def allowance(self, pair: Pair, day: int) -> int:
        """Of any day: nothing before the first event, and what the last one says after it."""
        if (pair, day) in self._days:
            return self._days[pair, day]
        last = self._last[pair].arguments if pair in self._last else None
        return last["onward"] if last is not None and day > last["day"] else 0

    def _settle(self, pair: Pair, today: int) -> None:
        """Days between two events were at `onward`."""
        if pair in self._last:
            last = self._last[pair].arguments
            for day in range(last["day"] + 1, today):
                self._days[pair, day] = last["onward"]


owners = st.sampled_from(OWNERS)
pairs = st.sampled_from(PAIRS)
amounts = st.one_of(
    st.integers(1, 5), st.integers(1, 400 * ONE), st.sampled_from([ONE, 86_400, 100 * ONE, EACH, OTHER_COMMITTED])
)
parts = st.integers(0, 4)
callers = st.sampled_from([None] * 7 + OWNERS)
"""None: the request's owner."""
waits = st.one_of(
    st.integers(1, 2 * DAY_S), st.sampled_from([1, DAY_S // 2, DAY_S - 1, DAY_S, DAY_S + 1]), st.just(-1), st.just(-2)
)


class VaultMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.chain = chain_at_rest()
        self.undone = self.chain.evm.undone()
        self.undone.__enter__()
        self.seconds = Seconds()
        self.from_events = FromEvents()
        self.closed: dict[tuple[Pair, int], int] = {}
        self.wallets = dict.fromkeys(OWNERS, EACH)

    @initialize(hour=st.integers(0, 23), shares=st.lists(st.integers(1, 300 * ONE), min_size=3, max_size=3))
    def begin(self, hour: int, shares: list[int]) -> None:
        """Each owner has a stake at the first operator, made at some hour."""
        self.wait_until(self.now_s + hour * 3_600)
        for owner, amount in zip(OWNERS, shares, strict=True):
            self.stake(owner, owner, PAIRS[0], amount)

    def teardown(self) -> None:
        self.undone.__exit__(None, None, None)

    @property
    def now_s(self) -> int:
        return self.chain.evm.now_s

    @property
    def midnight_s(self) -> int:
        return (self.chain.evm.today + 1) * DAY_S

    def does(self, verb: str, *args: object, sender: str, refusal: str | None) -> object:
        """Calls the vault. It must refuse with `refusal`, or succeed when that is None."""
        try:
            returned = getattr(self.chain.vault, verb)(*args, sender=sender)
        except Refused as refused:
            assert refused.name == refusal
            return None
        assert refusal is None, f"{verb} was expected to be refused: {refusal}"
        self.from_events.read(self.chain.evm.events())
        return returned

    def crowded(self, operator: str, amount: int) -> bool:
        return self.seconds.staked_to(operator) + amount > self.chain.staking.committedOf(operator)

    @rule(payer=owners, owner=owners, pair=pairs, amount=amounts)
    def stake(self, payer: str, owner: str, pair: Pair, amount: int) -> None:
        refusal = None
        if amount > self.wallets[payer]:
            refusal = "ERC20InsufficientBalance"
        if self.crowded(pair[0], amount):
            refusal = "BeyondCommitted"
        self.does("stakeFor", owner, amount, *pair, sender=payer, refusal=refusal)
        if refusal is None:
            self.wallets[payer] -= amount
            self.seconds.start(owner, pair, amount, self.now_s)

    @precondition(lambda self: self.seconds.open())
    @rule(data=st.data(), part=parts)
    def request(self, data: st.DataObject, part: int) -> None:
        owner, pair = data.draw(st.sampled_from(self.seconds.open()))
        amount, refusal = self.part_of(owner, pair, part)
        id = self.does("requestUnstake", *pair, amount, sender=owner, refusal=refusal)
        if isinstance(id, int):
            ended = self.seconds.end(owner, pair, amount, self.midnight_s)
            self.seconds.cooling[id] = (owner, pair, ended, self.now_s)

    @precondition(lambda self: self.seconds.cooling)
    @rule(data=st.data(), caller=callers)
    def cancel(self, data: st.DataObject, caller: str | None) -> None:
        id = data.draw(st.sampled_from(sorted(self.seconds.cooling)))
        owner, pair, ended, _ = self.seconds.cooling[id]
        amount = sum(stretch.amount for stretch in ended)
        refusal = "BeyondCommitted" if self.crowded(pair[0], amount) else None
        if (caller or owner) != owner:
            refusal = "NotOwnRequest"
        self.does("cancelUnstake", id, sender=caller or owner, refusal=refusal)
        if refusal is None:
            del self.seconds.cooling[id]
            for stretch in ended:
                assert stretch.end_s is not None
                self.seconds.start(owner, pair, stretch.amount, max(self.now_s, stretch.end_s))

    @precondition(lambda self: self.seconds.cooling)
    @rule(data=st.data(), caller=callers, early_s=st.sampled_from([0, 0, 0, 1, DAY_S]))
    def withdraw(self, data: st.DataObject, caller: str | None, early_s: int) -> None:
        id = data.draw(st.sampled_from(sorted(self.seconds.cooling)))
        owner, _, ended, made_s = self.seconds.cooling[id]
        self.wait_until(max(self.now_s, made_s + DAY_S - early_s))
        refusal = "StillCooling" if self.now_s < made_s + DAY_S else None
        if (caller or owner) != owner:
            refusal = "NotOwnRequest"
        self.does("withdraw", id, sender=caller or owner, refusal=refusal)
        if refusal is None:
            del self.seconds.cooling[id]
            # The law: free DIEM has no second ahead that was granted already, so a new stake grants none twice.
            assert all(stretch.end_s is not None and stretch.end_s <= self.now_s for stretch in ended)
            self.wallets[owner] += sum(stretch.amount for stretch in ended)

    @precondition(lambda self: self.seconds.open())
    @rule(data=st.data(), to=pairs, part=parts)
    def redirect(self, data: st.DataObject, to: Pair, part: int) -> None:
        owner, pair = data.draw(st.sampled_from(self.seconds.open()))
        amount, refusal = self.part_of(owner, pair, part)
        if refusal is None and pair[0] != to[0] and self.crowded(to[0], amount):
            refusal = "BeyondCommitted"
        self.does("redirect", *pair, *to, amount, sender=owner, refusal=refusal)
        if refusal is None:
            for stretch in self.seconds.end(owner, pair, amount, self.midnight_s):
                assert stretch.end_s is not None
                self.seconds.start(owner, to, stretch.amount, stretch.end_s)

    def part_of(self, owner: str, pair: Pair, part: int) -> tuple[int, str | None]:
        """So many quarters of a position, or 1 wei more than it, which must be refused."""
        position = self.seconds.position(owner, pair)
        return (position + 1, "BeyondPosition") if part == 0 else (-(-position * part // 4), None)

    @rule(seconds=waits)
    def wait(self, seconds: int) -> None:
        """Minus one and minus two: to so many seconds before midnight, if it isn't later already."""
        self.wait_until(self.now_s + seconds if seconds > 0 else max(self.now_s, self.midnight_s + seconds))

    def wait_until(self, time_s: int) -> None:
        for day in range(self.chain.evm.today, time_s // DAY_S):
            for pair in PAIRS:
                self.closed[pair, day] = self.chain.vault.allowanceOf(*pair, day)
        self.chain.evm.warp_to(time_s)

    @rule(amount=st.integers(0, 1_500 * ONE))
    def commit(self, amount: int) -> None:
        """The second operator promises more or less."""
        self.chain.govern(self.chain.staking, "setCommitted", OPERATORS[1], amount)

    @invariant()
    def the_days_are_as_both_models_say(self) -> None:
        today = self.chain.evm.today
        for day in (today, today + 1, today + 30):
            totals = dict.fromkeys(OPERATORS, 0)
            for pair in PAIRS:
                allowance = self.chain.vault.allowanceOf(*pair, day)
                granted, stretches = self.seconds.granted(pair, day)
                assert granted - stretches <= allowance <= granted
                assert allowance == self.from_events.allowance(pair, day)
                totals[pair[0]] += allowance
            for operator in OPERATORS:
                assert self.chain.vault.totalAllowance(operator, day) == totals[operator]
            assert sum(totals.values()) <= len(OWNERS) * EACH

    @invariant()
    def an_ended_day_never_changes(self) -> None:
        for (pair, day), allowance in list(self.closed.items())[-2 * len(PAIRS) :]:
            assert self.chain.vault.allowanceOf(*pair, day) == allowance
            assert self.from_events.allowance(pair, day) == allowance

    @invariant()
    def the_vault_holds_what_is_staked_and_cooling(self) -> None:
        cooling = sum(stretch.amount for _, _, ended, _ in self.seconds.cooling.values() for stretch in ended)
        staked = {operator: self.seconds.staked_to(operator) for operator in OPERATORS}
        assert self.chain.diem.balanceOf(self.chain.vault.address) == cooling + sum(staked.values())
        for operator in OPERATORS:
            assert self.chain.vault.coverage(operator)[1] == staked[operator]
        for owner in OWNERS:
            assert self.chain.diem.balanceOf(owner) == self.wallets[owner]


@pytest.mark.timeout(limit_s(900))  # a minute of work, on a machine that may be busy
def test_the_vault_keeps_its_laws_under_any_history() -> None:
    run_state_machine_as_test(
        VaultMachine, settings=settings(max_examples=histories(300), stateful_step_count=50, deadline=None)
    )
