"""A circuit opens after failures in a row, lets one call try after a while, and closes when that one is answered."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.upstream.health import HEALTHY, PROBE_S, Health, State
from freehold.upstream.model import Terms

TERMS = Terms(failures=3, open_s=10)


def failed(times: int, now_s: float = 0.0) -> Health:
    """By calls of as many accounts."""
    health = HEALTHY
    for account_id in range(times):
        health = health.failed(now_s, TERMS, account_id)
    return health


def test_a_circuit_opens_with_the_last_failure_in_a_row() -> None:
    assert failed(2).state(0) is State.CLOSED
    assert failed(3).state(0) is State.OPEN
    assert not failed(3).able(9.9)


def test_an_answer_between_begins_the_count_anew() -> None:
    assert failed(2).answered().failed(0, TERMS, 7) == Health(1, blaming=frozenset({7}))


def test_after_a_while_one_call_tries_and_the_others_wait() -> None:
    health = failed(3)
    assert health.state(10) is State.HALF_OPEN
    assert health.able(10)
    assert not health.asked(10).able(11)
    assert health.asked(10).wait_s(11) == 1.0


def test_a_probe_that_fails_opens_the_circuit_anew_and_one_that_is_answered_closes_it() -> None:
    probed = failed(3).asked(10)
    assert not probed.failed(12, TERMS, None).able(21.9)
    assert probed.failed(12, TERMS, None).able(22)
    assert probed.answered() == HEALTHY


def test_a_probe_that_ends_without_a_sign_lets_the_next_one_try() -> None:
    assert failed(3).asked(10).unknown().able(10)
    assert failed(3).asked(10).able(10 + PROBE_S)


def test_one_account_alone_never_opens_a_circuit_and_a_second_one_does() -> None:
    health = HEALTHY
    for _ in range(100):
        health = health.failed(0, TERMS, 7)
    assert (health.failures, health.state(0)) == (100, State.CLOSED)
    assert health.failed(0, TERMS, 8).state(0) is State.OPEN


def test_without_a_connection_nobodys_request_is_to_blame() -> None:
    alone = HEALTHY.failed(0, TERMS, None).failed(0, TERMS, None)
    assert alone.failed(0, TERMS, None).state(0) is State.OPEN
    assert alone.failed(0, TERMS, 7).state(0) is State.OPEN


def test_an_account_whose_probes_fail_keeps_no_circuit_open() -> None:
    health = failed(3)
    for _ in range(10):
        health = health.asked(10).failed(10, TERMS, 7)
        assert health.able(10)
    assert health.asked(10).failed(10, TERMS, 8).state(10) is State.OPEN


@given(st.lists(st.sampled_from(["failed", "answered", "asked", "unknown", "wait"]), max_size=30))
def test_whatever_happens_it_is_asked_again_some_day_and_says_when(events: list[str]) -> None:
    health, now_s = HEALTHY, 0.0
    for event in events:
        now_s += 1
        if event == "failed":
            health = health.failed(now_s, TERMS, int(now_s) % 2 or None)
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
