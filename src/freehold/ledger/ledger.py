"""The ledger's verbs. Each is one transaction; holds and settlements of one worker share theirs (batch.py)."""

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec.structs import replace

from freehold.clock import Clock, Day, Month, SystemClock, rfc3339
from freehold.db import LOST, Connection, Database, statements
from freehold.ledger import books
from freehold.ledger.batch import GroupCommit
from freehold.ledger.model import (
    PRIORITY,
    Attempt,
    Balance,
    Bill,
    BillLine,
    Charge,
    ChargePage,
    Difference,
    Grant,
    GroupBy,
    Hold,
    HoldRequest,
    KeyLimits,
    KeySpend,
    KeyState,
    LedgerTime,
    Leg,
    Purse,
    PurseBill,
    RateState,
    Settlement,
    Source,
    TopUp,
    UsageRow,
)
from freehold.ledger.problems import (
    AnswerStored,
    BillDiffers,
    DayUnopened,
    IdempotencyConflict,
    IdempotencyInProgress,
    InsufficientCredit,
    KeyExpired,
    KeyLimitReached,
    KeyRevoked,
    RateLimited,
    StaleKey,
    StalePrice,
    TooLargeForRate,
    WorkerFenced,
)
from freehold.money import MAX_NANO, format_usd
from freehold.problems import Conflict, InvalidRequest, LedgerUnavailable, NotFound

log = logging.getLogger(__name__)

BEAT_S = 5.0
LAPSE_S = 15.0
LATE_S = (2.0, 30.0)
"""When a hold that its caller was told is unknown is released once more: PostgreSQL may begin late what its worker
had given up."""
KEEP_S = 86_400.0
"""How long a released hold is remembered, so that the same request which comes late isn't held again."""
DAY_PENDING_RETRY_S = 5
"""What a caller without credit is told to wait while the new day lacks confirmations."""

ANSWER_PENDING_RETRY_S = 1
LONGEST_KEY = 255
"""Characters of an idempotency key."""


@dataclass(frozen=True, slots=True)
class _Extension:
    """More for a hold, as it goes into a batch."""

    hold: Hold
    more_nano: int
    tokens: int
    day_unopened_ok: bool

    @property
    def account_id(self) -> int:
        return self.hold.account_id

    @property
    def key_id(self) -> int:
        return self.hold.key_id

    @property
    def request_id(self) -> UUID:
        return self.hold.request_id

    @property
    def amount_nano(self) -> int:
        return self.more_nano

    @property
    def least_nano(self) -> int:
        return self.more_nano

    @property
    def price_version(self) -> int:
        return self.hold.price_version

    @property
    def step(self) -> int:
        return self.hold.step + 1

    @property
    def base_nano(self) -> int:
        return self.hold.amount_nano

    key_version = 0
    deadline_s = 0.0
    idempotency_key = None
    body_digest = None


class _Ending(msgspec.Struct, frozen=True):
    """The end of a hold, as it goes into a batch."""

    account_id: int
    request_id: UUID
    verb: str
    """settle | release"""
    settlement: Settlement


@dataclass(slots=True)
class _Ended:
    """What came of an ending."""

    row: asyncpg.Record
    """item, outcome, cost, absorbed, held, at_s, and the legs where they aren't the hold's first alone"""
    remaining: Mapping[Source, int]
    """What its account has left, per purse."""


_NOTHING = Settlement(cost_nano=0, model="", usage={})


class Ledger:
    """Holds, settlements, grants and reads over one database; one worker epoch from start() to stop().

    Verbs that reach the database raise LedgerUnavailable when it can't be reached.
    """

    def __init__(
        self, database: Database, *, clock: Clock | None = None, beat_s: float = BEAT_S, patience_s: float = 5.0
    ) -> None:
        """`patience_s`: how long a hold or a settlement is sent again before LedgerUnavailable."""
        self._database = database
        self._sql = statements("freehold.ledger")
        self._clock = clock or SystemClock()
        self._beat_s = beat_s
        self._epoch = 0
        self._renewing = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None
        self._heart: asyncpg.Connection | None = None
        self._pulse = asyncio.Lock()
        self._holds: GroupCommit[HoldRequest | _Extension, Hold | Exception] = GroupCommit(
            database, self._clock, self._send_holds, abandon=self._give_back, patience_s=patience_s
        )
        self._endings: GroupCommit[_Ending, _Ended] = GroupCommit(
            database, self._clock, self._send_endings, patience_s=patience_s
        )

    async def __aenter__(self) -> "Ledger":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def epoch(self) -> int:
        """The epoch that owns the holds opened now; 0 before start()."""
        return self._epoch

    # ---- one worker's life

    async def start(self) -> None:
        """Begin an epoch, its heartbeat and the two batching loops. When that fails, nothing is left running."""
        async with self._available():
            self._epoch = await self._database.fetchval(self._sql["start_epoch"])
            try:
                await self._holds.start()
                await self._endings.start()
            except BaseException:
                await self._holds.stop()
                await self._endings.stop()
                raise
        self._beating = asyncio.create_task(self._keep_beating())

    async def stop(self) -> None:
        """Send what is queued and end the epoch. Holds still open are swept by whoever runs the jobs."""
        await self._holds.stop()
        await self._endings.stop()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
            self._beating = None
        if self._heart is not None:
            self._heart.terminate()
            self._heart = None
        try:
            await self._database.execute(self._sql["end_epoch"], self._epoch)
        except LOST as lost:
            log.warning("epoch %d ends unannounced: %s", self._epoch, lost)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._beat_s)
            try:
                await self.beat()
            except (LedgerUnavailable, asyncpg.PostgresError) as lost:
                log.warning("heartbeat of epoch %d missed: %s", self._epoch, lost)

    async def beat(self) -> None:
        """Show that this worker lives; a new epoch begins where the old one has lapsed.

        On a connection of its own, so that no slow report in the pool can make a live worker lapse.
        """
        async with self._available(), self._pulse:
            if self._heart is None or self._heart.is_closed():
                self._heart = await self._database.dedicated()
            epoch = self._epoch
            if await self._heart.fetchval(self._sql["beat"], epoch, timeout=self._beat_s * 2) is None:
                await self._renew(epoch)

    async def _renew(self, lapsed: int) -> None:
        async with self._renewing:
            if self._epoch == lapsed:
                self._epoch = await self._database.fetchval(self._sql["start_epoch"])
                log.error("epoch %d has lapsed, its holds are swept; epoch %d begins", lapsed, self._epoch)

    # ---- hold, settle, release

    async def hold(self, request: HoldRequest) -> Hold:
        """Reserve a call's worst case over as many grants as it takes, or nothing at all.

        Raises InsufficientCredit, KeyLimitReached, RateLimited, KeyRevoked, KeyExpired, DayUnopened, StalePrice,
        StaleKey, WorkerFenced, LedgerUnavailable; Conflict when the request id was used by another call; for a used
        idempotency key AnswerStored, IdempotencyInProgress, IdempotencyConflict. A caller that is cancelled while it
        waits leaves no hold behind.
        """
        if not 0 <= request.least_nano <= MAX_NANO or not 0 <= request.amount_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A hold is between 0 and {format_usd(MAX_NANO)} USD.")
        if not 0 <= request.tokens <= MAX_NANO:
            raise InvalidRequest(reason=f"A call takes between 0 and {MAX_NANO} tokens.")
        if request.idempotency_key is not None and not (
            0 < len(request.idempotency_key) <= LONGEST_KEY and "\0" not in request.idempotency_key
        ):
            raise InvalidRequest(reason=f"An Idempotency-Key has 1 to {LONGEST_KEY} characters.")
        if (request.idempotency_key is None) != (request.body_digest is None):
            raise ValueError("an idempotency key and its body's digest come together")
        answer = self._holds.submit(request, (request.account_id, request.request_id))
        try:
            held = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._give_back(request, answer.result())
            raise
        if isinstance(held, AnswerStored):
            held.answer = await self._stored(request, held.request_id)
        if isinstance(held, Exception):
            raise held
        return held

    async def extend(self, hold: Hold, more_nano: int, *, tokens: int = 0, day_unopened_ok: bool = False) -> Hold:
        """Reserve `more_nano` on top of a hold of a running call, all or nothing; the hold as it then is.

        The same caps, grants and limits per minute decide, and refuse as `hold` does: InsufficientCredit,
        KeyLimitReached, RateLimited, KeyRevoked, KeyExpired, WorkerFenced (also for a hold of an epoch that has
        lapsed), LedgerUnavailable; DayUnopened only where today's allowance might pay. The call's price and key
        version stay. A refusal leaves the hold as it was. Sent again with the same hold and the same amount, it
        returns the first result; with another amount, Conflict. NotFound when the hold isn't open any more.
        """
        if not 0 < more_nano <= MAX_NANO or not 0 <= tokens <= MAX_NANO:
            raise InvalidRequest(reason=f"A hold is extended by more than 0 and at most {format_usd(MAX_NANO)} USD.")
        extension = _Extension(hold, more_nano, tokens, day_unopened_ok)
        held = await self._holds.submit(extension, (hold.account_id, hold.request_id))
        if isinstance(held, Exception):
            raise held
        return held

    async def store_answer(self, hold: Hold, answer: bytes) -> bool:
        """Keep the answer of a settled call for repeats of its idempotency key. `answer` is opaque, so encrypt it first.

        False when the key isn't this call's any more (it was swept, or has ended) or an answer is there already.
        """
        async with self._available():
            kept = await self._database.fetchval(
                self._sql["store_answer"], hold.account_id, hold.idempotency_key, hold.request_id, answer
            )
        return kept is not None

    async def _stored(self, request: HoldRequest, request_id: UUID) -> bytes | None:
        """Read by itself: a batch is no place for a MiB."""
        row = await self._row("stored_answer", request.account_id, request.idempotency_key, request_id)
        return None if row is None else row["answer"]

    async def settle(self, hold: Hold, settlement: Settlement) -> Charge:
        """Charge what the call came to and give the rest back. A repeat returns the first charge.

        What a cost is above its hold is absorbed, never the account's. A hold that was
        swept meanwhile isn't charged again: its charge has cost 0 and outcome `unsettled`.
        Raises LedgerUnavailable when the outcome is unknown (send it again), Conflict when the call was settled
        differently before, NotFound when there is no such hold or it was released.
        """
        if not 0 <= settlement.cost_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A cost is between 0 and {format_usd(MAX_NANO)} USD.")
        _require_attempts(settlement.attempts)
        ended = await self._end(hold, "settle", settlement)
        match ended.row[1]:
            case "charged":
                charge = _fresh_charge(hold, settlement, ended)
                if charge.absorbed_nano:
                    log.warning("%s cost %d nano-USD above its hold", hold.request_id, charge.absorbed_nano)
                return charge
            case "repeat":
                return await self.charge(hold.account_id, hold.request_id)
            case "conflict":
                raise Conflict(reason=f"Request {hold.request_id} was settled before, with another result.")
            case _:
                raise NotFound(reason=f"Request {hold.request_id} has no open hold.")

    async def release(self, hold: Hold, attempts: tuple[Attempt, ...] = ()) -> None:
        """Give a hold back unspent; what its attempts cost the operator is booked as owed to their upstreams.

        Does nothing when it isn't open any more.
        """
        _require_attempts(attempts)
        await self._end(hold, "release", replace(_NOTHING, attempts=attempts) if attempts else _NOTHING)

    async def _end(self, hold: Hold, verb: str, settlement: Settlement) -> _Ended:
        ending = _Ending(hold.account_id, hold.request_id, verb, settlement)
        # It goes to the database also when the caller leaves while it waits: what was produced is paid for.
        return await self._endings.submit(ending, (hold.account_id, hold.request_id))

    def _give_back(self, request: HoldRequest | _Extension, held: Hold | Exception | None) -> None:
        """Release the hold of a caller that has gone, or that was told it is unknown (None).

        An extension's is left: its call runs, and ends it.
        """
        if isinstance(held, Exception) or not isinstance(request, HoldRequest):
            return
        self._release_unasked(request)
        if held is None:
            for later_s in LATE_S:
                asyncio.get_running_loop().call_later(later_s, self._release_unasked, request)

    def _release_unasked(self, request: HoldRequest) -> None:
        """What is still open when this worker has stopped is swept."""
        self._endings.post(
            _Ending(request.account_id, request.request_id, "release", _NOTHING),
            (request.account_id, request.request_id),
        )

    async def _send_holds(
        self, connection: Connection, requests: Sequence[HoldRequest | _Extension]
    ) -> list[Hold | Exception]:
        epoch = self._epoch
        results = await self._hold_batch(connection, epoch, requests)
        fenced = [at for at, result in enumerate(results) if isinstance(result, WorkerFenced)]
        if fenced:
            await self._renew(epoch)
            again = await self._hold_batch(connection, self._epoch, [requests[at] for at in fenced])
            for at, result in zip(fenced, again, strict=True):
                results[at] = result
        return results

    async def _hold_batch(
        self, connection: Connection, epoch: int, requests: Sequence[HoldRequest | _Extension]
    ) -> list[Hold | Exception]:
        # In the order of accounts and keys, each account's and key's calls as they arrived.
        places = sorted(range(len(requests)), key=lambda at: (requests[at].account_id, requests[at].key_id))
        asked = [requests[at] for at in places]
        rows = await connection.fetch(
            self._sql["hold_batch"],
            epoch,
            [request.account_id for request in asked],
            [request.key_id for request in asked],
            [request.request_id for request in asked],
            [request.amount_nano for request in asked],
            [request.least_nano for request in asked],
            [request.price_version for request in asked],
            [request.key_version for request in asked],
            [request.deadline_s for request in asked],
            [request.day_unopened_ok for request in asked],
            [request.tokens for request in asked],
            [request.idempotency_key for request in asked],
            [request.body_digest for request in asked],
            [request.step for request in asked],
            [request.base_nano for request in asked],
        )
        results: list[Hold | Exception] = [WorkerFenced()] * len(requests)
        for row in rows:
            at = places[row[0] - 1]
            results[at] = _held_or_refused(requests[at], row)
        return results

    async def _send_endings(self, connection: Connection, endings: Sequence[_Ending]) -> list[_Ended]:
        rows = await connection.fetch(
            self._sql["settle_batch"],
            [ending.account_id for ending in endings],
            [ending.request_id for ending in endings],
            [ending.verb for ending in endings],
            [ending.settlement.cost_nano for ending in endings],
            [ending.settlement.model for ending in endings],
            [_JSON.encode(ending.settlement.usage).decode() for ending in endings],
            [ending.settlement.outcome for ending in endings],
            [ending.settlement.estimated for ending in endings],
            [ending.settlement.tokens for ending in endings],
            [_written_attempts(ending.settlement.attempts) for ending in endings],
            [ending.settlement.answer for ending in endings],
            [ending.settlement.answer_follows for ending in endings],
        )
        left: dict[int, Mapping[Source, int]] = {}
        found: list[asyncpg.Record | None] = [None] * len(endings)
        for row in rows:
            if row[0] is not None:
                found[row[0] - 1] = row
            else:
                left[row["held"]] = _remaining(row)
        return [
            _Ended(_present(row), left.get(ending.account_id, _NOTHING_LEFT))
            for ending, row in zip(endings, found, strict=True)
        ]

    # ---- accounts, keys, price, time

    async def create_account(self, conn: Connection) -> int:
        """A new account without credit, in the caller's transaction."""
        return int(await conn.fetchval(self._sql["create_account"]))

    async def put_key(self, conn: Connection, limits: KeyLimits) -> None:
        """Write a key's state, end and caps in the caller's transaction; what it has used stays.

        An older version than the one that stands changes nothing.
        """
        await conn.fetchval(self._sql["lock_account"], limits.account_id)
        await conn.execute(
            self._sql["put_key"],
            limits.account_id,
            limits.key_id,
            limits.version,
            limits.state.value,
            limits.expires_at_s,
            limits.day_cap_nano,
            limits.total_cap_nano,
            limits.month_cap_nano,
            limits.rpm,
            limits.tpm,
        )

    async def key_limits(self, account_id: int, key_id: int, *, conn: Connection | None = None) -> KeyLimits:
        """Raises NotFound. With `conn`, as the caller's transaction sees it."""
        if conn is None:
            row = await self._row("key_limits", account_id, key_id)
        else:
            row = await conn.fetchrow(self._sql["key_limits"], account_id, key_id)
        if row is None:
            raise NotFound(reason=f"There is no key {key_id} in account {account_id}.")
        return _limits(row)

    async def limits(self, account_id: int) -> list[KeyLimits]:
        """Those of every key of the account, in the keys' order."""
        return [_limits(row) for row in await self._rows("limits", account_id)]

    async def key_spend(self, account_id: int) -> list[KeySpend]:
        """What each key of the account has used and holds, today and in all."""
        return [
            KeySpend(
                key_id=row["key_id"],
                day=row["day"],
                day_used_nano=row["day_used"],
                day_held_nano=row["day_held"],
                total_used_nano=row["total_used"],
                total_held_nano=row["total_held"],
                month=Month.of(Day(row["day"]).start_s),
                month_used_nano=row["month_used"],
                month_held_nano=row["month_held"],
            )
            for row in await self._rows("key_spend", account_id)
        ]

    async def require_key(self, account_id: int, key_id: int, version: int) -> None:
        """For routes that hold nothing. Raises KeyRevoked, KeyExpired, StaleKey."""
        row = await self._row("key_and_time", account_id, key_id)
        if row is None or row["state"] != KeyState.ACTIVE:
            raise KeyRevoked
        if row["expires_at_s"] is not None and row["expires_at_s"] <= row["at_s"]:
            raise KeyExpired(expired=rfc3339(row["expires_at_s"]))
        if row["version"] != version:
            raise StaleKey

    async def set_price_version(self, conn: Connection, version: int, effective_at_s: int = 0) -> None:
        """Make `version` the one that calls must name from ledger time `effective_at_s` on, in the caller's transaction.

        Of the versions that have begun the greatest counts, so a smaller one that comes later changes nothing.
        """
        await conn.execute(self._sql["set_price_version"], version, effective_at_s)

    async def price_version(self) -> int:
        """The version of the price book that calls must name now."""
        row = await self._row("price_version")
        return int(row["version"]) if row is not None else 0

    async def set_time(self, at_s: int, *, opened_day: int, force: bool = False) -> None:
        """Ledger time, from the chain's newest block, and the newest day whose allowance may be issued.

        Neither goes back, except with `force`, for a dev chain that lost its tail. A time that isn't newer doesn't
        count as news: after 120 s without any, ledger time runs on by the wall clock, provisionally. The next
        block's time stands again, also where provisional time had run ahead of it.
        """

        async def work(conn: Connection) -> None:
            await conn.execute(self._sql["set_time"], at_s, force)
            await conn.execute(self._sql["set_opened_day"], opened_day, force)

        async with self._available():
            await self._database.transact(work)

    async def time(self) -> LedgerTime:
        row = _present(await self._row("time"))
        return LedgerTime(at_s=row["at_s"], provisional=row["provisional"], opened_day=row["opened_day"])

    # ---- grants

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
    ) -> Grant:
        """Credit an account once for `external_id`; a repeat returns the first grant as it is now.

        Raises Conflict when the id stands with another body, NotFound without such an account.
        """
        if not 0 < amount_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A grant is above 0 and at most {format_usd(MAX_NANO)} USD.")
        if expires_at_s <= starts_at_s:
            raise InvalidRequest(reason="A grant ends after it starts.")
        drawn = PRIORITY[source] if priority is None else priority
        row = await self._post(
            conn,
            "grant_credit",
            account_id,
            external_id,
            source.value,
            amount_nano,
            starts_at_s,
            expires_at_s,
            drawn,
            _digest("grant", source.value, amount_nano, starts_at_s, expires_at_s, drawn),
        )
        return _grant(_present(row))

    async def open_day(
        self, account_id: int, day: int, source: Source, amount_nano: int, external_id: str
    ) -> Grant | None:
        """Issue a day's allowance and mark the account as opened for it, also when it is 0 (None).

        A day that already has a grant of this source is raised to at least this amount. Raises Conflict, NotFound.
        """
        return await self._raise_day(account_id, day, source, amount_nano, external_id, opens=True)

    async def raise_grant(
        self, account_id: int, day: int, source: Source, to_amount_nano: int, external_id: str
    ) -> Grant | None:
        """Raise a day's grant to at least `to_amount_nano`, making it when there is none (None: still none).

        Not higher, or a repeat of `external_id`: changes nothing. Raises Conflict, NotFound.
        """
        return await self._raise_day(account_id, day, source, to_amount_nano, external_id, opens=False)

    async def _raise_day(
        self, account_id: int, day: int, source: Source, to_nano: int, external_id: str, *, opens: bool
    ) -> Grant | None:
        if not 0 <= to_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A day's grant is between 0 and {format_usd(MAX_NANO)} USD.")
        row = await self._post(
            None,
            "raise_day",
            account_id,
            external_id,
            day,
            source.value,
            to_nano,
            PRIORITY[source],
            opens,
            _digest("day", day, source.value, to_nano),
        )
        return None if row is None else _grant(row)

    async def reverse(self, account_id: int, grant_external_id: str, to_amount_nano: int, external_id: str) -> int:
        """Bring a grant down to `to_amount_nano`: what is available is taken, the rest goes to absorbed:reorg.

        Returns what was taken, nano-USD; for a repeat, what the first one took. Raises Conflict, NotFound.
        """
        if not 0 <= to_amount_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A grant is brought down to between 0 and {format_usd(MAX_NANO)} USD.")
        digest = _digest("reverse", grant_external_id, to_amount_nano)

        async def work(conn: Connection) -> int:
            row = _present(
                await conn.fetchrow(
                    self._sql["reverse_grant"], account_id, grant_external_id, to_amount_nano, external_id, digest
                )
            )
            _require_posted(row["outcome"], account_id, external_id, grant_external_id)
            return int(row["taken"])

        async with self._available():
            return await self._database.transact(work)

    async def restore(
        self,
        account_id: int,
        grant_external_id: str,
        to_amount_nano: int,
        external_id: str,
        *,
        conn: Connection | None = None,
    ) -> Grant:
        """Raise a grant that was reversed to `to_amount_nano` again. What was absorbed is made good first, so that what
        the account has spent of it isn't granted twice.

        Not higher, or a repeat of `external_id`: changes nothing. Raises Conflict, NotFound.
        """
        if not 0 <= to_amount_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A grant is raised to between 0 and {format_usd(MAX_NANO)} USD.")
        digest = _digest("restore", grant_external_id, to_amount_nano)
        row = await self._post(
            conn, "restore_grant", account_id, external_id, grant_external_id, to_amount_nano, digest
        )
        if row is None:
            raise NotFound(reason=f"There is no grant {grant_external_id} in account {account_id}.")
        return _grant(row)

    async def _post(
        self, conn: Connection | None, name: str, account_id: int, external_id: str, *args: Any
    ) -> asyncpg.Record | None:
        """Run one of the functions that post a grant, and read the grant; None when there is none."""

        async def work(conn: Connection) -> asyncpg.Record | None:
            row = _present(await conn.fetchrow(self._sql[name], account_id, external_id, *args))
            _require_posted(row["outcome"], account_id, external_id, external_id)
            return await conn.fetchrow(self._sql["grant"], account_id, row["grant_id"])

        if conn is not None:
            return await work(conn)
        async with self._available():
            return await self._database.transact(work)

    async def grants(self, account_id: int, live_only: bool = True) -> list[Grant]:
        """Grants in the order that they are drawn; with `live_only`, those that can pay now."""
        return [_grant(row) for row in await self._rows("grants", account_id, live_only)]

    # ---- reads

    async def needs_day(self, account_id: int) -> bool:
        """Whether today's allowance may be issued and wasn't. Raises NotFound."""
        row = await self._row("needs_day", account_id)
        if row is None:
            raise _no_account(account_id)
        return bool(row[0])

    async def balance(self, account_id: int) -> Balance:
        """Every purse at ledger time; nothing that has ended shows. A pure read. Raises NotFound."""
        rows = await self._rows("balance", account_id)
        if not rows:
            raise _no_account(account_id)
        by_source = {row["source"]: row for row in rows if row["source"] is not None}
        return Balance(
            account_id=account_id,
            at_s=rows[0]["at_s"],
            provisional=rows[0]["provisional"],
            day=rows[0]["day"],
            purses=tuple(_purse(source, by_source.get(source.value)) for source in Source),
            reset_at_s=Day(rows[0]["day"]).end_s,
        )

    async def charge(self, account_id: int, request_id: UUID) -> Charge:
        """Raises NotFound."""
        row = await self._row("charge", account_id, request_id)
        if row is None:
            raise NotFound(reason=f"There is no charge for request {request_id}.")
        return charge_of(row)

    async def charges(
        self,
        account_id: int,
        *,
        after: str | None = None,
        limit: int = 100,
        from_s: int | None = None,
        to_s: int | None = None,
        key_id: int | None = None,
        model: str | None = None,
    ) -> ChargePage:
        """One page of charges, newest first, settled in [from_s, to_s). `after` is the page before's `next`.

        Raises InvalidRequest for a cursor that isn't one.
        """
        at_s, position = _read_cursor(after)
        size = max(1, min(limit, 1000))
        rows = await self._rows("charges", account_id, at_s, position, from_s, to_s, key_id, model, size + 1)
        shown = rows[:size]
        more = _write_cursor(shown[-1]) if len(rows) > size else None
        return ChargePage(charges=tuple(charge_of(row) for row in shown), next=more)

    async def usage(
        self, account_id: int, group_by: GroupBy | str, from_s: int | None = None, to_s: int | None = None
    ) -> list[UsageRow]:
        """Charges settled in [from_s, to_s), summed by day, hour, model or key, in the groups' order."""
        rows = await self._rows("usage", account_id, GroupBy(group_by).value, from_s, to_s)
        return [
            UsageRow(
                group=row["group"],
                calls=row["calls"],
                usage=msgspec.json.decode(row["units"]),
                cost_nano=row["cost"],
                by_source={Source(name): amount for name, amount in msgspec.json.decode(row["sources"]).items()},
            )
            for row in rows
        ]

    async def bill(self, account_id: int, month: Month) -> Bill:
        """A calendar month computed from the entries, in one snapshot.

        Raises NotFound, and BillDiffers where it doesn't sum to the ledger to the nano-USD.
        """
        bill = await self._read_bill(account_id, month)
        if differences := bill.differences():
            log.error("the bill of account %d for %s differs: %s", account_id, month, "; ".join(differences))
            raise BillDiffers(month=month, differences="; ".join(differences))
        return bill

    async def _read_bill(self, account_id: int, month: Month) -> Bill:
        of = (account_id, month.first.number, month.next().first.number)
        async with (
            self._available(),
            self._database.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            head = await connection.fetchrow(self._sql["bill_head"], *of)
            purses = {row["source"]: row for row in await connection.fetch(self._sql["bill_purses"], *of)}
            top_ups = await connection.fetch(self._sql["bill_top_ups"], *of)
            lines = await connection.fetch(self._sql["bill_lines"], *of)
            absorbed = await connection.fetch(self._sql["bill_absorbed"], *of)
        if head is None:
            raise _no_account(account_id)
        return Bill(
            account_id=account_id,
            month=month,
            final=head["final"],
            purses=tuple(_purse_bill(source, purses.get(source.value)) for source in Source),
            top_ups=tuple(TopUp(row["at_s"], row["external_id"], row["amount"]) for row in top_ups),
            lines=tuple(
                BillLine(
                    day=row["day"],
                    model=row["model"],
                    key_id=row["key_id"],
                    source=None if row["source"] is None else Source(row["source"]),
                    calls=row["calls"],
                    cost_nano=row["cost"],
                )
                for row in lines
            ),
            absorbed={row["cause"]: row["amount"] for row in absorbed},
        )

    # ---- jobs and books

    async def sweep(self, *, lapse_s: float = LAPSE_S, limit: int = 500) -> int:
        """Mark epochs that have not beaten for `lapse_s`, and give back up to `limit` holds of lapsed epochs.

        What they may have cost is posted as absorbed:unsettled. Returns how many holds were swept.
        """
        swept = await self._job("sweep", lapse_s, limit)
        if swept:
            log.warning("%d holds of lapsed workers were given back, their estimates absorbed", swept)
        return swept

    async def expire(self, limit: int = 500) -> int:
        """Post what is left in up to `limit` ended grants as breakage; returns how many. Not by provisional time."""
        return await self._job("expire", limit)

    async def forget_ended(self, *, keep_s: float = KEEP_S, limit: int = 500) -> int:
        """Drop up to `limit` each of released holds, idle counts and workers' lives older than `keep_s`; how many."""
        return await self._job("forget_ended", keep_s, limit)

    async def forget_answers(self, limit: int = 500) -> int:
        """Drop up to `limit` idempotency keys whose 24 hours are over; returns how many."""
        return await self._job("forget_answers", limit)

    async def check(self) -> list[Difference]:
        """Recompute everything from the entries; what differs, law by law. Empty when the books are right."""
        async with self._available():
            return await books.check(self._database)

    async def _job(self, name: str, *args: Any) -> int:
        async def work(conn: Connection) -> int:
            return int(await conn.fetchval(self._sql[name], *args))

        async with self._available():
            return await self._database.transact(work)

    async def _rows(self, name: str, *args: Any) -> list[asyncpg.Record]:
        async with self._available():
            return await self._database.fetch(self._sql[name], *args)

    async def _row(self, name: str, *args: Any) -> asyncpg.Record | None:
        async with self._available():
            return await self._database.fetchrow(self._sql[name], *args)

    @asynccontextmanager
    async def _available(self) -> AsyncIterator[None]:
        try:
            yield
        except LOST as lost:
            raise LedgerUnavailable(reason="PostgreSQL doesn't answer") from lost


_JSON = msgspec.json.Encoder()
_SOURCES = {source.value: source for source in Source}
_NOTHING_LEFT = dict.fromkeys(Source, 0)
"""Made once: enumerations are slow to call and to hash, and every call of the gateway comes by here."""


def _legs(grant_ids: Sequence[int], sources: Sequence[str], amounts: Sequence[int]) -> tuple[Leg, ...]:
    return tuple(
        Leg(grant_id, _SOURCES[source], amount)
        for grant_id, source, amount in zip(grant_ids, sources, amounts, strict=True)
    )


def _limits(row: asyncpg.Record) -> KeyLimits:
    return KeyLimits(
        account_id=row["account_id"],
        key_id=row["key_id"],
        version=row["version"],
        state=KeyState(row["state"]),
        expires_at_s=row["expires_at_s"],
        day_cap_nano=row["day_cap"],
        total_cap_nano=row["total_cap"],
        month_cap_nano=row["month_cap"],
        rpm=row["rpm"],
        tpm=row["tpm"],
    )


def _require_attempts(attempts: Sequence[Attempt]) -> None:
    for attempt in attempts:
        if not 0 <= attempt.cost_nano <= MAX_NANO:
            raise InvalidRequest(reason=f"A cost is between 0 and {format_usd(MAX_NANO)} USD.")
        if not attempt.upstream:
            raise InvalidRequest(reason="An attempt names its upstream.")


def _written_attempts(attempts: Sequence[Attempt]) -> str | None:
    if not attempts:
        return None
    return msgspec.json.encode([(one.upstream, one.cost_nano, one.outcome) for one in attempts]).decode()


def _rate(row: asyncpg.Record) -> RateState | None:
    if row["rates"] is None:
        return None
    rpm, requests, requests_reset_s, tpm, tokens, tokens_reset_s = row["rates"]
    return RateState(
        *((None, None, None) if rpm is None else (rpm, requests, requests_reset_s)),
        *((None, None, None) if tpm is None else (tpm, tokens, tokens_reset_s)),
    )


def _held_or_refused(request: HoldRequest | _Extension, row: asyncpg.Record) -> Hold | Exception:
    outcome = row["outcome"]
    if outcome in ("held", "repeat"):
        grant_id = row["grant_id"]
        return Hold(
            request_id=request.request_id,
            account_id=request.account_id,
            key_id=request.key_id,
            amount_nano=row["amount"],
            legs=_legs(row["grant_ids"], row["sources"], row["amounts"])
            if grant_id is None
            else (Leg(grant_id, _SOURCES[row["source"]], row["amount"]),),
            price_version=request.price_version,
            day=row["number"],
            step=row["used"],
            idempotency_key=request.hold.idempotency_key
            if isinstance(request, _Extension)
            else request.idempotency_key,
            rate=_rate(row),
        )
    reset = rfc3339(Day(row["day"]).end_s)
    match outcome:
        case "fenced":
            return WorkerFenced()
        case "key_revoked":
            return KeyRevoked()
        case "key_expired":
            return KeyExpired(expired=rfc3339(row["number"]))
        case "stale_key":
            return StaleKey()
        case "stale_price":
            return StalePrice(row["number"])
        case "day_unopened":
            return DayUnopened()
        case "key_day" | "key_month" | "key_total":
            limit, resets = {
                "key_day": ("daily", f"at {reset}"),
                "key_month": ("monthly", f"at {rfc3339(Month.of(Day(row['day']).start_s).end_s)}"),
                "key_total": ("total", "never"),
            }[outcome]
            return KeyLimitReached(
                needed=format_usd(request.least_nano),
                limit=limit,
                cap=format_usd(row["cap"]),
                used=format_usd(row["used"]),
                reset=resets,
            )
        case "rate_requests" | "rate_tokens":
            return _rate_limited(request, row)
        case "key_running":
            return IdempotencyInProgress(
                retry_after_s=ANSWER_PENDING_RETRY_S, request=request_name(row["first_request"])
            )
        case "key_conflict":
            return IdempotencyConflict(request=request_name(row["first_request"]))
        case "key_done":
            return AnswerStored(row["first_request"], None)
        case "ended":
            return NotFound(reason=f"Request {request.request_id} has no open hold.")
        case "credit":
            return _insufficient(request, row, reset)
        case _:
            return Conflict(reason=f"Request id {request.request_id} was used by another call.")


def request_name(request_id: UUID) -> str:
    """As answers name a request."""
    return f"req_{request_id.hex}"


def _rate_limited(request: HoldRequest | _Extension, row: asyncpg.Record) -> RateLimited:
    tokens = row["outcome"] == "rate_tokens"
    never = row["number"] is None
    refused = (TooLargeForRate if never else RateLimited)(
        retry_after_s=row["number"],
        cap=row["cap"],
        unit="tokens" if tokens else "requests",
        used=row["used"],
        needed=request.tokens if tokens else 1,
        wait_s=row["number"],
    )
    refused.rate = _rate(row)
    return refused


def _insufficient(request: HoldRequest | _Extension, row: asyncpg.Record, reset: str) -> InsufficientCredit:
    left = {Source.ALLOWANCE: 0, Source.PREPAID: 0}
    for name, amount in zip(row["sources"], row["amounts"], strict=True):
        left[Source(name)] = left.get(Source(name), 0) + amount
    return InsufficientCredit(
        retry_after_s=DAY_PENDING_RETRY_S if row["number"] else None,
        needed=format_usd(request.least_nano),
        available=format_usd(sum(left.values())),
        purses=", ".join(f"{source.value} {format_usd(amount)}" for source, amount in left.items()),
        reset=reset,
    )


def _remaining(row: asyncpg.Record) -> Mapping[Source, int]:
    remaining = _NOTHING_LEFT.copy()
    for name, amount in zip(row["sources"], row["amounts"], strict=True):
        remaining[_SOURCES[name]] = amount
    return remaining


def _fresh_charge(hold: Hold, settlement: Settlement, ended: _Ended) -> Charge:
    _, _, cost, absorbed, held, at_s, grant_ids, sources, amounts = ended.row
    if grant_ids is not None:
        legs = _legs(grant_ids, sources, amounts)
    else:  # the hold's first leg alone
        legs = (Leg(hold.legs[0].grant_id, hold.legs[0].source, cost),) if cost else ()
    return Charge(
        request_id=hold.request_id,
        account_id=hold.account_id,
        key_id=hold.key_id,
        model=settlement.model,
        usage=settlement.usage,
        price_version=hold.price_version,
        held_nano=held,
        cost_nano=cost,
        absorbed_nano=absorbed,
        legs=legs,
        outcome=settlement.outcome,
        estimated=settlement.estimated,
        day=hold.day,
        at_s=at_s,
        attempts=settlement.attempts,
        remaining=ended.remaining,
    )


def charge_of(row: asyncpg.Record) -> Charge:
    return Charge(
        request_id=row["request_id"],
        account_id=row["account_id"],
        key_id=row["key_id"],
        model=row["model"],
        usage=msgspec.json.decode(row["usage"]),
        price_version=row["price_version"],
        held_nano=row["held"],
        cost_nano=row["cost"],
        absorbed_nano=row["absorbed"],
        legs=_legs(row["leg_grants"], row["leg_sources"], row["leg_amounts"]),
        outcome=row["outcome"],
        estimated=row["estimated"],
        day=row["day"],
        at_s=row["at_s"],
        attempts=tuple(Attempt(*attempt) for attempt in msgspec.json.decode(row["attempts"] or b"[]")),
    )


def _present(row: asyncpg.Record | None) -> asyncpg.Record:
    """The row of a statement that always returns one."""
    if row is None:
        raise LookupError("a row that is always there is missing")
    return row


def _grant(row: asyncpg.Record) -> Grant:
    return Grant(
        id=row["id"],
        account_id=row["account_id"],
        source=Source(row["source"]),
        amount_nano=row["amount"],
        available_nano=row["available"],
        held_nano=row["held"],
        starts_at_s=row["starts_at_s"],
        expires_at_s=row["expires_at_s"],
        priority=row["priority"],
        external_id=row["external_id"],
    )


def _purse(source: Source, row: asyncpg.Record | None) -> Purse:
    if row is None:
        return Purse(source, granted_nano=0, available_nano=0, held_nano=0, used_nano=0)
    return Purse(
        source,
        granted_nano=row["granted"],
        available_nano=row["available"],
        held_nano=row["held"],
        used_nano=row["granted"] - row["available"] - row["held"],
    )


def _purse_bill(source: Source, row: asyncpg.Record | None) -> PurseBill:
    if row is None:
        return PurseBill(source, 0, 0, 0, 0, 0, 0)
    return PurseBill(
        source,
        opening_nano=row["opening"],
        granted_nano=row["granted"],
        used_nano=row["used"],
        expired_nano=row["expired"],
        reversed_nano=row["reversed"],
        closing_nano=row["closing"],
    )


def _require_posted(outcome: str, account_id: int, external_id: str, grant_external_id: str) -> None:
    match outcome:
        case "conflict":
            raise Conflict(reason=f"{external_id} was posted before, with another body.")
        case "no_account":
            raise _no_account(account_id)
        case "no_grant":
            raise NotFound(reason=f"There is no grant {grant_external_id} in account {account_id}.")


def _no_account(account_id: int) -> NotFound:
    return NotFound(reason=f"There is no account {account_id}.")


def _digest(*body: object) -> bytes:
    return hashlib.sha256("|".join(map(str, body)).encode()).digest()


def _write_cursor(row: asyncpg.Record) -> str:
    return base64.urlsafe_b64encode(f"{row['at_s']}.{row['position']}".encode()).decode()


def _read_cursor(cursor: str | None) -> tuple[int | None, int | None]:
    if cursor is None:
        return None, None
    try:
        at_s, _, position = base64.urlsafe_b64decode(cursor).decode().partition(".")
        place = int(at_s), int(position)
        if not all(0 <= number < 2**63 for number in place):
            raise ValueError("no row has such a place")
        return place
    except ValueError:
        raise InvalidRequest(param="cursor", reason="This cursor is not one that a page gave out.") from None
