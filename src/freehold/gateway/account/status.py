"""How the server is: for people, for load balancers, and for wallets that want to know the chain."""

from collections.abc import Mapping

from fastapi import APIRouter, Response
from pydantic import Field

from freehold.chain.model import DEV_CHAIN_ID
from freehold.clock import Day
from freehold.db import LOST
from freehold.gateway.account.deps import Services
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import Out, moment
from freehold.ledger.model import LedgerTime
from freehold.problems import LedgerUnavailable

router = APIRouter(tags=["status"])


class HealthOut(Out):
    alive: bool = True


class ReadyOut(Out):
    ready: bool
    database: bool = Field(description="It answers.")
    ledger_time: bool = Field(description="It has been set from a block.")
    reader: bool = Field(description="The chain is being read.")


class UpstreamOut(Out):
    name: str
    circuit: str = Field(description="closed: it is asked; open: it failed too often; half_open: one call may try it.")
    failures: int = Field(description="In a row.")
    running: int = Field(description="Calls under way.")


class StatusOut(Out):
    ready: bool
    version: str
    url: str
    started_at: str
    workers: int
    models: list[str]
    upstreams: list[str]
    health: list[UpstreamOut] = Field(description="Of the upstreams, as the worker sees them that answers.")
    ledger_time: str
    provisional: bool
    day: str
    day_opened: bool = Field(description="True when today's allowance may be issued.")
    head: int | None
    confirmed: int | None


class ChainOut(Out):
    chain_id: int
    rpc_url: str | None = Field(description="On a development chain only.")
    operator: str
    contracts: Mapping[str, str]
    confirmations: int
    head: int | None
    confirmed: int | None
    ledger_time: str
    provisional: bool
    day: str


@router.get("/healthz", summary="Is the process alive?")
async def health() -> HealthOut:
    """Asks nothing of anybody else."""
    return HealthOut()


@router.get("/readyz", summary="Can it take calls?", responses={503: {"model": ReadyOut, "description": "Not yet."}})
async def ready(services: Services, response: Response) -> ReadyOut:
    """200 when the database answers, ledger time is set and the chain is read; 503 otherwise."""
    found = await _readiness(services)
    response.status_code = 200 if found.ready else 503
    return found


@router.get("/v1/status", summary="How the server is")
async def status(services: Services) -> StatusOut:
    time = await services.ledger.time()
    server = await services.status()
    health = services.catalogue.health()
    return StatusOut(
        ready=(await _readiness(services)).ready,
        version=server.version,
        url=services.settings.public_url,
        started_at=str(moment(server.started_at_s)),
        workers=server.workers,
        models=[model.id for model in services.catalogue.models()],
        upstreams=[upstream.name for upstream in health],
        health=[
            UpstreamOut(name=one.name, circuit=one.state.value, failures=one.failures, running=one.running)
            for one in health
        ],
        ledger_time=str(moment(time.at_s)),
        provisional=time.provisional,
        day=str(Day.of(time.at_s)),
        day_opened=time.opened_day >= Day.of(time.at_s).number,
        head=server.head,
        confirmed=server.confirmed,
    )


@router.get("/v1/chain", summary="The chain and its contracts")
async def chain(services: Services) -> ChainOut:
    """What a wallet needs for staking or depositing here."""
    time = await services.ledger.time()
    server = await services.status()
    deployment = services.deployment
    return ChainOut(
        chain_id=deployment.chain_id,
        rpc_url=services.settings.rpc_url if deployment.chain_id == DEV_CHAIN_ID else None,
        operator=deployment.operator,
        contracts=deployment.contracts,
        confirmations=deployment.confirmations,
        head=server.head,
        confirmed=server.confirmed,
        ledger_time=str(moment(time.at_s)),
        provisional=time.provisional,
        day=str(Day.of(time.at_s)),
    )


async def _readiness(services: AccountServices) -> ReadyOut:
    time = await _time(services)
    reader = time is not None and (await services.status()).reader_alive
    set_from_chain = time is not None and time.opened_day >= 0
    return ReadyOut(
        ready=reader and set_from_chain, database=time is not None, ledger_time=set_from_chain, reader=reader
    )


async def _time(services: AccountServices) -> LedgerTime | None:
    try:
        return await services.ledger.time()
    except (LedgerUnavailable, *LOST):
        return None
