"""Signing in with a wallet of the development chain, by EIP-4361."""

from freehold.cli.credentials import Login
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets


def sign_in(session: Session, name: str) -> Login:
    """Open a session for the wallet `name` and keep it. Its account is made the first time; its key is kept too."""
    wallets = Wallets(session)
    address = wallets.address(name)
    asked = session.client.post("/v1/auth/nonce", {"address": address})
    message = str(asked["message"])
    signature = wallets.sign(name, message)
    made = session.client.post("/v1/auth/wallet", {"message": message, "signature": signature})
    before = None if made.get("created") else session.logins().get(name)
    login = Login(
        name=name,
        token=str(made["token"]),
        account_id=int(made["account_id"]),
        address=str(made["address"]),
        expires_at=str(made["expires_at"]),
        api_key=before.api_key if before else None,
    )
    session.credentials.keep(session.url, login)
    return login
