"""An exchange whose connection ends without a word: of requests sent at once, uvicorn tells only the last."""

from typing import Any

import pytest

from freehold.gateway.asgi import ClientLeft, Exchange, Message


class Transport:
    """What a server writes to; `closed` from the start, or in the middle of a write."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


class Cycle:
    """uvicorn's object of one request, as far as an exchange knows it."""

    def __init__(self, transport: Transport, *, closes: bool = False) -> None:
        self.transport = transport
        self.disconnected = False
        self.sent: list[Message] = []
        self._closes = closes

    async def receive(self) -> Message:
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._closes:
            self.transport.closed = True
            raise RuntimeError("the handler is closed")
        self.sent.append(message)


def exchange_of(cycle: Cycle) -> tuple[Exchange, list[str]]:
    scope: dict[str, Any] = {"method": "POST", "path": "/", "headers": []}
    exchange = Exchange(scope, cycle.receive, cycle.send)
    told: list[str] = []
    exchange.left = lambda: told.append("left")
    exchange.start(200, [])
    return exchange, told


@pytest.mark.parametrize("cycle", [Cycle(Transport(closed=True)), Cycle(Transport(), closes=True)])
async def test_writing_to_an_ended_connection_is_a_client_that_left(cycle: Cycle) -> None:
    exchange, told = exchange_of(cycle)
    with pytest.raises(ClientLeft):
        await exchange.write(b"x", patience_s=1)
    assert (exchange.gone, told, cycle.sent, cycle.disconnected) == (True, ["left"], [], True)


async def test_another_fault_of_the_server_is_not_taken_for_a_client_that_left() -> None:
    class Faulty(Cycle):
        async def send(self, message: Message) -> None:
            raise RuntimeError("a fault")

    exchange, told = exchange_of(Faulty(Transport()))
    with pytest.raises(RuntimeError, match="a fault"):
        await exchange.write(b"x", patience_s=1)
    assert (exchange.gone, told) == (False, [])
