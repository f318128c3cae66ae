"""What is counted of calls: each once, exactly, by names that no client makes up."""

from uuid import uuid4

import pytest

from freehold.db import Database
from freehold.gateway.asgi import AsgiExchange, ClientLeft, Exchange
from freehold.gateway.metrics import FAMILIES, Counted, CountedLedger, Metrics
from freehold.ledger.model import FOREVER_S, HoldRequest, KeyLimits, Settlement, Source
from freehold.metrics import Numbers, Worker, exposition
from freehold.problems import NotFound


def lines(metrics: Metrics, *names: str) -> list[str]:
    text = exposition(FAMILIES, [Worker(True, metrics.numbers.read())], {})
    return [line for line in text.splitlines() if line.startswith(names)]


async def test_settled_calls_are_counted_with_their_tokens_purses_and_batches(database: Database) -> None:
    metrics = Metrics(Numbers.private())
    async with CountedLedger(database, metrics=metrics) as ledger:
        async with database.transaction() as conn:
            account = await ledger.create_account(conn)
            await ledger.put_key(conn, KeyLimits(account, 1, version=1))
        for source, amount in ((Source.PROMO, 100), (Source.PREPAID, 1_000)):
            await ledger.grant(account, source, amount, source.value, starts_at_s=0, expires_at_s=FOREVER_S)
        for _ in range(2):
            hold = await ledger.hold(HoldRequest(account, 1, uuid4(), 300, 300, 0, 1, day_unopened_ok=True))
            charge = await ledger.settle(hold, Settlement(300, "small", {"input": 2, "output": 5}))
            assert charge.cost_nano == 300
    assert lines(metrics, "freehold_calls", "freehold_tokens", "freehold_cost") == [
        'freehold_calls_total{model="small",outcome="complete"} 2',
        'freehold_tokens_total{model="small",unit="input"} 4',
        'freehold_tokens_total{model="small",unit="output"} 10',
        'freehold_cost_usd_total{model="small",purse="prepaid"} 0.0000005',
        'freehold_cost_usd_total{model="small",purse="promo"} 0.0000001',
    ]
    assert lines(metrics, "freehold_settle_seconds_count") == ["freehold_settle_seconds_count 2"]
    assert lines(metrics, "freehold_batch_items_sum") == [
        'freehold_batch_items_sum{kind="end"} 2',
        'freehold_batch_items_sum{kind="hold"} 2',
    ]


class Routes:
    """A door of one handler, which does as its exchange's path says."""

    def route(self, path: str):  # type: ignore[no-untyped-def]
        return self.handle if path.startswith("/v1/") else None

    async def handle(self, exchange: Exchange) -> None:
        match exchange.path.rsplit("/", 1)[1]:
            case "missing":
                raise NotFound(reason="no")
            case "gone":
                raise ClientLeft
            case "fault":
                raise ZeroDivisionError


async def test_requests_are_counted_by_what_they_were_answered() -> None:
    metrics = Metrics(Numbers.private())
    counted = Counted(Routes(), metrics)

    async def ask(path: str) -> None:
        handler = counted.route(path)
        assert handler is not None
        await handler(AsgiExchange({"type": "http", "method": "GET", "path": path, "headers": []}, None, None))  # type: ignore[arg-type]

    await ask("/v1/fine")
    await ask("/v1/models/one")
    await ask("/v1/models/another")
    for path, error in (("/v1/missing", NotFound), ("/v1/gone", ClientLeft), ("/v1/fault", ZeroDivisionError)):
        with pytest.raises(error):
            await ask(path)
    assert counted.route("/other") is None
    assert lines(metrics, "freehold_requests_total") == [
        'freehold_requests_total{code="client_left",route="/v1/gone",status="499"} 1',
        'freehold_requests_total{code="not_found",route="/v1/missing",status="404"} 1',
        'freehold_requests_total{code="ok",route="/v1/fine",status="200"} 1',
        'freehold_requests_total{code="ok",route="/v1/models/{id}",status="200"} 2',
        'freehold_requests_total{code="server_error",route="/v1/fault",status="500"} 1',
    ]


def test_an_upstreams_state_is_shown_and_what_an_ended_worker_left_is_forgotten() -> None:
    numbers = Numbers.private()
    Metrics(numbers).upstream("cloud", broken=True, running=3, failures=5)
    metrics = Metrics(numbers)
    assert lines(metrics, "freehold_upstream_broken") == ['freehold_upstream_broken{upstream="cloud"} 0']
    metrics.upstream("cloud", broken=True, running=3, failures=5)
    assert lines(metrics, "freehold_upstream") == [
        'freehold_upstream_broken{upstream="cloud"} 1',
        'freehold_upstream_running{upstream="cloud"} 3',
        'freehold_upstream_failures{upstream="cloud"} 5',
    ]
    assert lines(metrics, "freehold_workers") == ["freehold_workers 1"]
