"""Who is calling, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """A member's part in an account. Viewers read; members also call and manage their own keys; owners do all."""

    OWNER = "owner"
    MEMBER = "member"
    VIEWER = "viewer"


class Scope(StrEnum):
    INFERENCE = "inference"
    READ = "read"
    ADMIN = "admin"


class CallerKind(StrEnum):
    KEY = "key"
    SESSION = "session"
    OPERATOR = "operator"
    """Carries the operator's admin token; belongs to no account."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `models` None = all; times are unix seconds."""

    id: int
    account_id: int
    user_id: int | None
    """Who made it."""
    name: str
    prefix: str
    """The first characters of the secret, to tell keys apart."""
    scopes: frozenset[Scope]
    models: frozenset[str] | None
    expires_at_s: int | None
    revoked_at_s: int | None
    created_at_s: int
    version: int
    """Raised by each change; the ledger's row of this key carries the same number."""


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    name: str
    kind: str
    """wallet | local"""
    address: str
    """Checksummed: the wallet's, or for a local account a derived, keyless one. Beneficiary of stakes and deposits."""
    created_at_s: int


@dataclass(frozen=True, slots=True)
class Member:
    account_id: int
    user_id: int
    name: str
    address: str | None
    role: Role


@dataclass(frozen=True, slots=True)
class Caller:
    """The result of authentication. `account_id` 0 belongs to the operator's token."""

    kind: CallerKind
    account_id: int
    scopes: frozenset[Scope]
    role: Role | None = None
    user_id: int | None = None
    key: ApiKey | None = None
