"""The tour plays on a whole server, twice, and late in the day."""

from typing import Any

from .conftest import Server


def purses_of(step: Any) -> list[set[str]]:
    return [set(action["answer"]["purses"]) for action in step["actions"] if "answer" in action]


def test_the_tour_plays_the_story_and_can_be_played_again(server: Server) -> None:
    for _ in range(2):
        *steps, end = server.lines("tour")
        told = {step["title"]: step for step in steps}
        assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
        assert end["steps"] == len(steps)
        assert purses_of(told["Call: the allowance pays"]) == [{"allowance"}]
        assert purses_of(told["One call, two purses"])[-1] == {"allowance", "prepaid"}
        refusal = told["Both are used up: 402"]["actions"][-1]
        assert (refusal["status"], refusal["code"]) == (402, "insufficient_credit")
        assert purses_of(told["Deposit USDC and call again"]) == [{"prepaid"}]
        assert purses_of(told["Send DIEM to somebody else"]) == [{"allowance"}]
        assert purses_of(told["The next day"]) == [{"allowance"}]
        assert all(day["amount_nano"] == 0 for day in told["Unstake"]["actions"][-1]["balance"]["next_days"])
    assert server.json("books", "check")["balanced"] is True


def test_the_tour_is_told_with_the_commands_that_one_would_type(server: Server) -> None:
    result = server.run("tour")
    assert result.exit_code == 0, result.output
    for command in (
        "stake hold 200",
        "mint 1",
        "stake diem",
        "deposit",
        "transfer",
        "login --from bob",
        "dev advance-day",
    ):
        assert f"$ freehold {command}" in result.stdout
    assert "402 insufficient_credit" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_model_that_is_not_there_is_one_sentence(server: Server) -> None:
    assert "has no price" in server.refused("tour", "--model", "nonsense")
