"""Sign-in with a wallet."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from freehold.gateway.account.deps import Services, Token, refreshed
from freehold.gateway.account.errors import answers
from freehold.gateway.account.wire import In, Out, moment

router = APIRouter(prefix="/v1/auth", tags=["sign-in"])


class NonceIn(In):
    address: Annotated[str, StringConstraints(max_length=100)] = Field(
        description="The wallet's address.", examples=["0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"]
    )


class NonceOut(Out):
    nonce: str
    address: str = Field(description="In checksum form, as the message must have it.")
    domain: str
    uri: str
    chain_id: int
    statement: str
    issued_at: str
    expires_at: str
    message: str = Field(description="The whole EIP-4361 message, ready to be signed by EIP-191 (`personal_sign`).")


class WalletIn(In):
    message: Annotated[str, StringConstraints(max_length=8192)] = Field(description="The message that was signed.")
    signature: Annotated[str, StringConstraints(max_length=8192)] = Field(
        description="In hexadecimal: 65 bytes, or what a wallet that is a contract takes (ERC-1271)."
    )


class SessionOut(Out):
    token: str = Field(
        repr=False, description="The session: send it as `Authorization: Bearer fh_s_…`. Shown this once."
    )
    account_id: int
    address: str
    created: bool = Field(description="True when this sign-in made the account.")
    expires_at: str


class SignedOut(Out):
    signed_out: bool = True


@router.post("/nonce", summary="Ask for a message to sign", responses=answers(400))
async def nonce(services: Services, asked: NonceIn) -> NonceOut:
    """A nonce that signs in once, and the message around it."""
    challenge = await services.identity.nonce(asked.address)
    return NonceOut(
        nonce=challenge.nonce,
        address=challenge.address,
        domain=challenge.domain,
        uri=challenge.uri,
        chain_id=challenge.chain_id,
        statement=challenge.statement,
        issued_at=str(moment(challenge.issued_at_s)),
        expires_at=str(moment(challenge.expires_at_s)),
        message=challenge.message,
    )


@router.post("/wallet", summary="Sign in", responses=answers(400, 401, 502, 503))
async def wallet(services: Services, asked: WalletIn) -> SessionOut:
    """Open a session for who signed the message. The first time, the wallet's account is made."""
    session = await services.identity.sign_in(
        asked.message, asked.signature, create_account=services.ledger.create_account
    )
    await refreshed(services, session.account.id)
    return SessionOut(
        token=session.token,
        account_id=session.account.id,
        address=session.account.address,
        created=session.created,
        expires_at=str(moment(session.expires_at_s)),
    )


@router.post("/logout", summary="Sign out", responses=answers(401))
async def logout(services: Services, token: Token) -> SignedOut:
    """End this session; others of the same wallet go on."""
    await services.identity.sign_out(token)
    return SignedOut()
