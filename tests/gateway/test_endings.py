"""However a call ends, its hold is settled or released, by the stated rule."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.gateway.house import Customer, House, worker
from tests.gateway.raw import CHAT, ask, chat, connect, request
from tests.gateway.test_meter import LIES

from freehold.db import Database
from freehold.gateway.settings import DoorSettings
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Charge, Hold, HoldRequest, Settlement
from freehold.money import format_usd
from freehold.problems import LedgerUnavailable
from freehold.upstream.model import Kind, Model, UpstreamCall
from freehold.upstream.scripted import Script, Scripted

WORDS = ["one ", "two ", "three ", "four ", "five "]
INPUT = 4
"""A quarter of the bytes of "user" and "hello there", rounded up: what the rule takes as the input of `chat()`."""


def cost_nano(output: int) -> int:
    """Of `chat()` with this many output tokens, in scripted-echo's price."""
    return INPUT * 1_000 + output * 2_000


async def only_charge(house: House, customer: Customer) -> Charge:
    """The account's one charge; nothing else is held or gone."""
    (charge,) = await house.charges(customer)
    assert await house.held_nano(customer) == 0
    assert await house.left_nano(customer) == 10**9 - charge.cost_nano
    return charge


async def nothing_charged(house: House, customer: Customer) -> None:
    assert await house.charges(customer) == []
    assert await house.held_nano(customer) == 0
    assert await house.left_nano(customer) == 10**9


async def start_stream(house: House, customer: Customer, script: dict[str, Any], until: int) -> None:
    """Read a stream until `until` of its words have come, then leave; returns when the door is done with it."""
    async with connect(house.port) as connection:
        body = json.dumps(chat(stream=True, script={"chunks": WORDS, **script})).encode()
        await connection.send(request(CHAT, body, customer.token))
        assert (await connection.head()).status == 200
        said = b""
        while said.count(b'"content":"') + said.count(b'"content": "') < until + 1:
            said += await connection.part()
        connection.leave()
    await house.app.quiet()


@asynccontextmanager
async def slow_client(port: int) -> AsyncIterator[socket.socket]:
    """A connection whose kernel keeps little of what nobody reads."""
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        yield client


class TestAClientThatLeaves:
    @pytest.mark.parametrize("at", range(len(WORDS) + 1))
    async def test_at_any_chunk_pays_for_the_deltas_that_came_before(self, house: House, at: int) -> None:
        customer = await house.customer(prepaid="1")
        await start_stream(house, customer, {"hang_after": at}, at)
        charge = await only_charge(house, customer)
        assert (charge.outcome, charge.estimated) == ("disconnected", True)
        assert charge.usage == {"input": INPUT, "output": at}
        assert charge.cost_nano == cost_nano(at)
        assert house.scripted.seen[-1].closed

    @pytest.mark.parametrize(
        ("usage", "charged"), [("reported", {"input": 3, "output": 5}), ("missing", {"input": INPUT, "output": 2})]
    )
    async def test_pays_the_usage_if_it_still_comes_and_no_delta_after(
        self, house: House, usage: str, charged: dict[str, int]
    ) -> None:
        customer = await house.customer(prepaid="1")
        house.scripted.gate = asyncio.Event()
        async with connect(house.port) as connection:
            script = {"chunks": WORDS, "hang_after": 2, "usage": usage}
            await connection.send(request(CHAT, json.dumps(chat(stream=True, script=script)).encode(), customer.token))
            await house.scripted.hanging.wait()
            connection.leave()
        await house.app.left.wait()
        house.scripted.gate.set()
        await house.app.quiet()
        charge = await only_charge(house, customer)
        assert (charge.outcome, charge.estimated) == ("disconnected", usage == "missing")
        assert charge.usage == charged

    async def test_before_a_plain_answer_pays_for_its_input(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        async with connect(house.port) as connection:
            await connection.send(request(CHAT, json.dumps(chat(script={"hang_after": 0})).encode(), customer.token))
            await house.scripted.hanging.wait()
            connection.leave()
        await house.app.quiet()
        charge = await only_charge(house, customer)
        assert (charge.outcome, charge.usage) == ("disconnected", {"input": INPUT, "output": 0})

    async def test_before_the_upstream_refuses_pays_nothing(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        house.scripted.gate = asyncio.Event()
        async with connect(house.port) as connection:
            body = json.dumps(chat(script={"hang_after": -1, "status": 500})).encode()
            await connection.send(request(CHAT, body, customer.token))
            await house.scripted.hanging.wait()
            connection.leave()
        await house.app.left.wait()
        house.scripted.gate.set()
        await house.app.quiet()
        await nothing_charged(house, customer)

    async def test_while_its_body_is_read_holds_nothing(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        async with connect(house.port) as connection:
            await connection.send(request(CHAT, json.dumps(chat()).encode(), customer.token)[:-5])
            connection.leave()
        await house.app.quiet()
        await nothing_charged(house, customer)

    async def test_while_its_credit_is_held_reaches_no_upstream(self, prepared: Database) -> None:
        async with worker(prepared, ledger_type=Slow) as house:
            assert isinstance(house.ledger, Slow)
            house.ledger.holding = asyncio.Event()
            customer = await house.customer(prepaid="1")
            async with connect(house.port) as connection:
                await connection.send(request(CHAT, json.dumps(chat()).encode(), customer.token))
                await house.ledger.asked.wait()
                connection.leave()
            await house.app.left.wait()
            house.ledger.holding.set()
            await house.app.quiet()
            assert house.scripted.seen == []
            await nothing_charged(house, customer)

    async def test_by_accepting_nothing_is_cut_off_and_pays_the_usage(self, prepared: Database) -> None:
        flood = Scripted(script=Script(chunks=("x" * 100_000,) * 20))
        settings = DoorSettings(send_patience_s=0.2)
        async with worker(prepared, settings=settings, scripted=flood, send_buffer_bytes=4_096) as house:
            customer = await house.customer(prepaid="1")
            async with slow_client(house.port) as client:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client, request(CHAT, json.dumps(chat(stream=True)).encode(), customer.token))
                await house.app.called.wait()
                await house.app.quiet()
                assert house.server is not None
                assert house.server.connections() == 0
            (charge,) = await house.charges(customer)
            assert (charge.outcome, charge.estimated) == ("disconnected", False)
            assert await house.held_nano(customer) == 0

    async def test_but_reads_slowly_gets_it_all(self, prepared: Database) -> None:
        """Each pause is within the client's patience, the time that the waiting bytes take in all is not."""
        patient = DoorSettings(send_patience_s=0.3)
        long = Scripted(script=Script(chunks=("x" * 120_000,) * 3))
        async with worker(prepared, settings=patient, scripted=long, send_buffer_bytes=4_096) as house:
            customer = await house.customer(prepaid="1")
            loop = asyncio.get_running_loop()
            async with slow_client(house.port) as client:
                await loop.sock_sendall(client, request(CHAT, json.dumps(chat(stream=True)).encode(), customer.token))
                said = b""
                while not said.endswith(b"0\r\n\r\n"):
                    part = await loop.sock_recv(client, 4_096 if len(said) < 150_000 else 65_536)
                    assert part, "the slow client was cut off"
                    said += part
                    await asyncio.sleep(0.03 if len(said) < 150_000 else 0)
            assert said.count(b"x" * 1_000) == 360
            (charge,) = await house.charges(customer)
            assert charge.outcome == "complete"


class TestAnUpstreamThatDies:
    @pytest.mark.parametrize("at", range(1, len(WORDS) + 1))
    async def test_after_some_chunks_is_charged_for_those(self, house: House, at: int) -> None:
        customer = await house.customer(prepaid="1")
        response = await ask(
            house.port, CHAT, chat(stream=True, script={"chunks": WORDS, "die_after": at}), customer.token
        )
        charge = await only_charge(house, customer)
        assert (charge.outcome, charge.estimated) == ("upstream_died", True)
        assert charge.cost_nano == cost_nano(at)
        assert response.text() == "".join(WORDS[:at])
        assert response.chunks()[-1]["error"]["code"] == "upstream_error"
        assert response.events()[-1].startswith(": freehold cost=0.0000")
        assert "data: [DONE]" not in response.events()

    @pytest.mark.parametrize("script", [{"die_after": 0}, {"die": True}, {"unreachable": True}])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_before_anything_came_costs_nothing(self, house: House, script: dict[str, Any], stream: bool) -> None:
        customer = await house.customer(prepaid="1")
        response = await ask(house.port, CHAT, chat(stream=stream, script=script), customer.token)
        await nothing_charged(house, customer)
        assert "error" in response.body.decode()
        assert response.status in ((200, 502, 503) if stream else (502, 503))

    async def test_in_a_plain_answer_costs_nothing(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        response = await ask(house.port, CHAT, chat(script={"die_after": 1}), customer.token)
        assert (response.status, response.code()) == (502, "upstream_error")
        await nothing_charged(house, customer)

    async def test_at_its_read_timeout_is_named(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        response = await ask(house.port, CHAT, chat(script={"timeout_after": -1}), customer.token)
        assert (response.status, response.code()) == (504, "upstream_timeout")
        await nothing_charged(house, customer)

    async def test_without_an_end_marker_is_whole_if_it_said_finish(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        response = await ask(house.port, CHAT, chat(stream=True, script={"done": False}), customer.token)
        assert response.events()[-1] == "data: [DONE]"
        assert (await only_charge(house, customer)).outcome == "complete"


class TestAnUpstreamThatRefuses:
    @pytest.mark.parametrize(
        ("status", "answered", "code"),
        [
            (400, 400, "invalid_request"),
            (422, 400, "invalid_request"),
            (401, 502, "upstream_error"),
            (403, 502, "upstream_error"),
            (404, 502, "upstream_error"),
            (408, 504, "upstream_timeout"),
            (413, 413, "request_too_large"),
            (429, 503, "no_upstream"),
            (500, 502, "upstream_error"),
            (503, 503, "no_upstream"),
            (504, 504, "upstream_timeout"),
            (302, 502, "upstream_error"),
        ],
    )
    @pytest.mark.parametrize("stream", [True, False])
    async def test_is_named_and_costs_nothing(
        self, house: House, status: int, answered: int, code: str, stream: bool
    ) -> None:
        customer = await house.customer(prepaid="1")
        body = chat(stream=stream, script={"status": status, "body": {"error": {"message": "sk-secret"}}})
        response = await ask(house.port, CHAT, body, customer.token)
        assert (response.status, response.code()) == (answered, code)
        assert status in (400, 422) or "sk-secret" not in response.body.decode()
        await nothing_charged(house, customer)

    async def test_for_its_context_is_a_request_too_large(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        error = {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}
        response = await ask(house.port, CHAT, chat(script={"status": 400, "body": {"error": error}}), customer.token)
        assert (response.status, response.code()) == (413, "request_too_large")

    async def test_says_when_to_come_back(self, house: House) -> None:
        customer = await house.customer(prepaid="1")
        response = await ask(house.port, CHAT, chat(script={"status": 429, "retry_after": 17}), customer.token)
        assert response.headers["retry-after"] == "17"


class TestUsageThatCantBeBelieved:
    @pytest.mark.parametrize("lie", ["missing", *LIES])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_is_charged_by_the_rule_and_shown_as_charged(self, house: House, lie: Any, stream: bool) -> None:
        customer = await house.customer(prepaid="1")
        body = chat(stream=stream, script={"chunks": WORDS, "usage": lie})
        if stream:
            body["stream_options"] = {"include_usage": True}
        response = await ask(house.port, CHAT, body, customer.token)
        charge = await only_charge(house, customer)
        output = len(WORDS) if stream else -(-len("".join(WORDS)) // 4)
        assert (charge.outcome, charge.estimated) == ("complete", True)
        assert charge.usage == {"input": INPUT, "output": output}
        shown = response.chunks()[-1]["usage"] if stream else response.json()["usage"]
        assert (shown["prompt_tokens"], shown["completion_tokens"]) == (INPUT, output)

    async def test_but_is_above_the_hold_is_not_billed_beyond_it(self, house: House) -> None:
        customer = await house.customer(prepaid="0.01")
        usage = {"prompt_tokens": 10, "completion_tokens": 900_000_000}
        response = await ask(house.port, CHAT, chat(max_tokens=5, script={"usage": usage}), customer.token)
        assert response.status == 200
        charge = await house.charge(customer, response.headers["x-request-id"])
        assert charge.cost_nano == charge.held_nano
        assert charge.absorbed_nano > 0
        left = await house.left_nano(customer)
        assert left == 10**7 - charge.held_nano
        assert response.headers["x-freehold-cost"] == format_usd(10**7 - left)
        assert await house.held_nano(customer) == 0


class Slow(Ledger):
    """The real ledger, whose answers can be held up."""

    down = False
    gate: asyncio.Event | None = None
    holding: asyncio.Event | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked = asyncio.Event()

    async def hold(self, request: HoldRequest) -> Hold:
        if self.holding is not None:
            self.asked.set()
            await self.holding.wait()
        return await super().hold(request)

    async def settle(self, hold: Hold, settlement: Settlement) -> Charge:
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise LedgerUnavailable(reason="it is down")
        return await super().settle(hold, settlement)


class TestALedgerThatIsSlow:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_holds_the_end_back_and_settles_later(self, prepared: Database, stream: bool) -> None:
        hurried = DoorSettings(settle_patience_s=0.1)
        async with worker(prepared, settings=hurried, ledger_type=Slow) as house:
            assert isinstance(house.ledger, Slow)
            house.ledger.gate = asyncio.Event()
            customer = await house.customer(prepaid="1")
            response = await ask(house.port, CHAT, chat(stream=stream), customer.token)
            if stream:
                assert response.text() == "You said: hello there"
                assert response.chunks()[-1]["error"]["code"] == "ledger_unavailable"
                assert "data: [DONE]" not in response.events()
            else:
                assert (response.status, response.code()) == (503, "ledger_unavailable")
                assert "x-freehold-cost" not in response.headers
            assert await house.charges(customer) == []
            house.ledger.gate.set()
            await house.door.finish()
            await only_charge(house, customer)

    async def test_is_asked_again_until_the_outcome_is_known(
        self, prepared: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with worker(prepared, settings=DoorSettings(settle_patience_s=0.1), ledger_type=Slow) as house:
            assert isinstance(house.ledger, Slow)
            house.ledger.down = True
            customer = await house.customer(prepaid="1")
            assert (await ask(house.port, CHAT, chat(), customer.token)).code() == "ledger_unavailable"
            house.ledger.down = False
            await house.door.finish()
            await only_charge(house, customer)
        assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("path", "method"), [(CHAT, "POST"), ("/v1/models", "GET")])
async def test_a_database_that_is_lost_is_named(own_house: House, path: str, method: str) -> None:
    customer = await own_house.customer(prepaid="1")
    own_house.database.pool.terminate()
    response = await ask(own_house.port, path, chat(), customer.token, method=method)
    assert (response.status, response.code()) == (503, "ledger_unavailable")
    assert response.headers["retry-after"]


class Faulty(Scripted):
    """An upstream adapter with a fault of its own."""

    async def send(self, call: UpstreamCall) -> Any:
        raise ZeroDivisionError("secret detail")


async def test_a_fault_of_ours_is_a_named_500_without_details_and_frees_the_hold(prepared: Database) -> None:
    async with worker(prepared, scripted=Faulty()) as house:
        customer = await house.customer(prepaid="1")
        for stream in (True, False):
            response = await ask(house.port, CHAT, chat(stream=stream), customer.token)
            assert (response.status, response.code()) == (500, "server_error")
            assert response.headers["x-request-id"] in response.body.decode()
            assert "secret" not in response.body.decode()
        await nothing_charged(house, customer)


class Uncountable(Model):
    """What it costs the operator can't be told."""

    def cost_nano_up(self, *, input_tokens: int, output_tokens: int) -> int:
        raise OverflowError("secret detail")


async def test_a_cost_that_cannot_be_told_frees_the_hold(prepared: Database) -> None:
    model = Uncountable("scripted-echo", Kind.CHAT, 8_192, 4_096, "scripted-echo")
    async with worker(prepared, scripted=Scripted(models=[model])) as house:
        customer = await house.customer(prepaid="1")
        plain = await ask(house.port, CHAT, chat(), customer.token)
        assert (plain.status, plain.code()) == (500, "server_error")
        streamed = await ask(house.port, CHAT, chat(stream=True), customer.token)
        assert streamed.chunks()[-1]["error"]["code"] == "server_error"
        await nothing_charged(house, customer)


async def test_a_call_ends_at_its_deadline(prepared: Database) -> None:
    async with worker(prepared, settings=DoorSettings(deadline_s=0.3)) as house:
        customer = await house.customer(prepaid="1")
        streamed = chat(stream=True, script={"chunks": WORDS, "hang_after": 2})
        response = await ask(house.port, CHAT, streamed, customer.token)
        assert response.chunks()[-1]["error"]["code"] == "upstream_timeout"
        charge = await only_charge(house, customer)
        assert (charge.outcome, charge.cost_nano) == ("deadline", cost_nano(2))
        plain = await ask(house.port, CHAT, chat(script={"hang_after": 0}), customer.token)
        assert (plain.status, plain.code()) == (504, "upstream_timeout")
        assert await only_charge(house, customer) == charge


async def test_a_worker_that_stops_settles_first(prepared: Database) -> None:
    async with worker(prepared) as house:
        customer = await house.customer(prepaid="1")
        hold = asyncio.create_task(ask(house.port, CHAT, chat(stream=True, script={"hang_after": 1}), customer.token))
        await house.scripted.hanging.wait()
        house.app.cancel()
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await hold
        await house.door.finish()
        charge = await only_charge(house, customer)
    assert charge.cost_nano == cost_nano(1)
