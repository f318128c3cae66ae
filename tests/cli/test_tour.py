"""The tour plays on a whole server, and again on the same one, ten seconds before midnight."""

import asyncio
from typing import Any

from freehold.chain.rpc import Rpc

from .conftest import Server


def purses_of(step: Any) -> list[set[str]]:
    return [set(action["answer"]["purses"]) for action in step["actions"] if "answer" in action]


def test_the_tour_plays_the_story(server: Server) -> None:
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


def test_played_again_late_in_the_day_it_begins_a_new_one_and_says_what_one_would_type(server: Server) -> None:
    """Ten seconds before midnight a stake would grant next to nothing."""
    asyncio.run(move_to_ten_seconds_before_midnight(server.json("status")["chain"]["rpc_url"]))
    result = server.run("tour")
    assert result.exit_code == 0, result.output
    assert "a scripted model answers" in result.stderr
    assert "1. Begin a new day" in result.stdout
    commands = ("stake hold 200", "mint 1", "stake diem", "deposit", "transfer", "login --from bob", "dev advance-day")
    for command in commands:
        assert f"$ freehold {command}" in result.stdout
    assert "USD from allowance 0.0" in result.stdout
    assert "402 insufficient_credit" in result.stdout
    assert "\x1b" not in result.stdout
    assert server.json("books", "check")["balanced"] is True


def test_a_model_that_is_not_there_or_costs_nothing_is_one_sentence(server: Server) -> None:
    assert "has no price" in server.refused("tour", "--model", "nonsense")
    server.json("prices", "set", "free-model", "--force", "--input", "0", "--output", "0")
    assert "costs nothing" in server.refused("tour", "--model", "free-model")


async def move_to_ten_seconds_before_midnight(url: str) -> None:
    async with Rpc(url) as rpc:
        newest = int((await rpc.call("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
        await rpc.call("evm_setNextBlockTimestamp", 86_400 * (1 + newest // 86_400) - 10)
        await rpc.call("evm_mine")
