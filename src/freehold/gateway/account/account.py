"""The account itself: who it is, who has a part in it, what it can spend."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from freehold.clock import Day
from freehold.db import Connection
from freehold.gateway.account.deps import ManagesMembers, Reader, SeesOwn, Services, refreshed
from freehold.gateway.account.errors import answers
from freehold.gateway.account.keys import revoke
from freehold.gateway.account.wire import MAX_ID, In, Out, Text, moment, money
from freehold.identity.model import Member, Role
from freehold.ledger.model import Source

router = APIRouter(prefix="/v1/account", tags=["account"])


class MemberOut(Out):
    user_id: int
    name: str
    address: str | None
    role: Role


class MembersOut(Out):
    data: list[MemberOut]


class AccountOut(Out):
    id: int
    name: str
    kind: str = Field(description="`wallet`, or `local` for people without one.", examples=["wallet"])
    address: str = Field(description="The beneficiary to name in a stake or deposit for this account.")
    created_at: str
    role: Role | None = Field(description="The caller's part; null for the operator.")
    members: list[MemberOut]


class MemberIn(In):
    address: Annotated[str, StringConstraints(max_length=100)] = Field(description="The new member's wallet.")
    role: Role
    name: Text | None = Field(default=None, description="For a wallet that has not been seen here before.")


class PurseOut(Out):
    source: Source
    granted: str
    granted_nano: int
    available: str
    available_nano: int
    held: str = Field(description="Reserved for calls that are running.")
    held_nano: int
    used: str
    used_nano: int


class NextDayOut(Out):
    day: str
    amount: str
    amount_nano: int
    source: Source


class BalanceOut(Out):
    """Credit that is live now. Money is USD as exact decimals, with a twin in nano-USD (10⁻⁹ USD)."""

    account_id: int
    purses: list[PurseOut]
    available: str
    available_nano: int
    held: str
    held_nano: int
    day: str = Field(description="The UTC day, in ledger time.", examples=["2026-11-23"])
    reset_at: str = Field(description="The next 00:00 UTC, when the allowance is renewed.")
    ledger_time: str
    provisional: bool = Field(description="True when the chain has stalled and the wall clock carries the time on.")
    next_days: list[NextDayOut] = Field(description="What the stakes of today grant on the next days.")


@router.get("", summary="The account", responses=answers(400, 401, 403, 404))
async def account(services: Services, caller: Reader) -> AccountOut:
    """Name, address and members."""
    found = await services.identity.account(caller.account_id)
    return AccountOut(
        id=found.id,
        name=found.name,
        kind=found.kind,
        address=found.address,
        created_at=str(moment(found.created_at_s)),
        role=caller.role,
        members=[_member(member) for member in await services.identity.members(found.id)],
    )


@router.get("/balance", summary="What can be spent", responses=answers(400, 401, 403, 404))
async def balance(services: Services, caller: SeesOwn) -> BalanceOut:
    """Purses, what is held, and the allowance of the next days. Every key may read it."""
    account_id = caller.account_id
    if await services.ledger.needs_day(account_id):
        await refreshed(services, account_id)
    found = await services.ledger.balance(account_id)
    ahead = await services.allowance.next_days(account_id, services.settings.next_days)
    return BalanceOut(
        account_id=account_id,
        purses=[
            PurseOut(
                source=purse.source,
                **money("granted", purse.granted_nano),
                **money("available", purse.available_nano),
                **money("held", purse.held_nano),
                **money("used", purse.used_nano),
            )
            for purse in found.purses
        ],
        **money("available", found.available_nano()),
        **money("held", sum(purse.held_nano for purse in found.purses)),
        day=str(Day(found.day)),
        reset_at=str(moment(found.reset_at_s)),
        ledger_time=str(moment(found.at_s)),
        provisional=found.provisional,
        next_days=[
            NextDayOut(day=str(Day(day)), source=Source.ALLOWANCE, **money("amount", nano)) for day, nano in ahead
        ],
    )


@router.get("/members", summary="List members", responses=answers(400, 401, 403, 404))
async def members(services: Services, caller: Reader) -> MembersOut:
    return MembersOut(data=[_member(member) for member in await services.identity.members(caller.account_id)])


@router.post("/members", summary="Add a member or change a role", responses=answers(400, 401, 403, 404, 409))
async def put_member(services: Services, caller: ManagesMembers, asked: MemberIn) -> MemberOut:
    """A wallet's holder gets a part in the account. Who becomes a viewer loses the keys they made."""

    async def work(conn: Connection) -> Member:
        member = await services.identity.put_member(conn, caller.account_id, asked.address, asked.role, asked.name)
        if asked.role is Role.VIEWER:
            await _revoke_keys(services, conn, caller.account_id, member.user_id)
        return member

    return _member(await services.database.transact(work))


@router.delete("/members/{user_id}", summary="Remove a member", responses=answers(400, 401, 403, 404, 409))
async def remove_member(
    services: Services, caller: ManagesMembers, user_id: Annotated[int, Path(ge=1, le=MAX_ID)]
) -> MembersOut:
    """End a member's part, and revoke the keys they made. Answers who is left."""

    async def work(conn: Connection) -> None:
        await services.identity.remove_member(conn, caller.account_id, user_id)
        await _revoke_keys(services, conn, caller.account_id, user_id)

    await services.database.transact(work)
    return MembersOut(data=[_member(member) for member in await services.identity.members(caller.account_id)])


async def _revoke_keys(services: Services, conn: Connection, account_id: int, user_id: int) -> None:
    for key in await services.identity.keys_of_member(conn, account_id, user_id):
        await revoke(services, conn, account_id, key.id)


def _member(member: Member) -> MemberOut:
    return MemberOut(user_id=member.user_id, name=member.name, address=member.address, role=member.role)
