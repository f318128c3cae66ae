"""The verbs of identity: accounts and their members, sign-in, sessions, keys. One verb that takes `conn` joins its
caller's transaction, so that the ledger's half of the same fact is written with it."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import asyncpg
from eth_hash.auto import keccak

from freehold.clock import Clock
from freehold.db import LOST, Connection, Database, statements
from freehold.identity import eip4361
from freehold.identity.model import (
    ROLE_SCOPES,
    Account,
    Act,
    ApiKey,
    Caller,
    CallerKind,
    Challenge,
    Member,
    Role,
    Scope,
    SignedIn,
)
from freehold.identity.problems import (
    InsufficientRole,
    InsufficientScope,
    InvalidApiKey,
    NotAnApiKey,
    SessionExpired,
    SignInRefused,
)
from freehold.identity.settings import IdentitySettings
from freehold.identity.tokens import digest, kind_of, new_token, shown
from freehold.problems import Conflict, InvalidRequest, LedgerUnavailable, NotFound

_NONCE_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ACCOUNTS_A_PAGE = 1_000


class ContractSignatures(Protocol):
    """Where wallets that are contracts are asked."""

    async def good(self, address: str, digest: bytes, signature: bytes) -> bool | None:
        """Whether the contract takes the signature; None when there is no contract."""
        ...


class Identity:
    """Who may call. Holds no secret: tokens are looked up by their hash."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        settings: IdentitySettings,
        contracts: ContractSignatures | None = None,
    ) -> None:
        """`contracts` None: only wallets with a key sign in."""
        self._database = database
        self._sql = statements("freehold.identity")
        self._clock = clock
        self._settings = settings
        self._contracts = contracts
        self._keys: OrderedDict[bytes, ApiKey] = OrderedDict()
        self._salt: bytes | None = None

    def __repr__(self) -> str:
        return f"Identity(domain={self._settings.domain!r}, cached_keys={len(self._keys)})"

    # Callers

    async def key(self, token: str) -> ApiKey:
        """The key of an API call, from memory if it was seen before.

        What is in memory may be out of date: the ledger's hold compares its version, and answers StaleKey (then
        `forget` it and read again), KeyRevoked or KeyExpired. Raises InvalidApiKey for a token that isn't a key here, and
        LedgerUnavailable.
        """
        kind = kind_of(token)
        if kind is None:
            raise InvalidApiKey
        if kind is not CallerKind.KEY:
            raise NotAnApiKey(kind="a session" if kind is CallerKind.SESSION else "the admin")
        hashed = digest(token)
        known = self._keys.get(hashed)
        if known is not None:
            self._keys.move_to_end(hashed)
            return known
        row = await self._row("key_by_hash", hashed)
        if row is None:
            raise InvalidApiKey
        key = _key(row)
        self._keys[hashed] = key
        if len(self._keys) > self._settings.cached_keys:
            self._keys.popitem(last=False)
        return key

    def forget(self, token: str) -> None:
        """Read this key anew at its next call."""
        self._keys.pop(digest(token), None)

    async def caller(self, token: str, *, account_id: int | None = None) -> Caller:
        """Who sends this token, read from the database: a key, a session or the operator.

        `account_id` chooses among the accounts of a session's user, and any for the operator. A key that was revoked
        or has expired is still returned: the ledger's `require_key` decides that, in ledger time.
        Raises InvalidApiKey, SessionExpired, LedgerUnavailable, and NotFound for an account the caller has no part in.
        """
        kind = kind_of(token)
        if kind is CallerKind.KEY:
            return await self._key_caller(digest(token), account_id)
        if kind is CallerKind.SESSION:
            return await self._session_caller(digest(token), account_id)
        if kind is CallerKind.OPERATOR and await self._row("is_operator", digest(token)):
            if account_id is not None:
                await self.account(account_id)
            return Caller(CallerKind.OPERATOR, account_id or 0, frozenset(Scope))
        raise InvalidApiKey

    async def _key_caller(self, hashed: bytes, account_id: int | None) -> Caller:
        row = await self._row("key_caller", hashed)
        if row is None:
            raise InvalidApiKey
        key = _key(row)
        if account_id is not None and account_id != key.account_id:
            raise _no_account(account_id)
        role = Role.OWNER if key.user_id is None else Role(row["role"] or Role.VIEWER)
        return Caller(CallerKind.KEY, key.account_id, key.scopes, role, key.user_id, key)

    async def _session_caller(self, hashed: bytes, account_id: int | None) -> Caller:
        session = await self._row("session", hashed)
        if session is None:
            raise InvalidApiKey
        if session["expires_at_s"] <= self._now():
            raise SessionExpired
        user_id = session["user_id"]
        row = await self._row("membership", user_id, account_id, session["address"])
        if row is None:
            raise _no_account(account_id)
        role = Role(row["role"])
        return Caller(CallerKind.SESSION, row["account_id"], ROLE_SCOPES[role], role, user_id)

    async def ensure_admin_token(self, token: str) -> None:
        """Make `token` the operator's, and the only one. Raises ValueError unless it begins with `fh_admin_`."""
        if kind_of(token) is not CallerKind.OPERATOR or len(token) < 40:
            raise ValueError("The admin token must begin with fh_admin_ and be at least 40 characters long.")
        await self._database.execute(self._sql["set_operator_hash"], digest(token))

    # Accounts

    async def account(self, account_id: int) -> Account:
        """Raises NotFound."""
        row = await self._row("account", account_id)
        if row is None:
            raise _no_account(account_id)
        return _account(row)

    async def account_of_address(self, address: str) -> Account | None:
        """The account that stakes and deposits for `address` (any case) belong to."""
        row = await self._database.fetchrow(self._sql["account_of_address"], eip4361.checksum(address))
        return _account(row) if row else None

    async def accounts(self, *, after: int = 0, limit: int = _ACCOUNTS_A_PAGE) -> list[Account]:
        """Accounts by id, from the one after `after`."""
        return [_account(row) for row in await self._database.fetch(self._sql["accounts"], after, limit)]

    async def addresses(self) -> dict[str, int]:
        """Checksummed address → account id, of every account."""
        return {row["address"]: row["id"] for row in await self._database.fetch(self._sql["addresses"])}

    async def create_local_account(self, conn: Connection, account_id: int, name: str) -> Account:
        """An account for people without a wallet, under an id that the ledger made in the same transaction."""
        address = await self._keyless_address(conn, account_id)
        row = await conn.fetchrow(self._sql["add_account"], account_id, name, "local", address, self._now())
        return _account(row)

    async def _keyless_address(self, conn: Connection, account_id: int) -> str:
        """An address nobody has a key of: a hash of this installation's salt and the account."""
        if self._salt is None:
            self._salt = await conn.fetchval(self._sql["salt"])
        hashed = keccak(b"freehold:local-account:" + self._salt + b":" + str(account_id).encode())
        return eip4361.checksum("0x" + hashed[12:].hex())

    # Sign-in

    async def nonce(self, address: str) -> Challenge:
        """A message for the wallet of `address` to sign once, soon. Raises InvalidRequest for what isn't an address."""
        try:
            checksummed = eip4361.checksum(address)
        except ValueError as error:
            raise InvalidRequest(reason=f"{error}.", param="address") from None
        now, settings = self._now(), self._settings
        message = eip4361.Message(
            domain=settings.domain,
            address=checksummed,
            uri=settings.uri(),
            chain_id=settings.chain_id,
            nonce="".join(secrets.choice(_NONCE_ALPHABET) for _ in range(24)),
            issued_at_s=now,
            statement=settings.statement,
            expires_at_s=now + settings.nonce_s,
        )
        await self._database.execute(self._sql["clean_nonces"], now)
        await self._database.execute(self._sql["add_nonce"], message.nonce, checksummed, now + settings.nonce_s)
        return Challenge(
            nonce=message.nonce,
            address=checksummed,
            domain=settings.domain,
            uri=settings.uri(),
            chain_id=settings.chain_id,
            statement=settings.statement,
            issued_at_s=now,
            expires_at_s=now + settings.nonce_s,
            message=eip4361.write(message),
        )

    async def sign_in(
        self, message: str, signature: str, *, create_account: Callable[[Connection], Awaitable[int]]
    ) -> SignedIn:
        """Open a session for who signed `message`. The first time, user, account and ownership are made with it.

        `create_account` makes the ledger's account in the same transaction and returns its id. Recovering the signer
        is done off the event loop; a wallet that is a contract is asked on the chain.
        Raises InvalidSignInMessage, SignInRefused; NodeUnavailable when a contract can't be asked.
        """
        read = eip4361.read(message)
        now = self._now()
        eip4361.check(read, domain=self._settings.domain, chain_id=self._settings.chain_id, now_s=self._clock.now())
        await self._check_signature(read.address, message, signature)
        token = new_token(CallerKind.SESSION)
        expires = now + self._settings.session_s

        async def work(conn: Connection) -> SignedIn:
            await self._use_nonce(conn, read, now)
            user_id, account, created = await self._wallet(conn, read.address, create_account)
            await conn.execute(self._sql["clean_sessions"], now)
            await conn.execute(self._sql["add_session"], digest(token), user_id, now, expires)
            return SignedIn(account, user_id, expires, created, token)

        return await self._database.transact(work)

    async def _check_signature(self, address: str, message: str, signature: str) -> None:
        """Raises SignInRefused unless the key of `address` signed, or the contract at `address` takes the signature."""
        refused = SignInRefused(
            reason=f"it was signed by another key than that of {address}, or changed after signing", param="signature"
        )
        try:
            if await asyncio.to_thread(eip4361.signer, message, signature) == address:
                return
        except SignInRefused as unreadable:
            refused = unreadable
        raw = eip4361.signature_bytes(signature)
        good = self._contracts and await self._contracts.good(address, eip4361.digest(message), raw)
        if good is False:
            raise SignInRefused(
                reason=f"the contract at {address} doesn't take this signature (ERC-1271)", param="signature"
            )
        if not good:
            raise refused

    async def wallet_account(
        self, conn: Connection, address: str, *, create_account: Callable[[Connection], Awaitable[int]]
    ) -> Account:
        """The account of a wallet, made when it is new, as its first sign-in would. `address` is checksummed."""
        _, account, _ = await self._wallet(conn, address, create_account)
        return account

    async def _wallet(
        self, conn: Connection, address: str, create_account: Callable[[Connection], Awaitable[int]]
    ) -> tuple[int, Account, bool]:
        """User and account of a wallet, and whether the account was made now."""
        now = self._now()
        user_id = await conn.fetchval(self._sql["add_user"], address, address, now)
        row = await conn.fetchrow(self._sql["account_of_address"], address)
        if row is not None:
            return user_id, _account(row), False
        account_id = await create_account(conn)
        row = await conn.fetchrow(self._sql["add_account"], account_id, address, "wallet", address, now)
        await conn.execute(self._sql["put_member"], account_id, user_id, Role.OWNER, now)
        return user_id, _account(row), True

    async def _use_nonce(self, conn: Connection, read: eip4361.Message, now: int) -> None:
        if await conn.fetchval(self._sql["use_nonce"], read.nonce, read.address, now):
            return
        row = await conn.fetchrow(self._sql["nonce"], read.nonce)
        if row is None or row["address"] != read.address:
            reason = "its nonce was not issued here for this address"
        elif row["used_at_s"] is not None:
            reason = "its nonce was already used"
        else:
            reason = "its nonce has expired"
        raise SignInRefused(reason=f"{reason}; ask for a new one at POST /v1/auth/nonce", param="message")

    async def sign_out(self, token: str) -> None:
        """End a session. Raises InvalidApiKey when there is none of this token."""
        if await self._database.fetchval(self._sql["end_session"], digest(token)) is None:
            raise InvalidApiKey

    # Members

    async def members(self, account_id: int) -> list[Member]:
        """Who has a part in an account, by the time they joined."""
        return [_member(row) for row in await self._database.fetch(self._sql["members"], account_id)]

    async def put_member(self, conn: Connection, account_id: int, address: str, role: Role, name: str | None) -> Member:
        """Give the holder of a wallet a part in an account, or another role. Raises InvalidRequest, Conflict.

        Who becomes a viewer may use no key: revoke those of `keys_of_member` in the same transaction.
        """
        try:
            checksummed = eip4361.checksum(address)
        except ValueError as error:
            raise InvalidRequest(reason=f"{error}.", param="address") from None
        await self._lock_account(conn, account_id)
        user_id = await conn.fetchval(self._sql["add_user"], name or checksummed, checksummed, self._now())
        await self._keep_an_owner(conn, account_id, without=user_id if role is not Role.OWNER else None)
        await conn.execute(self._sql["put_member"], account_id, user_id, role, self._now())
        rows = await conn.fetch(self._sql["members"], account_id)
        return next(_member(row) for row in rows if row["user_id"] == user_id)

    async def remove_member(self, conn: Connection, account_id: int, user_id: int) -> None:
        """Raises NotFound; Conflict for the last owner. Revoke `keys_of_member` in the same transaction."""
        await self._lock_account(conn, account_id)
        await self._keep_an_owner(conn, account_id, without=user_id)
        if await conn.fetchval(self._sql["remove_member"], account_id, user_id) is None:
            raise NotFound(reason=f"User {user_id} is no member of account {account_id}.")

    async def keys_of_member(self, conn: Connection, account_id: int, user_id: int) -> list[ApiKey]:
        """The keys that a member made and that aren't revoked."""
        return [_key(row) for row in await conn.fetch(self._sql["keys_of_member"], account_id, user_id)]

    async def _lock_account(self, conn: Connection, account_id: int) -> None:
        if await conn.fetchval(self._sql["lock_account"], account_id) is None:
            raise _no_account(account_id)

    async def _keep_an_owner(self, conn: Connection, account_id: int, *, without: int | None) -> None:
        owners = {
            row["user_id"] for row in await conn.fetch(self._sql["members"], account_id) if row["role"] == Role.OWNER
        }
        if owners and owners == {without}:
            raise Conflict(reason="An account keeps at least one owner: make somebody else an owner first.")

    # Keys

    async def keys(self, account_id: int) -> list[ApiKey]:
        """Every key of an account, revoked ones too, oldest first."""
        return [_key(row) for row in await self._database.fetch(self._sql["keys"], account_id)]

    async def create_key(
        self,
        conn: Connection,
        account_id: int,
        *,
        name: str,
        user_id: int | None = None,
        scopes: Iterable[Scope] = (Scope.INFERENCE, Scope.READ),
        models: Iterable[str] | None = None,
        expires_at_s: int | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which is not kept. Write the ledger's row (`put_key`) in the same transaction.

        `user_id` None means made by the operator: the key then acts as an owner within its scopes.
        """
        secret = new_token(CallerKind.KEY)
        row = await conn.fetchrow(
            self._sql["add_key"],
            account_id,
            user_id,
            name,
            shown(secret),
            digest(secret),
            sorted(scopes),
            None if models is None else sorted(set(models)),
            expires_at_s,
            self._now(),
        )
        return _key(row), secret

    async def lock_key(self, conn: Connection, account_id: int, key_id: int) -> ApiKey:
        """The key as it stands, locked until the transaction ends. Raises NotFound."""
        row = await conn.fetchrow(self._sql["lock_key"], account_id, key_id)
        if row is None:
            raise NotFound(reason=f"Account {account_id} has no key {key_id}.", param="id")
        return _key(row)

    async def update_key(self, conn: Connection, key: ApiKey) -> ApiKey:
        """Write name, scopes, models and expiry of a locked key, and raise its version."""
        row = await conn.fetchrow(
            self._sql["update_key"],
            key.account_id,
            key.id,
            key.name,
            sorted(key.scopes),
            None if key.models is None else sorted(key.models),
            key.expires_at_s,
        )
        return _key(row)

    async def revoke_key(self, conn: Connection, account_id: int, key_id: int) -> ApiKey:
        """Revoke for good; a key that is revoked already stays as it is. Raises NotFound."""
        row = await conn.fetchrow(self._sql["revoke_key"], account_id, key_id, self._now())
        return _key(row) if row else await self.lock_key(conn, account_id, key_id)

    async def _row(self, name: str, *args: object) -> asyncpg.Record | None:
        """Raises LedgerUnavailable, so that who calls is never unknown for another reason than the database's."""
        try:
            return await self._database.fetchrow(self._sql[name], *args)
        except LOST as lost:
            raise LedgerUnavailable(reason="PostgreSQL doesn't answer", retry_after_s=2) from lost

    def _now(self) -> int:
        return int(self._clock.now())


def require(caller: Caller, act: Act) -> None:
    """Raises InsufficientScope or InsufficientRole when this caller may not do that."""
    if act in caller.acts():
        return
    if caller.kind is CallerKind.KEY:
        needed = {Act.READ: "read", Act.LIST_KEYS: "read or admin", Act.MEMBERS: "of an owner's session"}
        if act is Act.MEMBERS or not _scopes_allow(caller, act):
            raise InsufficientScope(scopes=", ".join(sorted(caller.scopes)) or "none", needed=needed.get(act, "admin"))
    raise InsufficientRole(needed=f"the right to {act}", role=f"a {caller.role}" if caller.role else "no member")


def _scopes_allow(caller: Caller, act: Act) -> bool:
    as_owner = Caller(caller.kind, caller.account_id, caller.scopes, Role.OWNER)
    return act in as_owner.acts()


def _no_account(account_id: int | None) -> NotFound:
    if account_id is None:
        return NotFound(reason="You are a member of no account any more.", param="account")
    return NotFound(reason=f"There is no account {account_id} that you have a part in.", param="account")


def _account(row: asyncpg.Record) -> Account:
    return Account(row["id"], row["name"], row["kind"], row["address"], row["created_at_s"])


def _member(row: asyncpg.Record) -> Member:
    return Member(row["account_id"], row["user_id"], row["name"], row["address"], Role(row["role"]))


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(
        id=row["id"],
        account_id=row["account_id"],
        user_id=row["user_id"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"]),
        models=None if row["models"] is None else frozenset(row["models"]),
        expires_at_s=row["expires_at_s"],
        revoked_at_s=row["revoked_at_s"],
        created_at_s=row["created_at_s"],
        version=row["version"],
    )
