"""Bearer tokens: made from the system's randomness, shown once, kept only as SHA-256.

A token is 256 random bits, so a plain hash is enough, and finding it by its hash compares no secret.
"""

import hashlib
import secrets

from freehold.identity.model import CallerKind

PREFIX = {CallerKind.KEY: "fh_", CallerKind.SESSION: "fh_s_", CallerKind.OPERATOR: "fh_admin_"}
_KINDS = tuple((PREFIX[kind], kind) for kind in (CallerKind.OPERATOR, CallerKind.SESSION, CallerKind.KEY))
"""The longer prefixes first, for every token begins as a key does."""

SHOWN = 6
"""Random characters of a key that its `prefix` shows."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = 43
"""62^43 > 2^256. No underscore in it, so a longer prefix is never mistaken for a key."""

_LONGEST = 200
"""Nothing longer is hashed."""


def new_token(kind: CallerKind) -> str:
    """A new secret of this kind."""
    return PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def kind_of(token: str) -> CallerKind | None:
    """What a token says it is; None when it isn't one of ours at all."""
    if len(token) > _LONGEST or not token.isascii():
        return None
    for prefix, kind in _KINDS:
        if token.startswith(prefix):
            return kind
    return None


def digest(token: str) -> bytes:
    """What is stored of a token: 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def shown(token: str) -> str:
    """The first characters of a key, enough to tell keys apart."""
    return token[: len(PREFIX[CallerKind.KEY]) + SHOWN]
