"""What identity is told about where it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """`domain` is host:port of the public URL, as wallets show and sign it."""

    domain: str
    chain_id: int
    scheme: str = "http"
    statement: str = "Sign in to Freehold. This moves no funds and costs nothing."
    session_s: int = 7 * 86_400
    nonce_s: int = 600
    cached_keys: int = 10_000

    def uri(self) -> str:
        return f"{self.scheme}://{self.domain}"
