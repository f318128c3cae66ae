"""The verbs: take a payment, and follow what was taken until it is credited or has lapsed.

A payment is claimed for one purpose before it goes to the chain, so that a crash at any moment leaves a row that the
next worker goes on from. It is credited in one transaction with its claim's new state, once for its external id.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import asyncpg

from freehold.chain.problems import NodeUnavailable, RpcError, WalletRefused
from freehold.clock import Clock
from freehold.db import Connection, Database
from freehold.gateway.x402.facilitator import Facilitator, Landing, Seen
from freehold.gateway.x402.model import LEAST_LEFT_S, Payment, Settled, Terms, Unacceptable, check
from freehold.gateway.x402.problems import PaymentPending, PaymentReused, PaymentsUnavailable
from freehold.gateway.x402.settings import PaymentSettings
from freehold.gateway.x402.store import Claim, Key, Store
from freehold.identity.model import Account
from freehold.ledger.model import FOREVER_S, Grant, KeyLimits, LedgerTime, Source
from freehold.money import usdc_to_nano
from freehold.problems import Problem

log = logging.getLogger("freehold.gateway.x402")

KEYLESS = 0
"""The ledger's key of calls that bring a payment instead of a key; identity gives no key this id."""
KEYLESS_VERSION = 1

FOLLOW_S = 1.0
FOLLOW_MOST = 200


class Accounts(Protocol):
    """What is asked of identity."""

    async def wallet_account(
        self, conn: Connection, address: str, *, create_account: Callable[[Connection], Awaitable[int]]
    ) -> Account: ...


class Ledger(Protocol):
    """What is asked of the ledger."""

    async def create_account(self, conn: Connection) -> int: ...
    async def put_key(self, conn: Connection, limits: KeyLimits) -> None: ...
    async def time(self) -> LedgerTime: ...
    async def grant(
        self,
        account_id: int,
        source: Source,
        amount_nano: int,
        external_id: str,
        *,
        starts_at_s: int,
        expires_at_s: int,
        priority: int | None = None,
        conn: Connection | None = None,
    ) -> Grant: ...
    async def reverse(self, account_id: int, grant_external_id: str, to_amount_nano: int, external_id: str) -> int: ...


class Payments:
    """Payments to one treasury. Any worker takes them; the one that leads follows them."""

    def __init__(
        self,
        database: Database,
        *,
        ledger: Ledger,
        accounts: Accounts,
        facilitator: Facilitator,
        clock: Clock,
        settings: PaymentSettings | None = None,
    ) -> None:
        self.settings = settings or PaymentSettings()
        self._database = database
        self._store = Store(database)
        self._ledger = ledger
        self._accounts = accounts
        self._chain = facilitator
        self._clock = clock
        self._settling: dict[Key, asyncio.Task[Claim]] = {}

    async def terms(self) -> Terms:
        return await self._chain.terms()

    async def timeout_s(self) -> int:
        """How long an offer is good for by the wall clock, which a dev chain's time may be ahead of."""
        ahead = int((await self._ledger.time()).at_s - self._clock.now())
        return self.settings.timeout_s + max(0, ahead)

    async def take(self, payment: Payment, purpose: bytes, *, least: int, account_id: int | None = None) -> Settled:
        """Credit a payment once, and return when it is confirmed; again, the first result.

        `purpose`: digest of what it pays for; `least`: the least that it must be, in base units, when it is new;
        `account_id`: whom it funds, else the payer's own account, which is made with it.

        Raises Unacceptable for a payment that isn't taken; PaymentReused for one that was made for something else;
        PaymentsUnavailable when the operator's wallet can't carry it to the chain; PaymentPending when it isn't
        confirmed in time (it is followed all the same); NodeUnavailable.
        """
        terms = await self.terms()
        signed = payment.authorization
        key = (terms.chain_id, terms.token, signed.payer, signed.nonce)
        claim = await self._store.find(key)
        if claim is None:
            head = await self._chain.head()
            longest_s = self.settings.timeout_s + self.settings.longest_s
            try:
                check(payment, terms, least=least, now_s=head.time_s, longest_s=longest_s)
                await self._chain.verify(signed)
            except Unacceptable:
                # A copy of it, claimed meanwhile, may have been carried out already.
                claim = await self._store.find(key)
                if claim is None:
                    raise
            else:
                claim = await self._store.claim(terms, signed, purpose, account_id, head.number)
        if claim.signed != signed:
            raise Unacceptable("another authorization with its nonce was shown here before")
        if claim.purpose != purpose:
            raise PaymentReused(payer=signed.payer)
        if claim.state == "open":
            claim = await self._await_credit(claim)
        if claim.state != "credited" or claim.account_id is None or claim.tx_hash is None:
            raise Unacceptable("it expired, or its nonce was used or cancelled, before it was carried out")
        return Settled(
            account_id=claim.account_id,
            payer=signed.payer,
            amount=signed.value,
            network=terms.network,
            tx_hash=claim.tx_hash,
            name=claim.name,
            credited_at_s=claim.credited_at_s or 0.0,
        )

    def still_admits(self, settled: Settled) -> bool:
        """Whether the payment's request may still run: later its answer would be forgotten, and it would run again."""
        return self._clock.now() - settled.credited_at_s <= self.settings.served_s

    async def run(self) -> None:
        """Follow for ever, until cancelled."""
        said = ""
        while True:
            try:
                await self.follow()
                said = ""
            except (Problem, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as reason:
                if str(reason) != said:  # a node that stays away is told of once
                    log.warning("payments can't be followed: %s", reason)
                said = str(reason)
            except Exception:
                log.exception("payments can't be followed; it is tried again")
            await asyncio.sleep(FOLLOW_S)

    async def follow(self) -> None:
        """Go on with every payment that nobody waits for any more, and see that credited ones still stand.

        Raises the first Problem, when every payment had its turn.
        """
        problems: list[Problem] = []
        for claim in await self._store.to_follow(FOLLOW_MOST):
            try:
                if claim.state == "open":
                    await self._pursue(claim)
                else:
                    await self._stand(claim)
            except Unacceptable as why:
                log.info("a payment lapsed tx=%s: %s", claim.tx_hash, why)
            except Problem as problem:
                problems.append(problem)
        if problems:
            raise problems[0]

    # ---- one payment

    async def _await_credit(self, claim: Claim) -> Claim:
        """Callers of one worker that wait for one payment share the looking."""
        running = self._settling.get(claim.key)
        if running is None:
            running = asyncio.get_running_loop().create_task(self._pursue_to_the_end(claim))
            self._settling[claim.key] = running
            running.add_done_callback(lambda done: self._ended(claim.key, done))
        try:
            async with asyncio.timeout(self.settings.patience_s):
                return await asyncio.shield(running)
        except TimeoutError:
            raise PaymentPending(retry_after_s=5) from None

    async def _pursue_to_the_end(self, claim: Claim) -> Claim:
        async with asyncio.timeout(self.settings.patience_s):
            said = ""
            while True:
                try:
                    claim = await self._pursue(claim)
                except (NodeUnavailable, RpcError) as away:  # it was claimed, so it is gone on with
                    if str(away) != said:
                        log.warning("a payment waits for the chain: %s", away)
                    said = str(away)
                if claim.state != "open":
                    return claim
                await asyncio.sleep(self.settings.look_s)
                claim = await self._store.find(claim.key) or claim

    async def _pursue(self, claim: Claim) -> Claim:
        """One step on: submit it, or credit it once it is confirmed, or end it. Raises Unacceptable."""
        seen = await self._look(claim)
        if seen.landing is not None:
            if seen.head.number - seen.landing.block_number >= self._chain.confirmations:
                return await self._credit(claim, seen.landing)
            return claim
        over = seen.head.time_s >= claim.signed.valid_before
        if seen.used or over:
            if not await self._withdraw(claim):
                await self._end_confirmed(claim, max(0, seen.head.number - self._chain.confirmations))
            return claim
        await self._submit(claim, seen)
        return claim

    async def _end_confirmed(self, claim: Claim, block_number: int) -> None:
        """End what can't come any more, once that stands as firmly as a credit would. Raises Unacceptable then."""
        block = await self._chain.block(block_number)
        if block is not None and block.time_s >= claim.signed.valid_before:
            await self._store.end(claim.key, "lapsed")
            raise Unacceptable("it expired before it was carried out")
        if await self._chain.used_before(claim.signed, block_number):
            await self._store.end(claim.key, "lapsed")
            raise Unacceptable("its nonce was used for another transfer, or cancelled, on the chain")

    async def _submit(self, claim: Claim, seen: Seen) -> None:
        """Send it, unless somebody has just done so. Raises Unacceptable when it is refused, and then for good.

        One that waits for too low a fee is sent in its own place, for more: a second one would wait behind it.
        """
        if claim.given_up:
            await self._withdraw(claim)
            raise Unacceptable("it was refused before; make a new payment")
        if seen.head.time_s + LEAST_LEFT_S > claim.signed.valid_before:
            return
        if seen.reverted:
            await self._store.unsent(claim.key, claim.tx_hash)
        if not await self._store.lease(claim.key, self.settings.again_s):
            return
        before = None if seen.reverted else claim.tx_hash
        waits = before is not None and await self._chain.waits(before)
        try:
            async with self._store.sending():
                tx_hash = await (
                    self._chain.offer_more(claim.signed, before)
                    if before is not None and waits
                    else self._chain.submit(claim.signed)
                )
        except Unacceptable:
            if not waits:
                await self._store.unsent(claim.key, before)
            if (await self._look(claim)).used:
                return  # somebody was faster: what came of that is seen at the next look
            await self._store.give_up(claim.key)
            raise
        except WalletRefused as refused:
            log.error("payments can't be carried to the chain: %s", refused)
            if waits:
                return  # it may still come for what it offers
            await self._store.give_up(claim.key)
            raise PaymentsUnavailable from refused
        except Problem:
            if not waits:
                await self._store.unsent(claim.key, before)
            raise
        if tx_hash is not None:
            await self._store.sent(claim.key, tx_hash)

    async def _withdraw(self, claim: Claim) -> bool:
        """Whether what was sent for a payment that can't come any more still waits.

        If it offers too little it is replaced by nothing, for every later transaction of the wallet waits behind it.
        """
        if claim.tx_hash is None or not await self._chain.waits(claim.tx_hash):
            return False
        try:
            async with self._store.sending():
                tx_hash = await self._chain.withdraw(claim.tx_hash)
        except WalletRefused as refused:
            log.error("a transaction can't be withdrawn from the chain: %s", refused)
            return True
        if tx_hash is not None:
            await self._store.sent(claim.key, tx_hash)
        return True

    async def _credit(self, claim: Claim, landing: Landing) -> Claim:
        """The claim's new state, the account if it is new, and its credit, in one transaction."""
        now_s = (await self._ledger.time()).at_s

        async def work(conn: Connection) -> Claim:
            found = await self._store.lock(conn, claim.key)
            if found.state != "open":
                return found
            account_id = found.account_id or await self._own_account(conn, found.signed.payer)
            found = await self._store.credit(conn, found.key, account_id, landing)
            await self._ledger.put_key(conn, KeyLimits(account_id, KEYLESS, KEYLESS_VERSION))
            # Last, for it locks the account's row for every other ledger call.
            await self._ledger.grant(
                account_id,
                Source.PREPAID,
                usdc_to_nano(found.signed.value),
                found.name,
                starts_at_s=now_s,
                expires_at_s=FOREVER_S,
                conn=conn,
            )
            return found

        credited = await self._database.transact(work)
        log.info(
            "payment credited account=%s amount=%d tx=%s", credited.account_id, claim.signed.value, landing.tx_hash
        )
        return credited

    async def _own_account(self, conn: Connection, address: str) -> int:
        found = await self._accounts.wallet_account(conn, address, create_account=self._ledger.create_account)
        return found.id

    async def _stand(self, claim: Claim) -> None:
        """A credited payment that may stand elsewhere, or nowhere, after a reorg.

        It is carried out again as long as it is valid; what has lapsed is taken back.
        """
        if claim.landed_block is not None:
            block = await self._chain.block(claim.landed_block)
            if block is not None and block.hash == claim.landed_hash:
                return
        seen = await self._look(claim)
        if seen.landing is not None:
            await self._store.landed(claim.key, seen.landing)
            return
        if claim.landed_block is not None:
            log.warning("a credited payment is on the chain no more account=%s tx=%s", claim.account_id, claim.tx_hash)
            await self._store.landed(claim.key, None)
        block = await self._chain.block(max(0, seen.head.number - self._chain.confirmations))
        over = block is not None and block.time_s >= claim.signed.valid_before
        if seen.used or over:
            await self._take_back(claim)
        else:
            await self._submit(claim, seen)

    async def _take_back(self, claim: Claim) -> None:
        if claim.account_id is not None:
            await self._ledger.reverse(claim.account_id, claim.name, 0, f"{claim.name}:reverse")
        await self._store.end(claim.key, "reversed")

    async def _look(self, claim: Claim) -> Seen:
        # A reorg may have put it into an earlier block than was the newest when it was claimed.
        from_block = claim.from_block - self._chain.confirmations
        return await self._chain.look(claim.signed, from_block=from_block, tx_hash=claim.tx_hash)

    def _ended(self, key: Key, done: asyncio.Task[Claim]) -> None:
        del self._settling[key]
        if not done.cancelled():
            done.exception()  # seen here too, for a caller that has gone won't look
