"""The account API as one FastAPI application."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from freehold.gateway.account import (
    account,
    admin,
    auth,
    bill,
    errors,
    keys,
    metrics,
    plan,
    prices,
    receipts,
    status,
    topup,
    usage,
)
from freehold.gateway.account.services import AccountServices
from freehold.gateway.shapes import described

VERSION = "1"
ALONE = "/healthz"
"""The route that asks nothing of anybody."""

DESCRIPTION = """Model calls, and accounts, keys, credit, usage and prices of a Freehold server.

Model calls are OpenAI's and Anthropic's APIs: here stands what is read and checked of them; other fields pass. Send `Authorization: Bearer …` with an API key, a session
or, for the operator, the admin token. Money is USD as exact decimal strings, each with a twin in nano-USD (10⁻⁹ USD);
times are RFC 3339, UTC. Every refusal has OpenAI's shape: `{"error": {"message", "type", "code", "param"}}`.
"""


def build_account_app(services: AccountServices) -> FastAPI:
    """The application. Whoever builds it starts and stops the services."""
    app = _application()
    app.state.services = services
    errors.install(app, body_limit_bytes=services.settings.body_limit_bytes)
    return app


def describe() -> dict[str, Any]:
    """The OpenAPI document."""
    return _application().openapi()


class _Api(FastAPI):
    """FastAPI, whose document tells of our refusals in place of its own 422."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        for path, operation in ((path, op) for path, verbs in document["paths"].items() for op in verbs.values()):
            operation["responses"].pop("422", None)
            _refuse(operation, everywhere(operation) if path != ALONE else ())
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        described.put_in(document)
        return document


def everywhere(operation: dict[str, Any]) -> tuple[int, ...]:
    """What any such operation may be refused with, whatever it does itself: its body, its caller, the database."""
    body = (408, 413) if "requestBody" in operation else ()
    who = (401, 403, 404, 409) if "security" in operation else ()
    return (*body, *who, 503)


def _refuse(operation: dict[str, Any], statuses: tuple[int, ...]) -> None:
    told = {str(status): answer for status, answer in errors.answers(*statuses).items()}
    for answer in told.values():
        del answer["model"]
        answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    operation["responses"] = dict(sorted((told | operation["responses"]).items()))


def _application() -> FastAPI:
    app = _Api(
        title="Freehold API",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,  # its pages load scripts from somebody else's server
        redoc_url=None,
        generate_unique_id_function=_operation,
        redirect_slashes=False,
    )
    for part in (auth, account, topup, keys, usage, bill, receipts, plan, prices, admin, status, metrics):
        app.include_router(part.router)
    return app


def _operation(route: APIRoute) -> str:
    """A route's name in generated clients: `keys_create`."""
    return f"{(route.tags or ['api'])[0]}_{route.name}".replace("-", "_")
