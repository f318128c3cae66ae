"""Adding credit by x402: the price of so many USD is as many USDC."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import Field, StringConstraints

from freehold.gateway.account.deps import BEARER, AccountParam, Services, caller, refreshed
from freehold.gateway.account.errors import answers
from freehold.gateway.account.services import AccountServices
from freehold.gateway.account.wire import In, Out, UsdIn, money
from freehold.gateway.x402 import model
from freehold.gateway.x402.paid import required, take
from freehold.gateway.x402.problems import NotTaken, TopUpRequired
from freehold.identity.identity import require
from freehold.identity.model import Act
from freehold.identity.problems import NoCredentials
from freehold.money import NANO_PER_USDC_UNIT, usdc_to_nano
from freehold.problems import InvalidRequest

router = APIRouter(prefix="/v1/account", tags=["account"])

PATH = "/v1/account/top-up"
ABOUT = "Prepaid credit, one USD for each USDC."


class TopUpIn(In):
    amount: UsdIn = Field(description="How many USD of credit; at most six decimal places, as USDC has.")


class TopUpOut(Out):
    account_id: int
    payer: str
    amount: str
    amount_nano: int
    network: str = Field(examples=["eip155:402031"])
    transaction: str = Field(description="Hash of the chain's transaction.")
    available: str = Field(description="What the account can spend now.")
    available_nano: int


@router.post(
    "/top-up",
    summary="Add credit by x402",
    responses=answers(400, 401, 402, 403, 404, 409, 502, 503),
)
async def top_up(
    services: Services,
    response: Response,
    asked: TopUpIn,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    account: AccountParam = None,
    payment_signature: Annotated[
        str | None,
        Header(description="The payment: x402, version 2, scheme `exact`."),
        StringConstraints(max_length=16384),
    ] = None,
) -> TopUpOut:
    """Without `PAYMENT-SIGNATURE`: 402, and `PAYMENT-REQUIRED` says what to pay. With it: the credit, once confirmed.

    It goes to the caller's account, or without credentials to the payer's own, which is made when it is new. The same
    payment again is answered as before, and credits nothing.
    """
    account_id = await _whom(services, sent, account)
    payments = services.payments
    if payments is None:
        raise NoCredentials if account_id is None else NotTaken
    units, rest = divmod(asked.amount, NANO_PER_USDC_UNIT)
    if rest or not units:
        raise InvalidRequest(reason="amount: USDC has six decimal places, and nothing is no top-up.", param="amount")
    if payment_signature is None:
        wanted = await required(payments, PATH, units, about=ABOUT)
        raise TopUpRequired(price=model.usdc(units), required=wanted)
    payment = model.read(payment_signature)
    purpose = hashlib.sha256(f"top-up\0{account_id}\0{units}".encode()).digest()
    settled = await take(payments, payment, purpose, PATH, units, account_id=account_id)
    if account_id is None:
        await refreshed(services, settled.account_id)
    response.headers["payment-response"] = model.settled_response(settled)
    left = (await services.ledger.balance(settled.account_id)).available_nano()
    return TopUpOut(
        account_id=settled.account_id,
        payer=settled.payer,
        **money("amount", usdc_to_nano(settled.amount)),
        network=settled.network,
        transaction=settled.tx_hash,
        **money("available", left),
    )


async def _whom(
    services: AccountServices, sent: HTTPAuthorizationCredentials | None, account: int | None
) -> int | None:
    """The account that is funded; None: the payer's own. Whoever may see an account may add to it."""
    if sent is None or not sent.credentials.startswith("fh_"):
        if account is not None:
            raise NoCredentials
        return None
    who = await caller(services, sent.credentials, account)
    if who.account_id == 0:
        raise InvalidRequest(reason="Say which account is meant: add ?account=ID.", param="account")
    require(who, Act.SEE_OWN)
    return who.account_id
