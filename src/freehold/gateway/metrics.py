"""What is counted of calls, and where: beside the hot path, in the ledger and the routes that the door is given.

A worker writes its own numbers (freehold/metrics.py); `GET /metrics` on any worker sums those of all.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from freehold.db import LOST
from freehold.gateway.asgi import ClientLeft, Exchange, Inference
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import Charge, Hold, Settlement
from freehold.metrics import Family, Histogram, Numbers
from freehold.problems import Problem

Handler = Callable[[Exchange], Awaitable[None]]

_NANO, _MICRO = 9, 6
SECONDS = (1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000, 600_000_000)
"""Bounds in microseconds."""
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

FAMILIES = (
    Family("freehold_workers", "gauge", "Worker processes of this server that are alive."),
    Family("freehold_requests_total", "counter", "Answered requests of inference routes, by status and error code."),
    Family("freehold_request_seconds", "histogram", "From a request to the end of its answer.", _MICRO),
    Family("freehold_calls_total", "counter", "Settled calls, by model and how they ended."),
    Family("freehold_tokens_total", "counter", "Charged tokens, by model and class.", 0),
    Family("freehold_cost_usd_total", "counter", "What accounts paid, by model and purse.", _NANO),
    Family("freehold_settle_seconds", "histogram", "How long settlements took until they were durable.", _MICRO),
    Family("freehold_batch_items", "histogram", "Items that one database call carried."),
    Family("freehold_batch_seconds", "histogram", "How long such a database call took.", _MICRO),
    Family("freehold_upstream_broken", "gauge", "Workers whose circuit to this upstream isn't closed."),
    Family("freehold_upstream_running", "gauge", "Calls that run at this upstream."),
    Family("freehold_upstream_failures", "gauge", "Failures in a row, summed over workers."),
    Family("freehold_holds_open", "gauge", "Open holds, of the whole ledger."),
    Family("freehold_held_usd", "gauge", "Credit in open holds, of the whole ledger.", _NANO),
    Family("freehold_oldest_hold_seconds", "gauge", "Age of the oldest open hold.", _MICRO),
    Family("freehold_absorbed_usd", "gauge", "What the operator has borne, of the whole ledger, by cause.", _NANO),
    Family("freehold_chain_head_block", "gauge", "The node's newest block."),
    Family("freehold_chain_confirmed_block", "gauge", "The newest block that was read, with enough confirmations."),
    Family("freehold_chain_alive", "gauge", "1 while the chain is being read."),
    Family("freehold_ledger_time_seconds", "gauge", "Ledger time."),
    Family("freehold_ledger_time_provisional", "gauge", "1 while the chain stalls and the wall clock carries it on."),
    Family("freehold_days_closed", "gauge", "Days whose receipts are closed under a root, of the last 31."),
    Family(
        "freehold_days_unclosed", "gauge", "Days that are over and not closed yet: one for some minutes after 00:00."
    ),
    Family("freehold_days_unpublished", "gauge", "Of these, days that the book on the chain doesn't have."),
    Family("freehold_days_wrong", "gauge", "Of these, days that stand in the book otherwise than they were closed."),
    Family("freehold_metrics_spilled_total", "counter", "Counted under no name: a worker has too many of them."),
)

UPSTREAM = ("freehold_upstream_broken", "freehold_upstream_running", "freehold_upstream_failures")


class Metrics:
    """One worker's counters of calls."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        numbers.forget(family.name for family in FAMILIES if family.kind == "gauge")
        numbers.put(numbers.slot("freehold_workers"), 1)
        self._settle = numbers.histogram("freehold_settle_seconds", SECONDS)
        self._answers: dict[tuple[str, int, str], tuple[int, Histogram]] = {}
        self._charges: dict[tuple[str, ...], tuple[int, ...]] = {}

    def answered(self, route: str, status: int, code: str, took_s: float) -> None:
        """A request has been answered; `code` is the error's, or `ok`."""
        found = self._answers.get((route, status, code))
        if found is None:
            slot = self.numbers.slot("freehold_requests_total", route=route, status=str(status), code=code)
            found = slot, self.numbers.histogram("freehold_request_seconds", SECONDS, route=route)
            self._answers[route, status, code] = found
        self.numbers.add(found[0])
        found[1].see(int(took_s * 1e6))

    def settled(self, charge: Charge, took_s: float) -> None:
        """A call has been charged."""
        usage, legs = charge.usage, charge.legs
        # The plain texts of the sources: an enum's own hash is a call of Python code each.
        key = (charge.model, charge.outcome, *usage, *[leg.source._value_ for leg in legs])
        slots = self._charges.get(key)
        if slots is None:
            slots = self._charges[key] = self._slots_of(charge)
        self.numbers.add_each(slots, (1, *usage.values(), *[leg.amount_nano for leg in legs]))
        self._settle.see(int(took_s * 1e6))

    def _slots_of(self, charge: Charge) -> tuple[int, ...]:
        """In the order of `settled`."""
        slot, model = self.numbers.slot, charge.model
        return (
            slot("freehold_calls_total", model=model, outcome=charge.outcome),
            *[slot("freehold_tokens_total", model=model, unit=unit) for unit in charge.usage],
            *[slot("freehold_cost_usd_total", model=model, purse=leg.source.value) for leg in charge.legs],
        )

    def batched(self, kind: str) -> Callable[[int, float], None]:
        """What is told of each batch of holds, or of endings."""
        items = self.numbers.histogram("freehold_batch_items", ITEMS, kind=kind)
        seconds = self.numbers.histogram("freehold_batch_seconds", SECONDS, kind=kind)

        def seen(count: int, took_s: float) -> None:
            items.see(count)
            seconds.see(int(took_s * 1e6))

        return seen

    def upstream(self, name: str, *, broken: bool, running: int, failures: int) -> None:
        for family, value in zip(UPSTREAM, (int(broken), running, failures), strict=True):
            self.numbers.put(self.numbers.slot(family, upstream=name), value)


class CountedLedger(Ledger):
    """A ledger that counts what it settles."""

    def __init__(self, *args: Any, metrics: Metrics, **named: Any) -> None:
        super().__init__(*args, **named)
        self.watch: Callable[[Hold, Charge], None] | None = None
        """Told of each charge."""
        self._metrics = metrics
        self._holds.watch = metrics.batched("hold")
        self._endings.watch = metrics.batched("end")

    async def settle(self, hold: Hold, settlement: Settlement) -> Charge:
        began = time.perf_counter()
        charge = await super().settle(hold, settlement)
        self._metrics.settled(charge, time.perf_counter() - began)
        if self.watch is not None:
            self.watch(hold, charge)
        return charge


class Counted:
    """The inference routes, counted."""

    def __init__(self, door: Inference, metrics: Metrics) -> None:
        self._door = door
        self._metrics = metrics
        self._known: dict[str, Handler] = {}

    def route(self, path: str) -> Handler | None:
        handler = self._door.route(path)
        if handler is None:
            return None
        # A client may make up what follows these two; every other path that has a handler is one of a few.
        route = path
        if path.startswith("/v1/models/"):
            route = "/v1/models/{id}"
        elif path.startswith("/v1/messages/") and path != "/v1/messages/count_tokens":
            route = "/v1/messages/{other}"
        counted = self._known.get(route)
        if counted is None:
            counted = self._known[route] = self._counted(handler, route)
        return counted

    def _counted(self, handler: Handler, route: str) -> Handler:
        async def count(exchange: Exchange) -> None:
            began = time.perf_counter()
            status, code = 500, "server_error"
            try:
                await handler(exchange)
                status, code = 200, "ok"
            except ClientLeft:
                status, code = 499, "client_left"
                raise
            except Problem as problem:
                status, code = problem.status, problem.code
                raise
            except LOST:
                status, code = 503, "ledger_unavailable"
                raise
            finally:
                self._metrics.answered(route, 200 if exchange.started else status, code, time.perf_counter() - began)

        return count


def gauges(values: Mapping[str, int | Mapping[str, int]], label: str = "cause") -> dict[str, dict[Any, int]]:
    """Values as `exposition` takes them: a number, or numbers by `label`."""
    return {
        name: {((label, key),): number for key, number in value.items()} if isinstance(value, Mapping) else {(): value}
        for name, value in values.items()
    }
