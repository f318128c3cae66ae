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
        for operation in (op for verbs in document["paths"].values() for op in verbs.values()):
            operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        described.put_in(document)
        return document


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
