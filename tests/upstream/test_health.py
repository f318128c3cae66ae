"""A circuit opens after failures in a row, lets one call try after a while, and closes when that one is answered."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.upstream.health import HEALTHY, PROBE_S, Health, State
from freehold.upstream.model import Terms

TERMS = Terms(failures=3, open_s=10)


def failed(times: int, now_s: float = 0.0) -> Health:
    health = HEALTHY
    for _ in range(times):
        health = health.failed(now_s, TERMS)
    return health


def test_a_circuit_opens_with_the_last_failure_in_a_row() -> None:
    assert failed(2).state(0) is State.CLOSED
    assert failed(3).state(0) is State.OPEN
    assert not failed(3).able(9.9)


def test_an_answer_between_begins_the_count_anew() -> None:
    assert failed(2).answered().failed(0, TERMS) == Health(1)


def test_after_a_while_one_call_tries_and_the_others_wait() -> None:
    health = failed(3)
    assert health.state(10) is State.HALF_OPEN
    assert health.able(10)
    assert not health.asked(10).able(11)
    assert health.asked(10).wait_s(11) == 1.0


def test_a_probe_that_fails_opens_the_circuit_anew_and_one_that_is_answered_closes_it() -> None:
    probed = failed(3).asked(10)
    assert not probed.failed(12, TERMS).able(21.9)
    assert probed.failed(12, TERMS).able(22)
    assert probed.answered() == HEALTHY


def test_a_probe_that_ends_without_a_sign_lets_the_next_one_try() -> None:
    assert failed(3).asked(10).unknown().able(10)
    assert failed(3).asked(10).able(10 + PROBE_S)


@given(st.lists(st.sampled_from(["failed", "answered", "asked", "unknown", "wait"]), max_size=30))
def test_whatever_happens_it_is_asked_again_some_day_and_says_when(events: list[str]) -> None:
    health, now_s = HEALTHY, 0.0
    for event in events:
        now_s += 1
        if event == "failed":
            health = health.failed(now_s, TERMS)
        elif event == "answered":
            health = health.answered()
        elif event == "asked" and health.able(now_s):
            health = health.asked(now_s)
        elif event == "unknown":
            health = health.unknown()
        elif event == "wait":
            now_s += health.wait_s(now_s)
        assert health.able(now_s) == (health.wait_s(now_s) == 0)
    assert health.able(now_s + PROBE_S + TERMS.open_s)
