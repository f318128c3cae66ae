"""OpenTelemetry traces of model calls, by the gen_ai semantic conventions. Off unless an endpoint is configured.

A call is one span of kind server, a child of the caller's `traceparent`; each try at an upstream is a child of kind
client. What a call asked, answered or was authorised by is in no attribute: names, sizes, outcomes and costs alone.

Everything is a wrapper that is put in only when traces are on: without them no line of this module runs.
"""

import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from freehold.gateway.asgi import ClientLeft, Exchange
from freehold.gateway.door import Handler
from freehold.ledger.model import Charge, Hold
from freehold.pricing.model import (
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHED,
    CACHED_AUDIO,
    REASONING,
    input_tokens,
    output_tokens,
)
from freehold.problems import Problem
from freehold.upstream.model import Answer, Model, Terms, Upstream, UpstreamCall

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

SERVICE = "freehold"
OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""gen_ai.operation.name of each route that calls a model; other routes have no span."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,100}")


class Inference(Protocol):
    """Where inference routes are found."""

    def route(self, path: str) -> Handler | None: ...


def provider_to(endpoint: str) -> "TracerProvider":
    """Where spans go: OTLP over HTTP, in batches, from a thread of its own. `shutdown` sends what is left.

    `endpoint` is a collector's base URL, such as `http://127.0.0.1:4318`, or the whole URL that ends in `/v1/traces`.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    url = endpoint if endpoint.endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"
    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=5)))
    return provider


class Traces:
    """The spans of calls under way."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._otel = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("freehold.gateway")
        self._open: dict[str, tuple[Span, str]] = {}
        """By request id: the call's span, and its operation."""

    # ---- a call

    def begin(self, exchange: Exchange, operation: str) -> "Span":
        """The call's span, a child of the `traceparent` that came with it."""
        given = exchange.header(b"traceparent")
        carrier = {"traceparent": given} if given and _TRACEPARENT.fullmatch(given) else {}
        span = self._tracer.start_span(
            operation,
            context=self._propagator.extract(carrier),
            kind=self._otel.SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": SERVICE,
                "gen_ai.response.id": exchange.request_id,
                "http.request.method": exchange.method,
                "http.route": exchange.path,
            },
        )
        self._open[exchange.request_id] = span, operation
        return span

    def settled(self, hold: Hold, charge: Charge) -> None:
        """What the call came to. Nothing, for a call whose span has ended."""
        found = self._open.get(f"req_{hold.request_id.hex}")
        if found is None:
            return
        span, operation = found
        span.update_name(f"{operation} {charge.model}")
        span.set_attributes(
            {
                "gen_ai.request.model": charge.model,
                "gen_ai.response.model": charge.model,
                **_usage(charge.usage),
                "freehold.cost_nano_usd": charge.cost_nano,
                "freehold.absorbed_nano_usd": charge.absorbed_nano,
                "freehold.price_version": charge.price_version,
                "freehold.outcome": charge.outcome,
                "freehold.usage_estimated": charge.estimated,
                "freehold.purses": sorted({leg.source.value for leg in charge.legs}),
            }
        )

    def end(self, exchange: Exchange, span: "Span", status: int, error: str | None) -> None:
        """The answer has left, or it was refused."""
        self._open.pop(exchange.request_id, None)
        span.set_attribute("http.response.status_code", status)
        self._fail(span, error, server=status >= 500)
        span.end()

    # ---- a try at an upstream

    def around(self, upstream: Upstream) -> Upstream:
        """The upstream, each try at it in a span."""
        return TracedUpstream(upstream, self)

    def begin_upstream(self, name: str, call: UpstreamCall) -> "Span | None":
        """A child of the call's span; None for a call without one."""
        found = self._open.get(call.request_id)
        if found is None:
            return None
        span, operation = found
        return self._tracer.start_span(
            f"{operation} {call.model.upstream_id}",
            context=self._otel.set_span_in_context(span),
            kind=self._otel.SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": name,
                "gen_ai.request.model": call.model.upstream_id,
                "gen_ai.request.stream": call.stream,
            },
        )

    def end_upstream(self, span: "Span", error: str | None) -> None:
        self._fail(span, error, server=True)
        span.end()

    def _fail(self, span: "Span", error: str | None, *, server: bool) -> None:
        if error is None:
            return
        span.set_attribute("error.type", error)
        if server:
            span.set_status(self._otel.StatusCode.ERROR)


def _usage(usage: Mapping[str, int]) -> dict[str, int]:
    found = {
        "gen_ai.usage.input_tokens": input_tokens(usage),
        "gen_ai.usage.output_tokens": output_tokens(usage),
        "gen_ai.usage.cache_read.input_tokens": usage.get(CACHED, 0) + usage.get(CACHED_AUDIO, 0),
        "gen_ai.usage.cache_creation.input_tokens": usage.get(CACHE_WRITE, 0) + usage.get(CACHE_WRITE_1H, 0),
        "gen_ai.usage.reasoning.output_tokens": usage.get(REASONING, 0),
    }
    return {name: tokens for name, tokens in found.items() if tokens or name.count(".") == 2}


class Traced:
    """The inference routes, each call in a span."""

    def __init__(self, door: Inference, traces: Traces) -> None:
        self._door = door
        self._traces = traces

    def route(self, path: str) -> Handler | None:
        handler = self._door.route(path)
        operation = OPERATIONS.get(path)
        if handler is None or operation is None:
            return handler

        async def trace(exchange: Exchange) -> None:
            span = self._traces.begin(exchange, operation)
            status, error = 500, "server_error"
            done = False
            try:
                await handler(exchange)
                status, done = 200, True
            except ClientLeft:
                status, error = 499, "client_left"
                raise
            except Problem as problem:
                status, error = problem.status, problem.code
                raise
            finally:
                self._traces.end(exchange, span, 200 if exchange.started else status, None if done else error)

        return trace


class TracedUpstream:
    """An upstream, each try at it in a span."""

    def __init__(self, upstream: Upstream, traces: Traces) -> None:
        self._upstream = upstream
        self._traces = traces
        self.name: str = upstream.name
        self.models: Mapping[str, Model] = upstream.models
        self.terms: Terms = upstream.terms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream, name)

    async def send(self, call: UpstreamCall) -> Answer:
        """As the upstream does."""
        span = self._traces.begin_upstream(self.name, call)
        if span is None:
            return await self._upstream.send(call)
        began = time.monotonic()
        try:
            answer = await self._upstream.send(call)
        except BaseException as failed:
            self._traces.end_upstream(span, type(failed).__name__)
            raise
        return _TracedAnswer(answer, self._traces, span, began)

    async def close(self) -> None:
        await self._upstream.close()


class _TracedAnswer:
    """An answer whose span ends with it."""

    def __init__(self, answer: Answer, traces: Traces, span: "Span", began: float) -> None:
        self._answer = answer
        self._traces = traces
        self._span = span
        self._began = began
        self._error: str | None = None
        self._ended = False
        self.status = answer.status
        self.content_type = answer.content_type
        self.retry_after_s = answer.retry_after_s
        span.set_attribute("http.response.status_code", answer.status)
        if answer.status >= 400:
            self._error = str(answer.status)

    async def read(self, limit_bytes: int) -> bytes:
        try:
            return await self._answer.read(limit_bytes)
        except BaseException as failed:
            self._error = type(failed).__name__
            raise

    async def chunks(self) -> AsyncIterator[bytes]:
        first = True
        try:
            async for chunk in self._answer.chunks():
                if first:
                    first = False
                    self._span.set_attribute("gen_ai.response.time_to_first_chunk", time.monotonic() - self._began)
                yield chunk
        except Exception as failed:
            self._error = type(failed).__name__
            raise

    async def close(self) -> None:
        try:
            await self._answer.close()
        finally:
            if not self._ended:
                self._ended = True
                self._traces.end_upstream(self._span, self._error)
