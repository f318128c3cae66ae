"""Whom to ask next: the lowest priority that can, by weight."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from freehold.upstream.selection import Candidate, choose

CANDIDATES = st.lists(
    st.builds(Candidate, priority=st.integers(0, 3), weight=st.integers(1, 9), able=st.booleans()), max_size=6
)


@given(CANDIDATES, st.floats(0, 1, exclude_max=True))
def test_one_that_is_able_is_chosen_and_none_is_passed_over_for_a_worse_priority(
    candidates: list[Candidate], draw: float
) -> None:
    chosen = choose(candidates, draw)
    able = [candidate for candidate in candidates if candidate.able]
    if chosen is None:
        assert able == []
    else:
        assert candidates[chosen].able
        assert candidates[chosen].priority == min(candidate.priority for candidate in able)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_each_is_chosen_as_often_as_its_weight_says(weights: list[int]) -> None:
    total = sum(weights)
    candidates = [Candidate(0, weight) for weight in weights]
    found = Counter(choose(candidates, (draw + 0.5) / total) for draw in range(total))
    assert found == dict(enumerate(weights))
