"""How the CLI writes times, amounts and results."""

import json

import pytest

from freehold.cli.output import Output, duration, seconds_of, when
from freehold.cli.refusal import Refusal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_725, "1 h 2 min"), (90_000, "1 d 1 h"), (-65, "1 min 5 s")],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_time_is_utc_with_the_distance_beside_it() -> None:
    now_s = seconds_of("2026-11-23T22:00:00Z")
    assert when("2026-11-24T00:00:00Z", now_s=now_s).startswith("2026-11-24 00:00:00 UTC (")
    assert when("2026-11-24T00:00:00Z", now_s=now_s).endswith("in 2 h)")
    assert when("2026-11-23T21:59:00Z", now_s=now_s).endswith("1 min ago)")


def test_local_time_stands_beside_utc_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert "(09:00 JST, in 2 h)" in when("2026-11-24T00:00:00Z", now_s=seconds_of("2026-11-23T22:00:00Z"))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_has_no_end_is_said_so() -> None:
    assert when(None) == "never"
    assert when("9999-12-31T23:59:59Z") == "no end"


def test_a_time_that_is_none_is_a_sentence() -> None:
    with pytest.raises(Refusal, match="where a time belongs"):
        seconds_of("soon")


def test_a_result_is_one_json_document_or_what_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).document({"a": 1}, lambda out: out.say("drawn"))
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    Output(as_json=False).document({"a": 1}, lambda out: out.say("drawn [red]x[/red]"))
    assert capsys.readouterr().out == "drawn [red]x[/red]\n"


def test_a_table_in_a_pipe_has_no_colour_and_takes_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("name", ">amount"), [("[bold]alice[/bold]", "1.50")])
    shown = capsys.readouterr().out
    assert "[bold]alice[/bold]" in shown
    assert "\x1b" not in shown
