"""The SSE reader finds the same events wherever the network cuts the stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.sse import ALIVE, Frames, FrameTooLong

PAYLOADS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: not text.startswith("\ufeff")
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def read(stream: bytes, cuts: list[int]) -> list[bytes]:
    frames, found, start = Frames(), [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found += frames.feed(stream[start:cut])
        start = cut
    return found + frames.end()


@given(st.lists(st.tuples(st.lists(PAYLOADS, min_size=1, max_size=3), ENDS), max_size=6), st.lists(st.integers(0)))
def test_events_are_the_same_wherever_the_stream_is_cut(events: list[tuple[list[str], str]], cuts: list[int]) -> None:
    stream = "".join("".join(f"data: {line}{end}" for line in lines) + end for lines, end in events).encode()
    assert read(stream, cuts) == ["\n".join(lines).encode() for lines, _ in events]


def test_a_stream_of_single_bytes_is_read() -> None:
    stream = b': hello\r\n\r\nevent: x\r\nid: 1\r\ndata:{"a":\r\ndata: "\xc3\xa9"}\r\n\r\ndata: [DONE]\r\n\r\n'
    assert read(stream, list(range(len(stream)))) == [ALIVE, b'{"a":\n"\xc3\xa9"}', b"[DONE]"]


def test_a_comment_is_a_sign_of_life_and_no_data() -> None:
    assert Frames().feed(b": keep-alive\n\n") == [ALIVE]


def test_a_byte_order_mark_at_the_beginning_is_skipped() -> None:
    assert Frames().feed(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]


def test_an_event_without_data_is_none() -> None:
    assert Frames().feed(b"event: ping\n\ndata:\n\n") == []


def test_the_last_event_needs_no_empty_line() -> None:
    frames = Frames()
    assert frames.feed(b"data: [DONE]") == []
    assert frames.end() == [b"[DONE]"]


@pytest.mark.parametrize("stream", [[b"x" * 60, b"x" * 60], [b"data: " + b"x" * 60 + b"\n"] * 2])
def test_an_endless_event_is_refused(stream: list[bytes]) -> None:
    frames = Frames(longest=100)
    with pytest.raises(FrameTooLong):
        for chunk in stream:
            frames.feed(chunk)


def test_many_short_events_are_no_long_one() -> None:
    frames = Frames(longest=100)
    assert len([data for _ in range(100) for data in frames.feed(b"data: 12345\n\n")]) == 100
