"""The same Idempotency-Key twice is one call: one charge, one answer."""

import asyncio
import json

import pytest
from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, Response, ask, chat, connect, request

from freehold.db import Database
from freehold.gateway import door
from freehold.gateway.replay import Answers
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Hold
from freehold.problems import LedgerUnavailable

NAME = "idempotency-key"


async def call(house: House, customer: Customer, key: str = "one", **fields: object) -> Response:
    return await ask(house.port, CHAT, chat(**fields), customer.token, **{NAME: key})  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_call_gets_the_first_ones_answer_and_costs_nothing(house: House, stream: bool) -> None:
    customer = await house.customer(prepaid="1")
    options = {"stream_options": {"include_usage": True}} if stream else {}
    first = await call(house, customer, stream=stream, **options)
    second = await call(house, customer, stream=stream, **options)
    assert (first.status, second.status) == (200, 200)
    assert second.body == first.body
    assert len(house.scripted.seen) == 1
    assert len(await house.charges(customer)) == 1
    for name in ("x-request-id", "content-type", "x-freehold-allowance-reset"):
        assert second.headers[name] == first.headers[name]
    assert (second.headers["idempotent-replayed"], first.headers.get("idempotent-replayed")) == ("true", None)
    if not stream:
        assert second.headers["x-freehold-cost"] == first.headers["x-freehold-cost"] != "0.00"


async def test_a_long_answer_is_kept_after_its_settlement(house: House) -> None:
    customer = await house.customer(prepaid="1")
    script = {"chunks": ["word " * 1_000] * 40}
    first = await call(house, customer, script=script, max_tokens=100)
    assert len(first.body) > 64 * 1024
    assert (await call(house, customer, script=script, max_tokens=100)).body == first.body
    assert len(house.scripted.seen) == 1


class Keepless(Ledger):
    """A ledger that keeps no answer."""

    fault: Exception = RuntimeError("no room")
    tries = 0

    async def store_answer(self, hold: Hold, answer: bytes) -> bool:
        self.tries += 1
        raise self.fault


LONG = {"script": {"chunks": ["word " * 1_000] * 40}, "max_tokens": 100}
"""Its answer is kept after its settlement."""


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_can_never_be_kept_is_paid_for_and_given_and_tried_once(
    prepared: Database, stream: bool
) -> None:
    async with worker(prepared, ledger_type=Keepless) as house:
        customer = await house.customer(prepaid="1")
        first = await call(house, customer, stream=stream, **LONG)
        (charge,) = await house.charges(customer)
        await house.door.finish()
        assert (first.status, b"word word" in first.body, charge.outcome) == (200, True, "complete")
        assert not stream or first.events()[-1] == "data: [DONE]"
        assert isinstance(house.ledger, Keepless)
        assert house.ledger.tries == 1


async def test_one_that_cannot_be_kept_for_now_is_given_at_once_and_not_tried_for_ever(
    prepared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "STORE_PATIENCE_S", 0.01)
    monkeypatch.setattr(door, "STORE_FOR_S", 0.5)
    monkeypatch.setattr(Keepless, "fault", LedgerUnavailable(reason="it is elsewhere"))
    async with worker(prepared, ledger_type=Keepless) as house:
        customer = await house.customer(prepaid="1")
        assert (await call(house, customer, **LONG)).status == 200
        await house.door.finish(patience_s=120)
        assert not house.door._settling
        assert await house.held_nano(customer) == 0


async def test_one_above_a_mebibyte_is_not_kept_and_the_receipt_is_named(house: House) -> None:
    customer = await house.customer(prepaid="1")
    script = {"chunks": ["x" * 1024 * 1024, "y"]}
    first = await call(house, customer, script=script, max_tokens=100)
    second = await call(house, customer, script=script, max_tokens=100)
    assert (first.status, second.status, second.code()) == (200, 409, "idempotency_conflict")
    assert first.headers["x-request-id"] in second.json()["error"]["message"]


async def test_who_opts_out_is_told_the_receipt(house: House) -> None:
    customer = await house.customer(prepaid="1")
    first = await call(house, customer, freehold={"store": False})
    second = await call(house, customer, freehold={"store": False})
    assert (second.status, second.headers["x-should-retry"]) == (409, "false")
    assert f"/v1/account/receipts/{first.headers['x-request-id']}" in second.json()["error"]["message"]
    assert "freehold" not in json.loads(house.scripted.seen[-1].body)
    assert len(await house.charges(customer)) == 1


@pytest.mark.parametrize("wrong", ["x", {"store": 1}, {"stor": False}, []])
async def test_an_option_that_is_not_known_is_refused(house: House, wrong: object) -> None:
    customer = await house.customer(prepaid="1")
    answer = await call(house, customer, freehold=wrong)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "freehold")


async def test_while_the_first_runs_the_second_is_told_to_wait(house: House) -> None:
    customer = await house.customer(prepaid="1")
    house.scripted.gate = asyncio.Event()
    fields = {"script": {"hang_after": -1}}
    first = asyncio.create_task(call(house, customer, **fields))
    await house.scripted.hanging.wait()
    second = await call(house, customer, **fields)
    assert (second.status, second.code()) == (409, "idempotency_in_progress")
    assert int(second.headers["retry-after"]) >= 1
    house.scripted.gate.set()
    answer = await first
    assert (await call(house, customer, **fields)).body == answer.body


async def test_another_body_is_refused_for_good(house: House) -> None:
    customer = await house.customer(prepaid="1")
    await call(house, customer)
    answer = await call(house, customer, max_tokens=3)
    assert (answer.status, answer.code(), answer.headers["x-should-retry"]) == (409, "idempotency_conflict", "false")


async def test_another_account_may_use_the_same_key(house: House) -> None:
    one, two = await house.customer(prepaid="1"), await house.customer(prepaid="1")
    await call(house, one)
    assert "idempotent-replayed" not in (await call(house, two)).headers


async def test_a_call_that_failed_may_be_sent_again(house: House) -> None:
    customer = await house.customer(prepaid="1")
    script = {"status": 500}
    assert (await call(house, customer, script=script)).status == 502
    assert (await call(house, customer, script=script)).status == 502
    assert len(house.scripted.seen) == 2


async def test_who_was_cut_off_gets_the_answer_when_its_usage_still_came(house: House) -> None:
    customer = await house.customer(prepaid="1")
    house.scripted.gate = asyncio.Event()
    body = json.dumps(chat(script={"hang_after": 0})).encode()
    async with connect(house.port) as connection:
        await connection.send(request(CHAT, body, customer.token, **{NAME: "one"}))
        await house.scripted.hanging.wait()
        connection.leave()
        await house.app.left.wait()
    house.scripted.gate.set()
    await house.app.quiet()
    again = await ask(house.port, CHAT, body, customer.token, **{NAME: "one"})
    assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
    assert len(await house.charges(customer)) == 1


async def test_a_database_alone_shows_no_answer(house: House) -> None:
    customer = await house.customer(prepaid="1")
    await call(house, customer, messages=[{"role": "user", "content": "tell nobody"}])
    rows = await house.database.fetch("select * from ledger.idempotency where account_id = $1", customer.account_id)
    kept = b"".join(value for row in rows for value in row.values() if isinstance(value, bytes))
    assert len(kept) > 200
    assert b"nobody" not in kept


def test_an_answer_opens_only_for_its_own_call_and_key() -> None:
    answers = Answers(b"k" * 32)
    sealed = answers.seal(1, "one", b"hello")
    assert answers.open(1, "one", sealed) == b"hello"
    assert answers.open(2, "one", sealed) is None
    assert answers.open(1, "two", sealed) is None
    assert Answers(b"j" * 32).open(1, "one", sealed) is None
    assert answers.open(1, "one", sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert answers.open(1, "one", b"") is None
