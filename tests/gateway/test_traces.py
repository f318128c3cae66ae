"""Traces of calls: gen_ai's names, the caller's parent, no prompt and no secret; and nothing at all when they are off."""

import asyncio
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.gateway.house import House, worker
from tests.gateway.raw import CHAT, ask

from freehold.db import Database
from freehold.gateway.metrics import CountedLedger, Metrics
from freehold.gateway.traces import Traced, Traces, provider_to
from freehold.metrics import Numbers
from freehold.upstream.scripted import Script, Scripted

SECRET = "tell nobody about the orchard"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USAGE = {
    "prompt_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens": 9,
    "completion_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 21,
}


@asynccontextmanager
async def traced_house(database: Database, provider: TracerProvider) -> AsyncIterator[House]:
    """A worker whose calls are traced, put together as the composition root does."""
    traces = Traces(provider)
    ledger_metrics = Metrics(Numbers.private())

    class Watched(CountedLedger):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, metrics=ledger_metrics, **named)
            self.watch = traces.settled

    scripted = Scripted(script=Script(usage=USAGE))
    async with worker(
        database,
        ledger_type=Watched,
        upstreams=[traces.around(scripted)],
        around=lambda door: Traced(door, traces),
    ) as house:
        house.scripted = scripted
        yield house


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def house(prepared: Database, spans: InMemorySpanExporter) -> AsyncIterator[House]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with traced_house(prepared, provider) as made:
        yield made


async def call(house: House, token: str, **more: Any) -> Any:
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 64, **more}
    return await ask(house.port, CHAT, body, token, traceparent=PARENT)


def by_kind(spans: InMemorySpanExporter) -> tuple[ReadableSpan, ReadableSpan]:
    found = {span.kind: span for span in spans.get_finished_spans()}
    return found[SpanKind.SERVER], found[SpanKind.CLIENT]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_a_span_below_its_callers_with_the_names_of_gen_ai(
    house: House, spans: InMemorySpanExporter, stream: bool
) -> None:
    customer = await house.customer(prepaid="1")
    answer = await call(house, customer.token, stream=stream)
    assert answer.status == 200
    server, client = by_kind(spans)
    assert server.parent is not None and server.context is not None and client.parent is not None
    assert f"{server.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{server.parent.span_id:016x}" == PARENT.split("-")[2]
    assert client.parent.span_id == server.context.span_id
    assert server.name == client.name == "chat scripted-echo"
    found = dict(server.attributes or {})
    charge = await house.charge(customer, found["gen_ai.response.id"])  # type: ignore[arg-type]
    assert {name: found[name] for name in found if name.startswith(("gen_ai.", "freehold.", "http."))} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "freehold",
        "gen_ai.response.id": f"req_{charge.request_id.hex}",
        "gen_ai.request.model": "scripted-echo",
        "gen_ai.response.model": "scripted-echo",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "freehold.cost_nano_usd": charge.cost_nano,
        "freehold.absorbed_nano_usd": 0,
        "freehold.price_version": charge.price_version,
        "freehold.outcome": "complete",
        "freehold.usage_estimated": False,
        "freehold.purses": ("prepaid",),
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
    }
    tried = dict(client.attributes or {})
    assert (tried["gen_ai.provider.name"], tried["gen_ai.request.stream"]) == ("scripted", stream)
    assert ("gen_ai.response.time_to_first_chunk" in tried) == stream


async def test_neither_prompt_nor_answer_nor_key_is_in_any_span(house: House, spans: InMemorySpanExporter) -> None:
    customer = await house.customer(prepaid="1")
    await call(house, customer.token)
    await call(house, "fh_" + "0" * 43)
    house.scripted.script = Script(status=500, body={"error": {"message": SECRET}})
    await call(house, customer.token)
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "gen_ai.operation.name" in told
    for hidden in (SECRET, "orchard", customer.token, "0" * 43):
        assert hidden not in told


async def test_a_refusal_and_a_failing_upstream_are_told_by_their_codes(
    house: House, spans: InMemorySpanExporter
) -> None:
    poor = await house.customer()
    await call(house, poor.token)
    (refused,) = spans.get_finished_spans()
    assert dict(refused.attributes or {})["error.type"] == "insufficient_credit"
    assert dict(refused.attributes or {})["http.response.status_code"] == 402
    assert refused.status.status_code is StatusCode.UNSET
    spans.clear()
    rich = await house.customer(prepaid="1")
    house.scripted.script = Script(status=500)
    answer = await call(house, rich.token)
    server, client = by_kind(spans)
    assert dict(client.attributes or {})["error.type"] == "500"
    assert dict(server.attributes or {})["http.response.status_code"] == answer.status
    assert client.status.status_code is server.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("broken", ["", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 60])
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(
    house: House, spans: InMemorySpanExporter, broken: str
) -> None:
    customer = await house.customer(prepaid="1")
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hi"}]}
    answer = await ask(house.port, CHAT, body, customer.token, traceparent=broken)
    assert answer.status == 200
    server, _ = by_kind(spans)
    assert server.parent is None


async def test_spans_reach_a_collector_by_otlp(prepared: Database) -> None:
    received: list[ExportTraceServiceRequest] = []
    paths: list[str] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        paths.append(head.split(" ")[1])
        received.append(ExportTraceServiceRequest.FromString(body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    collector = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = collector.sockets[0].getsockname()[1]
    provider = provider_to(f"http://127.0.0.1:{port}")
    async with traced_house(prepared, provider) as house:
        customer = await house.customer(prepaid="1")
        assert (await call(house, customer.token)).status == 200
    await asyncio.to_thread(provider.shutdown)
    collector.close()
    assert set(paths) == {"/v1/traces"}
    (resource,) = [found for request in received for found in request.resource_spans]
    assert {kv.key: kv.value.string_value for kv in resource.resource.attributes}["service.name"] == "freehold"
    assert sorted(span.name for scope in resource.scope_spans for span in scope.spans) == ["chat scripted-echo"] * 2


def test_without_an_endpoint_neither_the_sdk_nor_an_exporter_is_even_loaded() -> None:
    program = """
import sys, json
import freehold.app.worker
print(json.dumps([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
