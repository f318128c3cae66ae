"""The mid-day rule, as a table and against a model that keeps every second."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.allowance import rules
from freehold.chain.model import AllowanceChanged, Place
from freehold.clock import DAY_S, Day
from freehold.money import MAX_NANO

HERE, THERE = "here", "there"
ALICE, BOB = "alice", "bob"
DAYS = 4
UNIT = DAY_S
"""So many base units grant one a second: no rounding."""

Pair = tuple[str, str]


def event(day: int, today: int, onward: int, *, operator: str = HERE, log: int = 0) -> AllowanceChanged:
    place = Place(1, day * 100 + log, f"0x{day}", Day(day).start_s, "0x0", log)
    return AllowanceChanged(place, operator, ALICE, day, today, onward)


STAKED = event(10, 40, 100)
GONE = event(12, 100, 0)


@pytest.mark.parametrize(
    ("events", "day", "grants"),
    [
        ([], 10, 0),
        ([STAKED], 9, 0),
        ([STAKED], 10, 40),
        ([STAKED], 11, 100),
        ([STAKED], 999, 100),
        ([STAKED, GONE], 11, 100),
        ([STAKED, GONE], 12, 100),
        ([STAKED, GONE], 13, 0),
        ([STAKED, event(10, 55, 130, log=1)], 10, 55),
        ([STAKED, event(10, 55, 130, log=1)], 11, 130),
    ],
)
def test_a_day_grants_what_its_newest_event_says_or_what_it_began_with(
    events: list[AllowanceChanged], day: int, grants: int
) -> None:
    assert rules.allowance(events, day) == grants


def test_a_day_begins_with_the_state_at_the_last_block_before_it() -> None:
    assert rules.opening([STAKED, event(11, 900, 900)], 11) == 100


def test_only_one_operators_events_count() -> None:
    there = event(10, 7, 7, operator=THERE)
    assert rules.changes([STAKED, there], HERE) == [STAKED]


def test_credit_is_rounded_down_and_fits_a_column() -> None:
    assert rules.nano_down(10**9 * 5 + 999_999_999) == 5
    assert rules.nano_down(2**255) == MAX_NANO


@dataclass
class Vault:
    """The vault's own arithmetic: tomorrow's balances, today's extra, an event with what results."""

    full: dict[Pair, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    extra: dict[tuple[Pair, int], int] = field(default_factory=lambda: defaultdict(int))
    events: list[AllowanceChanged] = field(default_factory=list)

    def move(self, pair: Pair, amount: int, at_s: int, *, rest_of_today: bool) -> None:
        day = at_s // DAY_S
        self.full[pair][day + 1] = self.latest(pair) + amount
        if rest_of_today:
            self.extra[pair, day] += amount * (DAY_S - at_s % DAY_S) // DAY_S
        self.log(pair, day)

    def latest(self, pair: Pair) -> int:
        return self.full[pair][max(self.full[pair])] if self.full[pair] else 0

    def log(self, pair: Pair, day: int) -> None:
        known = [since for since in self.full[pair] if since <= day]
        today = (self.full[pair][max(known)] if known else 0) + self.extra[pair, day]
        place = Place(1, len(self.events), "0x", day * DAY_S, "0x", len(self.events))
        self.events.append(AllowanceChanged(place, pair[0], pair[1], day, today, self.latest(pair)))


@dataclass
class Seconds:
    """How much is granted in each second."""

    granted: dict[Pair, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(DAYS * DAY_S, int)))

    def move(self, pair: Pair, amount: int, from_s: int) -> None:
        self.granted[pair][from_s:] += amount

    def on(self, pair: Pair, day: int) -> int:
        return int(self.granted[pair][day * DAY_S : (day + 1) * DAY_S].sum())


PAIRS = [(HERE, ALICE), (HERE, BOB), (THERE, ALICE)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["stake", "unstake", "cancel", "redirect"]),
        st.integers(0, DAYS * DAY_S - 1)
        | st.sampled_from([day * DAY_S + n for day in range(1, DAYS) for n in (-1, 0)]),
        st.sampled_from(PAIRS),
        st.sampled_from(PAIRS),
        st.integers(1, 3),
    ),
    max_size=12,
)


@settings(deadline=None)  # a busy machine is no failure
@given(STEPS)
def test_any_history_grants_exactly_the_seconds_that_were_staked(
    steps: list[tuple[str, int, Pair, Pair, int]],
) -> None:
    vault, seconds = Vault(), Seconds()
    staked: dict[Pair, int] = defaultdict(int)
    requests: list[tuple[Pair, int, int]] = []
    for verb, at_s, pair, other, amount in sorted(steps, key=lambda step: step[1]):
        midnight = (at_s // DAY_S + 1) * DAY_S
        if verb == "stake":
            staked[pair] += amount
            vault.move(pair, amount * UNIT, at_s, rest_of_today=True)
            seconds.move(pair, amount, at_s)
        elif verb == "cancel" and requests:
            back, number, made_s = requests.pop()
            later = made_s // DAY_S != at_s // DAY_S
            staked[back] += number
            vault.move(back, number * UNIT, at_s, rest_of_today=later)
            seconds.move(back, number, at_s if later else midnight)
        elif verb in ("unstake", "redirect") and staked[pair] >= amount:
            staked[pair] -= amount
            vault.move(pair, -amount * UNIT, at_s, rest_of_today=False)
            seconds.move(pair, -amount, midnight)
            if verb == "unstake":
                requests.append((pair, amount, at_s))
            else:
                staked[other] += amount
                vault.move(other, amount * UNIT, at_s, rest_of_today=False)
                seconds.move(other, amount, midnight)
    for pair in PAIRS:
        events = [e for e in rules.changes(vault.events, pair[0]) if e.beneficiary == pair[1]]
        assert [rules.allowance(events, day) for day in range(DAYS)] == [seconds.on(pair, day) for day in range(DAYS)]


# --- strips -----------------------------------------------------------------------------------------------------------

NOVEMBER, DECEMBER, JANUARY = (Day.parse(text).number for text in ("2026-11-01", "2026-12-01", "2027-01-01"))


def strips(came_on: int, day: int, today: int, onward: int) -> AllowanceChanged:
    place = Place(1, came_on, f"0x{came_on}", Day(came_on).start_s + 43_200, "0x0", 0)
    return AllowanceChanged(place, HERE, ALICE, day, today, onward, strips=True)


RUNNING = strips(NOVEMBER + 9, NOVEMBER + 9, 40, 100)
"""Activated on the tenth of the running month."""
COMING = strips(NOVEMBER + 9, DECEMBER, 70, 70)
"""Activated on the same day, of the coming month."""


@pytest.mark.parametrize(
    ("events", "day", "grants"),
    [
        ([RUNNING], NOVEMBER + 8, 0),
        ([RUNNING], NOVEMBER + 9, 40),
        ([RUNNING], DECEMBER - 1, 100),
        ([RUNNING], DECEMBER, 0),
        ([COMING], NOVEMBER + 9, 0),
        ([COMING], DECEMBER - 1, 0),
        ([COMING], DECEMBER, 70),
        ([COMING], JANUARY - 1, 70),
        ([COMING], JANUARY, 0),
        ([RUNNING, COMING], DECEMBER - 1, 100),
        ([COMING, RUNNING], NOVEMBER + 20, 100),
        ([COMING, strips(DECEMBER + 3, DECEMBER + 3, 90, 10)], DECEMBER + 2, 70),
        ([COMING, strips(DECEMBER + 3, DECEMBER + 3, 90, 10)], DECEMBER + 4, 10),
    ],
)
def test_strips_grant_in_their_month_alone(events: list[AllowanceChanged], day: int, grants: int) -> None:
    assert rules.allowance(events, day) == grants


def test_a_months_first_day_begins_with_what_was_activated_before_it() -> None:
    assert rules.opening([COMING], DECEMBER) == 70
    assert rules.latest([COMING], DECEMBER) is None
    assert rules.opening([strips(DECEMBER, DECEMBER, 5, 9)], DECEMBER) == 0


def test_stakes_and_strips_are_told_apart() -> None:
    assert rules.changes([STAKED, RUNNING], HERE) == [STAKED]
    assert rules.changes([STAKED, RUNNING], HERE, strips=True) == [RUNNING]
