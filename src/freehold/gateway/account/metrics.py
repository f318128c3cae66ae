"""`GET /metrics` in Prometheus' text format: sums over all workers of this server, and the ledger's and the chain's state."""

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials

from freehold.clock import Day
from freehold.db import LOST
from freehold.gateway.account.deps import BEARER, Services, caller, token
from freehold.gateway.account.errors import answers
from freehold.gateway.account.services import AccountServices
from freehold.gateway.metrics import FAMILIES, gauges
from freehold.identity.model import CallerKind
from freehold.identity.problems import OperatorOnly
from freehold.ledger.totals import totals
from freehold.metrics import exposition, workers
from freehold.problems import LedgerUnavailable
from freehold.receipts.receipts import Receipts

router = APIRouter(tags=["operator"])

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **answers(401, 403, 503),
    },
)
async def metrics(
    services: Services,
    request: Request,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> Response:
    """For the operator's token; on a server of one machine (its public URL is loopback) also for loopback without one."""
    if sent is not None or not _here(services, request):
        who = await caller(services, token(sent))
        if who.kind is not CallerKind.OPERATOR:
            raise OperatorOnly
    found = workers(services.metrics) if services.metrics is not None else []
    return Response(exposition(FAMILIES, found, gauges(await _state(services))), media_type=CONTENT_TYPE)


def _here(services: AccountServices, request: Request) -> bool:
    """Whether this surely comes from this machine, and not through a proxy on it."""
    if request.client is None or any(request.headers.get(name) for name in _FORWARDED):
        return False
    return _loopback(request.client.host) and _loopback(urlsplit(services.settings.public_url).hostname or "")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _state(services: AccountServices) -> dict[str, int | dict[str, int]]:
    """What isn't one worker's. Raises LedgerUnavailable."""
    try:
        sums = await totals(services.database)
        time = await services.ledger.time()
        server = await services.status()
    except LOST as lost:
        raise LedgerUnavailable(reason="the database doesn't answer", retry_after_s=2) from lost
    state: dict[str, int | dict[str, int]] = {
        "freehold_holds_open": sums.holds,
        "freehold_held_usd": sums.held_nano,
        "freehold_oldest_hold_seconds": int(sums.oldest_hold_s * 1e6),
        "freehold_absorbed_usd": {
            "overage": sums.overage_nano,
            "unsettled": sums.unsettled_nano,
            "reorg": sums.reorg_nano,
        },
        "freehold_chain_alive": int(server.reader_alive),
        "freehold_ledger_time_seconds": time.at_s,
        "freehold_ledger_time_provisional": int(time.provisional),
    }
    if services.receipts is not None:
        state |= await _days(services.receipts, time.at_s)
    if server.head is not None:
        state["freehold_chain_head_block"] = server.head
    if server.confirmed is not None:
        state["freehold_chain_confirmed_block"] = server.confirmed
    return state


async def _days(receipts: Receipts, now_s: int) -> dict[str, int]:
    """How the newest closed days stand on the chain."""
    standing = await receipts.standing(since=Day.of(now_s).number - 31)
    return {
        "freehold_days_closed": len(standing),
        "freehold_days_unclosed": await receipts.unclosed(Day.of(now_s).number),
        "freehold_days_unpublished": sum(seen.root is None for seen in standing),
        "freehold_days_wrong": sum(seen.root is not None and not seen.right() for seen in standing),
    }
