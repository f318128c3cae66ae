"""Every refusal of the account API in OpenAI's shape: also wrong fields, unknown routes and faults."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from freehold.db import LOST
from freehold.gateway.asgi import App, AsgiExchange, ClientLeft, Message, Receive, Scope, Send
from freehold.gateway.problems import MethodNotAllowed, ServerFault
from freehold.problems import InvalidRequest, LedgerUnavailable, NotFound, Problem, error_body

log = logging.getLogger("freehold.gateway.account")

PATIENCE_S = 30.0
"""A client that sends no part of its body for this long is refused."""


class ErrorDetail(BaseModel):
    message: str = Field(description="A sentence: the cause, the number and the mend.")
    type: str = Field(examples=["invalid_request_error"])
    code: str = Field(examples=["invalid_request"])
    param: str | None = Field(description="The field that is meant, if it is one.")


class ErrorBody(BaseModel):
    """What every refusal looks like."""

    error: ErrorDetail


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for OpenAPI."""
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


def respond(problem: Problem) -> Response:
    """A refusal as a response."""
    body = json.dumps(error_body(problem), ensure_ascii=False).encode("utf-8", "replace")
    headers = dict(problem.headers())
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(body, problem.status, headers, "application/json")


def install(app: FastAPI, *, body_limit_bytes: int) -> None:
    """Answer whatever a route raises."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in LOST:
        app.add_exception_handler(kind, _unreachable)
    app.add_middleware(Guard, limit_bytes=body_limit_bytes)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101
    return respond(error)


async def _unreachable(_request: Request, error: Exception) -> Response:
    log.error("the database can't be reached: %s", type(error).__name__)
    return respond(LedgerUnavailable(reason="the database doesn't answer", retry_after_s=2))


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return respond(invalid(error.errors()[0]))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    path, method = request.url.path, request.method
    if error.status_code == HTTPStatus.NOT_FOUND:
        return respond(NotFound(reason=f"There is no {method} {path}. The API is described at /openapi.json."))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        return respond(MethodNotAllowed(path=path, allowed=allowed, method=method))
    return respond(InvalidRequest(reason=f"{str(error.detail).rstrip('.')}."))


def invalid(found: Mapping[str, Any]) -> InvalidRequest:
    """pydantic's first complaint as one sentence that names the field."""
    place = [str(part) for part in found["loc"] if part not in ("body", "query", "path", "header")]
    name = ".".join(place) or None
    kind = found["type"]
    if kind == "json_invalid":
        return InvalidRequest(reason=f"The body is not valid JSON: {found.get('ctx', {}).get('error', 'unreadable')}.")
    if kind == "missing":
        return InvalidRequest(reason=f"{name or 'A JSON body'} is missing.", param=name)
    if kind == "extra_forbidden":
        return InvalidRequest(reason=f"{name} is not a field of this request.", param=name)
    said = str(found["msg"]).removeprefix("Value error, ").rstrip(".")
    return InvalidRequest(reason=f"{name or 'The body'}: {said}.", param=name)


class Guard:
    """Around the whole API: a request id, no caching, a bound on bodies, and no fault shown."""

    def __init__(self, app: App, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = AsgiExchange(scope, receive, send)
        started = False

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(b"x-request-id", exchange.request_id.encode()), (b"cache-control", b"no-store")]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            body = await exchange.body(limit_bytes=self.limit_bytes, patience_s=PATIENCE_S)
            await self.app(scope, _again(body, receive), marked)
        except ClientLeft:
            return
        except Problem as problem:
            with suppress(ClientLeft):
                await exchange.refuse(problem, [], patience_s=PATIENCE_S)
        except Exception:
            log.exception("unexpected request_id=%s path=%s", exchange.request_id, scope["path"])
            if started:
                raise  # the connection breaks off, so that nobody takes half an answer for a whole one
            await respond(ServerFault(request_id=exchange.request_id))(scope, receive, marked)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read by the application; then whatever comes."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
