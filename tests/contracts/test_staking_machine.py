"""Staking under random histories: the books close, locks back the supply, and each cost is the exact integral's.

Rewards are reckoned in exact fractions, second by second, beside the contract.
"""

from collections import Counter, defaultdict
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
from tests.contracts.curve_oracle import CurveOracle
from tests.contracts.evm import DAY_S, Refused, Signer, refused
from tests.contracts.freehold_chain import (
    CEILING,
    COMMITTED,
    GENESIS,
    ONE,
    OPERATOR,
    STAKING_TREASURY,
    Freehold,
    deploy,
)
from tests.contracts.lengths import histories, limit_s

from freehold.chain import curve

OWNERS = [Signer.of(name).address for name in ("ann", "ben", "cat")]
EACH = 8_000_000 * ONE
COOLDOWN_S = 7 * DAY_S
ORACLE = CurveOracle(curve.points())


@cache
def chain_at_rest() -> Freehold:
    chain = deploy()
    for owner in OWNERS:
        chain.give_hold(owner, EACH)
        chain.hold.approve(chain.staking.address, 2**256 - 1, sender=owner)
    return chain


owners = st.sampled_from(OWNERS)
wei = st.integers(1, 3)
holds = st.one_of(wei, st.integers(1, EACH), st.sampled_from([91, ONE, 1_000_000 * ONE]))
diems = st.one_of(wei, st.integers(1, 12_000 * ONE), st.sampled_from([ONE, 1_000 * ONE, COMMITTED]))
parts = st.integers(0, 4)
callers = st.sampled_from([None] * 7 + OWNERS)
"""None: the request's owner."""


class StakingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.chain = chain_at_rest()
        self.staking = self.chain.staking
        self.undone = self.chain.evm.undone()
        self.undone.__enter__()
        self.wallet = Counter(dict.fromkeys(OWNERS, EACH))
        self.shares: Counter[str] = Counter()
        self.locked: Counter[str] = Counter()
        self.outstanding: Counter[str] = Counter()
        self.diem: Counter[str] = Counter()
        self.roundings: Counter[str] = Counter()
        """Mints and burns of each owner: each may leave some wei locked."""
        self.requests: dict[int, tuple[str, int, int]] = {}
        self.committed = COMMITTED
        self.emission = 0
        self.earned: dict[str, Fraction] = defaultdict(Fraction)
        """What each has earned and not claimed, exactly."""
        self.settlements = 0
        """Each may round a wei of an owner's down, and one of the treasury's."""
        self.claimed = 0

    def teardown(self) -> None:
        self.undone.__exit__(None, None, None)

    @property
    def supply(self) -> int:
        return self.outstanding.total()

    def unlocked(self, owner: str) -> int:
        return self.shares[owner] - self.locked[owner]

    def pass_time(self, to_s: int) -> None:
        """What is staked earns until then: five fifths, or four if it is locked, and the treasury the fifth."""
        emitted = self.emission * (to_s - self.chain.evm.now_s)
        if shares := self.shares.total():
            for owner in OWNERS:
                self.earned[owner] += Fraction(emitted * (5 * self.shares[owner] - self.locked[owner]), 5 * shares)
            self.earned[STAKING_TREASURY] += Fraction(emitted * self.locked.total(), 5 * shares)
        self.chain.evm.warp_to(to_s)

    def does(self, verb: str, *args: object, sender: str, refusal: str | None) -> int:
        """Calls Staking. It must refuse with `refusal`, or succeed when that is None. 0 without a result."""
        try:
            returned = getattr(self.staking, verb)(*args, sender=sender)
        except Refused as refused:
            assert refused.name == refusal
            return 0
        assert refusal is None, f"{verb} was expected to be refused: {refusal}"
        self.settlements += 1
        return returned or 0

    @initialize(amounts=st.lists(st.integers(ONE, EACH), min_size=3, max_size=3), minted=diems)
    def begin(self, amounts: list[int], minted: int) -> None:
        for owner, amount in zip(OWNERS, amounts, strict=True):
            self.stake(owner, owner, amount)
        self.mint_exact(OWNERS[0], minted)

    @rule(payer=owners, recipient=owners, amount=holds)
    def stake(self, payer: str, recipient: str, amount: int) -> None:
        refusal = "ERC20InsufficientBalance" if amount > self.wallet[payer] else None
        self.does("stake", recipient, amount, sender=payer, refusal=refusal)
        if refusal is None:
            self.wallet[payer] -= amount
            self.shares[recipient] += amount

    @rule(owner=owners, part=parts)
    def request(self, owner: str, part: int) -> None:
        """So many quarters of what is unlocked, or 1 wei more than it."""
        unlocked = self.unlocked(owner)
        amount = unlocked * part // 4 if part else unlocked + 1
        refusal = "ZeroAmount" if amount == 0 else "NotUnlocked" if part == 0 else None
        id = self.does("requestUnstake", amount, sender=owner, refusal=refusal)
        if refusal is None:
            self.requests[id] = (owner, amount, self.chain.evm.now_s + COOLDOWN_S)
            self.shares[owner] -= amount

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), caller=callers)
    def cancel(self, data: st.DataObject, caller: str | None) -> None:
        id = data.draw(st.sampled_from(sorted(self.requests)))
        owner, amount, _ = self.requests[id]
        refusal = "NotOwnRequest" if (caller or owner) != owner else None
        self.does("cancelUnstake", id, sender=caller or owner, refusal=refusal)
        if refusal is None:
            del self.requests[id]
            self.shares[owner] += amount

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), caller=callers, early_s=st.sampled_from([0, 0, 0, 1, COOLDOWN_S]))
    def withdraw(self, data: st.DataObject, caller: str | None, early_s: int) -> None:
        """After waiting until the request is ready, or nearly."""
        id = data.draw(st.sampled_from(sorted(self.requests)))
        owner, amount, ready_s = self.requests[id]
        self.pass_time(max(self.chain.evm.now_s, ready_s - early_s))
        refusal = "StillCooling" if self.chain.evm.now_s < ready_s else None
        if (caller or owner) != owner:
            refusal = "NotOwnRequest"
        self.does("withdraw", id, sender=caller or owner, refusal=refusal)
        if refusal is None:
            del self.requests[id]
            self.wallet[owner] += amount

    @rule(seconds=st.one_of(st.just(1), st.integers(1, 400 * DAY_S)))
    def wait(self, seconds: int) -> None:
        self.pass_time(self.chain.evm.now_s + seconds)

    @rule(per_second=st.one_of(st.integers(0, CEILING), st.sampled_from([1, CEILING, CEILING + 1])))
    def emit(self, per_second: int) -> None:
        if per_second > CEILING:
            with refused("AboveCeiling", per_second, CEILING):
                self.chain.govern(self.staking, "setEmission", per_second)
            return
        self.chain.govern(self.staking, "setEmission", per_second)
        self.settlements += 1
        self.emission = per_second

    @rule(owner=st.sampled_from([*OWNERS, STAKING_TREASURY]), verb=st.sampled_from(["claim", "claimAndStake"]))
    def claim(self, owner: str, verb: str) -> None:
        claimable = self.staking.claimable(owner)
        if owner == STAKING_TREASURY:
            verb = "claim"
        assert self.does(verb, sender=owner, refusal=None if claimable else "NothingToClaim") == claimable
        self.earned[owner] -= claimable
        self.claimed += claimable
        if verb == "claim":
            self.wallet[owner] += claimable
        else:
            self.shares[owner] += claimable

    def refused_mint(self, owner: str, diem: int, cost: int) -> str | None:
        if self.supply + diem > self.committed:
            return "BeyondCommitted"
        return "NotUnlocked" if cost > self.unlocked(owner) else None

    def minted(self, owner: str, diem: int, cost: int) -> None:
        self.locked[owner] += cost
        self.outstanding[owner] += diem
        self.diem[owner] += diem
        self.roundings[owner] += 1

    @rule(owner=owners, diem=diems)
    def mint_exact(self, owner: str, diem: int) -> None:
        beyond = self.supply + diem > ORACLE.end
        cost = 0 if beyond else ORACLE.cost(self.supply + diem) - ORACLE.cost(self.supply)
        refusal = self.refused_mint(owner, diem, cost)
        returned = self.does("mintExact", diem, 2**256 - 1, sender=owner, refusal=refusal)
        if refusal is None:
            assert returned == cost
            self.minted(owner, diem, cost)

    @rule(owner=owners, lock=holds)
    def mint(self, owner: str, lock: int) -> None:
        """Gives the most DIEM that the lock pays for at the exact integral, and locks what that costs."""
        target = ORACLE.cost(self.supply) + lock
        if target > ORACLE.cost(ORACLE.end):
            self.does("mint", lock, 0, sender=owner, refusal="LockBeyondCurve")
            return
        diem = self.staking.quoteMint(lock)
        assert ORACLE.area(self.supply + diem) <= target < ORACLE.area(self.supply + diem + 1)
        cost = ORACLE.cost(self.supply + diem) - ORACLE.cost(self.supply)
        refusal = self.refused_mint(owner, diem, cost)
        if diem == 0 and refusal is None:
            refusal = "ZeroAmount"
        returned = self.does("mint", lock, diem, sender=owner, refusal=refusal)
        if refusal is None:
            assert returned == diem
            self.minted(owner, diem, cost)

    @precondition(lambda self: self.supply)
    @rule(data=st.data(), part=parts, few=wei)
    def burn(self, data: st.DataObject, part: int, few: int) -> None:
        """So many quarters of what the owner can burn, or (0) a few wei."""
        owner = data.draw(st.sampled_from(sorted(+self.outstanding)))
        outstanding, locked = self.outstanding[owner], self.locked[owner]
        amount = -(-outstanding * part // 4) or few
        refusal = "ERC20InsufficientBalance" if amount > self.diem[owner] else None
        if amount > outstanding:
            refusal = "BurnBeyondPosition"
        unlocked = self.does("burn", amount, 0, sender=owner, refusal=refusal)
        if refusal is None:
            pro_rata = locked * amount // outstanding
            assert pro_rata - 2 * self.roundings[owner] - 1 <= unlocked <= pro_rata
            self.locked[owner] -= unlocked
            self.outstanding[owner] -= amount
            self.diem[owner] -= amount
            self.roundings[owner] += 1

    @precondition(lambda self: self.diem.total())
    @rule(data=st.data(), to=owners, part=st.integers(1, 4))
    def send_diem(self, data: st.DataObject, to: str, part: int) -> None:
        owner = data.draw(st.sampled_from(sorted(+self.diem)))
        amount = self.diem[owner] * part // 4
        self.chain.diem.transfer(to, amount, sender=owner)
        self.diem[owner] -= amount
        self.diem[to] += amount

    @rule(committed=st.one_of(st.just(COMMITTED), st.integers(0, 50_000 * ONE)))
    def commit(self, committed: int) -> None:
        self.chain.govern(self.staking, "setCommitted", OPERATOR, committed)
        self.committed = committed

    @invariant()
    def what_is_locked_backs_the_supply(self) -> None:
        """Σ locked ≥ C(supply), to the wei, while the curve is unchanged."""
        assert self.staking.totalLocked() == self.locked.total()
        assert self.staking.costOf(self.supply) == ORACLE.cost(self.supply) <= self.locked.total()

    @invariant()
    def rewards_are_what_was_earned_to_the_second(self) -> None:
        for owner in (*OWNERS, STAKING_TREASURY):
            assert self.earned[owner] - self.settlements - 2 < self.staking.claimable(owner) <= self.earned[owner]
        assert self.chain.hold.totalSupply() == GENESIS + self.claimed <= GENESIS + self.staking.totalEmitted()

    @invariant()
    def the_books_close(self) -> None:
        cooling = sum(amount for _, amount, _ in self.requests.values())
        assert self.staking.totalSupply() == self.shares.total()
        assert self.chain.hold.balanceOf(self.staking.address) == self.shares.total() + cooling
        assert self.chain.diem.totalSupply() == self.supply == self.diem.total()

    @invariant()
    def each_owner_has_what_the_history_gave(self) -> None:
        for owner in OWNERS:
            assert self.staking.positionOf(owner) == (self.locked[owner], self.outstanding[owner])
            assert self.staking.balanceOf(owner) == self.shares[owner] >= self.locked[owner]
            assert self.chain.hold.balanceOf(owner) == self.wallet[owner]
            assert self.chain.diem.balanceOf(owner) == self.diem[owner]


@pytest.mark.timeout(limit_s(900))  # a minute of work, on a machine that may be busy
def test_staking_keeps_its_laws_under_any_history() -> None:
    run_state_machine_as_test(
        StakingMachine, settings=settings(max_examples=histories(300), stateful_step_count=50, deadline=None)
    )
