"""Who is calling, and what they may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class Act(StrEnum):
    """What a caller may be allowed to do with an account; the text completes "this needs the right to …"."""

    SEE_OWN = "see its own limits, balance and calls"
    READ = "read the account"
    LIST_KEYS = "list keys"
    OWN_KEYS = "create keys and manage its own"
    ALL_KEYS = "manage everybody's keys"
    MEMBERS = "manage members"


ROLE_ACTS: Mapping[Role, frozenset[Act]] = {
    Role.VIEWER: frozenset({Act.SEE_OWN, Act.READ, Act.LIST_KEYS}),
    Role.MEMBER: frozenset({Act.SEE_OWN, Act.READ, Act.LIST_KEYS, Act.OWN_KEYS}),
    Role.OWNER: frozenset(Act),
}
SCOPE_ACTS: Mapping[Scope, frozenset[Act]] = {
    Scope.INFERENCE: frozenset({Act.SEE_OWN}),
    Scope.READ: frozenset({Act.SEE_OWN, Act.READ, Act.LIST_KEYS}),
    Scope.ADMIN: frozenset({Act.SEE_OWN, Act.LIST_KEYS, Act.OWN_KEYS, Act.ALL_KEYS}),
}
ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.MEMBER: frozenset(Scope),
    Role.OWNER: frozenset(Scope),
}
"""What a session of each role carries."""


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

    def acts(self) -> frozenset[Act]:
        """What this caller may do. A key may do what its scopes say, within the role of who made it."""
        if self.kind is CallerKind.OPERATOR:
            return frozenset(Act)
        by_role = ROLE_ACTS[self.role] if self.role else frozenset()
        if self.kind is CallerKind.SESSION:
            return by_role
        return by_role & frozenset[Act]().union(*(SCOPE_ACTS[scope] for scope in self.scopes))


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a wallet is asked to sign. `message` is the whole EIP-4361 text."""

    nonce: str
    address: str
    domain: str
    uri: str
    chain_id: int
    statement: str
    issued_at_s: int
    expires_at_s: int
    message: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session. The token is shown once."""

    account: Account
    user_id: int
    expires_at_s: int
    created: bool
    """True when this sign-in made the account."""
    token: str = field(repr=False)
