"""Limits per minute are refused with 429, and stand in the headers of every answer."""

from dataclasses import replace

from tests.gateway.house import Customer, House
from tests.gateway.raw import CHAT, ask, chat

from freehold.db import Connection


async def limit(house: House, customer: Customer, *, rpm: int | None = None, tpm: int | None = None) -> None:
    async def change(conn: Connection) -> None:
        limits = await house.ledger.key_limits(customer.account_id, customer.key_id, conn=conn)
        await house.ledger.put_key(conn, replace(limits, rpm=rpm, tpm=tpm))

    await house.database.transact(change)


def shown(headers: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("x-ratelimit-"): value for name, value in headers.items() if "x-ratelimit" in name}


async def test_one_request_too_many_is_refused_and_says_when_it_fits(house: House) -> None:
    customer = await house.customer(prepaid="1")
    await limit(house, customer, rpm=2)
    answers = [await ask(house.port, CHAT, chat(stream=n == 1), customer.token) for n in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].code() == "rate_limited"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 61
    assert [shown(answer.headers)["remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert {shown(answer.headers)["limit-requests"] for answer in answers} == {"2"}
    assert shown(answers[0].headers)["reset-requests"].endswith("s")
    assert len(await house.charges(customer)) == 2


async def test_tokens_are_counted_at_most_first_and_as_they_were_at_last(house: House) -> None:
    customer = await house.customer(prepaid="1")
    await limit(house, customer, tpm=10_000)
    first = await ask(house.port, CHAT, chat(max_tokens=4_000), customer.token)
    second = await ask(house.port, CHAT, chat(max_tokens=4_000), customer.token)
    assert (first.status, second.status) == (200, 200)
    held, again = (int(shown(answer.headers)["remaining-tokens"]) for answer in (first, second))
    assert held < 6_000
    assert held - again < 100


async def test_a_call_that_never_fits_is_not_to_be_sent_again(house: House) -> None:
    customer = await house.customer(prepaid="1")
    await limit(house, customer, tpm=100)
    answer = await ask(house.port, CHAT, chat(max_tokens=4_000), customer.token)
    assert (answer.status, answer.code(), answer.headers["x-should-retry"]) == (429, "rate_limited", "false")


async def test_a_refusal_after_the_hold_shows_the_limits_too(house: House) -> None:
    customer = await house.customer(prepaid="1")
    await limit(house, customer, rpm=5)
    answer = await ask(house.port, CHAT, chat(script={"status": 500}), customer.token)
    assert (answer.status, shown(answer.headers)["remaining-requests"]) == (502, "4")


async def test_a_key_without_limits_shows_none(house: House) -> None:
    answer = await ask(house.port, CHAT, chat(), (await house.customer(prepaid="1")).token)
    assert shown(answer.headers) == {}
