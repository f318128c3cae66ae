"""What routes ask for: the services, and a caller who may do what the route does."""

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from freehold.db import LOST
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import MAX_ID
from freehold.identity.identity import require
from freehold.identity.model import Act, Caller, CallerKind
from freehold.identity.problems import NoCredentials, OperatorOnly
from freehold.ledger.problems import StaleKey
from freehold.problems import Conflict, InvalidRequest, Problem

log = logging.getLogger("freehold.gateway.account")

BEARER = HTTPBearer(
    auto_error=False,
    description="An API key (`fh_…`), a session (`fh_s_…`) or the operator's admin token (`fh_admin_…`).",
)
_FRESH_TRIES = 3


def services(request: Request) -> AccountServices:
    """The services that the application was built with."""
    found = request.app.state.services
    assert isinstance(found, AccountServices)  # noqa: S101
    return found


Services = Annotated[AccountServices, Depends(services)]
AccountParam = Annotated[
    int | None,
    Query(
        alias="account",
        ge=1,
        le=MAX_ID,
        description="Which account: for the operator, and for a session whose user has a part in several.",
    ),
]


def token(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> str:
    """The bearer token. Raises NoCredentials."""
    if sent is None or not sent.credentials:
        raise NoCredentials
    return sent.credentials


Token = Annotated[str, Depends(token)]


async def caller(services: Services, token: Token, account: AccountParam = None) -> Caller:
    """Who calls, read fresh. Raises InvalidApiKey, SessionExpired, KeyRevoked, KeyExpired, NotFound."""
    for _ in range(_FRESH_TRIES):
        found = await services.identity.caller(token, account_id=account)
        if found.key is None:
            return found
        try:
            await services.ledger.require_key(found.account_id, found.key.id, found.key.version)
        except StaleKey:
            continue
        return found
    raise Conflict(reason="This key is being changed at this moment; try again.")


AnyCaller = Annotated[Caller, Depends(caller)]


def _allowed(act: Act) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(who: AnyCaller) -> Caller:
        if who.account_id == 0:
            raise InvalidRequest(reason="Say which account is meant: add ?account=ID.", param="account")
        require(who, act)
        return who

    return check


async def _operator(who: AnyCaller) -> Caller:
    if who.kind is not CallerKind.OPERATOR:
        raise OperatorOnly
    return who


SeesOwn = Annotated[Caller, Depends(_allowed(Act.SEE_OWN))]
Reader = Annotated[Caller, Depends(_allowed(Act.READ))]
ListsKeys = Annotated[Caller, Depends(_allowed(Act.LIST_KEYS))]
ManagesKeys = Annotated[Caller, Depends(_allowed(Act.OWN_KEYS))]
ManagesMembers = Annotated[Caller, Depends(_allowed(Act.MEMBERS))]
Operator = Annotated[Caller, Depends(_operator)]


async def refreshed(services: AccountServices, account_id: int) -> None:
    """Bring in what the chain has for this account; what can't be read now comes with the next call."""
    try:
        await services.allowance.refresh(account_id)
    except (Problem, *LOST) as problem:
        log.warning("allowance of account %d not refreshed: %s", account_id, type(problem).__name__)
