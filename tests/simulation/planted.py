"""Faults planted in the real ledger, at least one for each law: the simulator must find every one.

Each changes one piece of the product in a database of its own: a line of an SQL function, or a verb of Ledger.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from freehold.db import LOST, Connection
from freehold.gateway.door import Door
from freehold.gateway.meter import Meter
from freehold.gateway.replay import Repeatable
from freehold.ledger.ledger import Ledger, _Ended
from freehold.ledger.model import Charge, Hold, HoldRequest, Settlement
from freehold.ledger.problems import InsufficientCredit
from freehold.pricing.model import INPUT, OUTPUT, Usage

from .gateway import GatewayWorld
from .server import Server
from .world import Report, World

LOCK = "perform 1 from ledger.accounts a where a.id = any (p_accounts) order by a.id for no key update;"


@dataclass(frozen=True)
class Planted:
    law: str
    what: str
    edits: tuple[tuple[str, str, str], ...] = ()
    """(function, text, instead): each text stands in the function."""
    also: str = ""
    """SQL that takes a line of defence away, so that the law is broken and not only an error raised."""
    ledger_type: type[Ledger] = Ledger
    swaps: tuple[tuple[type[Any], str, object], ...] = ()
    """(whose, name, instead): pieces of the gateway."""
    gateway: bool = False
    """Whether it is looked for with the gateway's calls."""
    seed: int | None = 0
    """A seed that finds it, for the suite; None where it takes too many to know one."""
    signs: tuple[str, ...] = ()
    """Other laws under which it may be found first."""


class TakesLossForRefusal(Ledger):
    async def _send_holds(self, connection: Connection, requests: Sequence[Any]) -> list[Hold | Exception]:
        try:
            return await super()._send_holds(connection, requests)
        except LOST:
            return [InsufficientCredit(needed="", available="", purses="", reset="") for _ in requests]


class TakesLossForSuccess(Ledger):
    async def _send_endings(self, connection: Connection, endings: Sequence[Any]) -> list[_Ended]:
        try:
            return await super()._send_endings(connection, endings)
        except LOST:
            return [
                _Ended((None, "charged", ending.settlement.cost_nano, 0, 0, 0, None, None, None), {})  # type: ignore[arg-type]
                for ending in endings
            ]


class KeepsWhatCallersLeave(Ledger):
    def _give_back(self, request: Any, held: Hold | Exception | None) -> None:
        """Nothing."""


class DropsWhatIsRefused(Ledger):
    async def start(self) -> None:
        def refuse(waiting: Any, refused: Exception) -> None:
            self._endings._give_up(waiting, "it refused the entry")

        self._endings._refuse = refuse  # type: ignore[method-assign]
        await super().start()


class MixesAnswersUp(Ledger):
    async def _hold_batch(self, connection: Connection, epoch: int, requests: Sequence[Any]) -> list[Hold | Exception]:
        results = await super()._hold_batch(connection, epoch, requests)
        return results[1:] + results[:1] if all(isinstance(request, HoldRequest) for request in requests) else results


PLANTED: dict[str, Planted] = {
    "unbalanced": Planted(
        "balanced", "a charge takes 1 nano-USD more than its legs",
        (("settle_batch", "x.held, x.cost, x.absorbed, p_outcomes", "x.held, x.cost + 1, x.absorbed, p_outcomes"),),
    ),
    "rewritten": Planted(
        "append-only", "an expiry rewrites the posting of its grant",
        (("expire", "v_count := v_count + 1;", "v_count := v_count + 1; update ledger.postings p set at_s = v_at"
          " where p.account_id = g.account_id and p.grant_ids[1] = g.id and p.kind = 'grant';"),),
        also="alter table ledger.postings disable trigger append_only",
    ),
    "counted-twice": Planted(
        "a repeat is a no-op", "a deposit that is posted again is credited again",
        (("grant_credit", "grant_id := v_done.grant_id;", "grant_id := v_done.grant_id;"
          " if outcome = 'repeat' then"
          " update ledger.grants x set amount = x.amount + p_amount, available = x.available + p_amount"
          " where x.account_id = p_account and x.id = v_done.grant_id;"
          " insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)"
          " select p_account, p_external || ':' || count(*), 'grant', 0, p_digest,"
          " array['purse:' || p_source, ledger.source_line(p_source)], array[v_done.grant_id, v_done.grant_id],"
          " array[p_amount, -p_amount] from ledger.postings; end if;"),),
    ),
    "race-of-repeats": Planted(
        "every refusal has a name", "two postings of one id at once don't wait for each other",
        (("grant_credit", "perform 1 from ledger.accounts a where a.id = p_account for no key update;",
          "perform 1 from ledger.accounts a where a.id = p_account;"),),
    ),
    "other-body": Planted(
        "another body is refused", "a repeat's body isn't compared",
        (("grant_credit", "when v_done.digest = p_digest then", "when true then"),), seed=4,
    ),
    "other-settlement": Planted(
        "another body is refused", "a repeated settlement's cost isn't compared",
        (("settle_batch", "s.cost + s.absorbed = x.asked", "true"),
         ("settle_batch", "s.usage = p_usages[x.item]", "true")),
    ),
    "lost-update": Planted(
        "balance = projection", "holds don't wait for each other, and what is missing is forgotten",
        (("hold_batch", LOCK, ""), ("hold_batch", "set available = g.available - d.amount",
                                    "set available = greatest(0, g.available - d.amount)")),
        signs=("never negative",), seed=4,
    ),
    "negative": Planted(
        "never negative", "holds don't wait for each other",
        (("hold_batch", LOCK, ""),),
        also="alter table ledger.grants drop constraint grants_never_negative", seed=9,
    ),
    "not-projected": Planted(
        "balance = projection", "1 nano-USD too much is given back",
        (("settle_batch", "set available = g.available + d.back,",
          "set available = g.available + d.back + (d.back > 0)::int,"),),
    ),
    "float": Planted(
        "no precision is lost", "a cost passes through a double",
        (("settle_batch", "then least(u.asked, h.amount) else 0 end",
          "then least(case when u.asked::float8::numeric < u.asked then u.asked::float8::bigint else u.asked end,"
          " h.amount) else 0 end"),), seed=36,
    ),
    "mixed": Planted(
        "sources are not mixed", "every leg is booked on the first leg's purse",
        (("settle_batch", "x.leg_sources[1:cardinality(x.parts)], x.parts, p_attempts",
          "array_fill(x.leg_sources[1], array[cardinality(x.parts)]), x.parts, p_attempts"),), seed=1,
    ),
    "deleted": Planted(
        "append-only", "a reversal deletes what it reverses",
        (("reverse_grant", "outcome := 'posted';", "outcome := 'posted'; delete from ledger.postings p"
          " where p.account_id = p_account and p.external_id in (p_external, p_grant_external);"),),
        also="alter table ledger.postings disable trigger append_only",
        signs=("balance = projection", "state rebuilds from entries"), seed=1,
    ),
    "not-rebuilt": Planted(
        "state rebuilds from entries", "a key's use counts what was held",
        (("settle_batch", "total_used = k.total_used + d.cost,", "total_used = k.total_used + d.held,"),),
    ),
    "misdated": Planted(
        "order is monotonic",
        "a charge isn't dated by the ledger time read under its account's lock",
        (("settle_batch", "x.day, v_now.at_s,", "x.day, v_now.at_s - x.cost % 97,"),),
    ),
    "told-refused": Planted(
        "what was refused is not applied", "a lost connection is told as a refusal", ledger_type=TakesLossForRefusal,
        signs=("no hold leaks", "no credit leaks"), seed=1,
    ),
    "refused-applied": Planted(
        "what was refused is not applied", "answers of one batch are mixed up", ledger_type=MixesAnswersUp,
        signs=("what was told is durable", "every refusal has a name", "a repeat is a no-op"), seed=1,
    ),
    "told-charged": Planted(
        "what was told is durable", "an unknown COMMIT is told as a charge", ledger_type=TakesLossForSuccess,
    ),
    "leak": Planted(
        "no hold leaks", "a caller that leaves keeps its hold", ledger_type=KeepsWhatCallersLeave, seed=3,
    ),
    "dropped": Planted(
        "no hold leaks", "a release that waited too long for a lock isn't sent again", ledger_type=DropsWhatIsRefused, seed=None,
    ),
    "unrepeatable": Planted(
        "no hold leaks", "a hold that is sent again after an unknown COMMIT is refused",
        (("hold_batch", "if h.state = 'open' and h.epoch = p_epoch and", "if false and"),),
        signs=("what was refused is not applied",), seed=1,
    ),
    "unfenced": Planted(
        "a lapsed worker is fenced", "a lapsed worker goes on holding",
        (("hold_batch", "select e.lapsed_at is null from", "select true from"),), seed=10,
    ),
    "swept-alive": Planted(
        "a live worker is not swept", "workers lapse after 3 s",
        (("sweep", "p_lapse_s * interval '1 second'", "p_lapse_s * interval '0.2 second'"),),
    ),
    "revoked": Planted(
        "the hold call decides", "a revoked key is let through",
        (("hold_batch", "k.state is distinct from 'active'", "k.state is null"),), seed=6,
    ),
    "old-price": Planted(
        "the hold call decides", "an old price is let through",
        (("hold_batch", "p_prices[item] <> v_now.price", "p_prices[item] > v_now.price"),), seed=11,
    ),
    "cap": Planted(
        "a key's cap holds", "calls of one batch don't count for each other",
        (("hold_batch", "k_day_left := k_day_left - amount;", "null;"),
         ("hold_batch", "k_total_left := k_total_left - amount;", "null;")), seed=175,
    ),
    "month-cap": Planted(
        "a key's cap holds", "calls of one batch don't count for each other's month",
        (("hold_batch", "k_month_left := k_month_left - amount;", "null;"),), seed=84,
    ),
    "requests": Planted(
        "a key's limit per minute holds", "requests of one batch aren't counted together",
        (("hold_batch", "k_requested := k_requested + 1;", "null;"),), seed=42,
    ),
    "tokens": Planted(
        "a key's limit per minute holds", "tokens of one batch aren't counted together",
        (("hold_batch", "k_took := k_took + p_tokens[item];", "null;"),), seed=None,
    ),
    "minute": Planted(
        "a key's limit per minute holds", "a minute has 30 seconds",
        (("slid", "p_by > 60", "p_by > 30"),), seed=47,
    ),
    "tokens-stay": Planted(
        "a key's limit per minute holds", "a release leaves its tokens counted",
        (("settle_batch", "where p_verbs[r.item] = 'release' or (", "where ("),), seed=36,
    ),
    "ended-key": Planted(
        "the hold call decides", "a key is let through for a second after its end",
        (("hold_batch", "k.expires_at_s <= v_now.at_s", "k.expires_at_s < v_now.at_s"),
         ("hold_batch", "k.expires_at_s > v_now.at_s", "k.expires_at_s >= v_now.at_s")), seed=79,
    ),
    "revoked-extends": Planted(
        "the hold call decides", "a revoked key's call goes on growing",
        (("hold_batch", "k.state is distinct from 'active'", "(q.step = 0 and k.state is distinct from 'active')"),), seed=105,
    ),
    "other-answer": Planted(
        "a repeat gets the first call's answer", "answers of one batch are mixed up",
        (("settle_batch", "answer = p_answers[r.item]", "answer = p_answers[1]"),), seed=115,
    ),
    "owed": Planted(
        "what upstreams are owed stands", "every call of a batch owes what its first one does",
        (("settle_batch", "x.parts, p_attempts[x.item]", "x.parts, p_attempts[1]"),), seed=10,
    ),
    "owed-nothing": Planted(
        "what upstreams are owed stands", "what the tries of a released call cost is forgotten",
        (("settle_batch", "if v_now.released then\n        insert", "if false then\n        insert"),), seed=2,
    ),
    "early-time": Planted(
        "order is monotonic", "a settlement reads ledger time before it has its accounts' locks",
        (("settle_batch", LOCK,
          f"perform set_config('sim.early', (select n.at_s::text from ledger.present n), true); {LOCK}"),
         ("settle_batch", "(select n.at_s from ledger.present n offset 0) n",
          "(select current_setting('sim.early')::bigint as at_s) n")), seed=None,
    ),
    "charged-again": Planted(
        "an idempotency key is charged once", "an idempotency key isn't looked up",
        (("hold_batch", "and x.expires_at > clock_timestamp();", "and false;"),), seed=3,
    ),
}  # fmt: skip


async def _settled_without_waiting(self: Door, hold: Hold, settlement: Settlement | None, *args: Any) -> Charge | None:
    self._settling.add(asyncio.ensure_future(self._settle_until_known(hold, settlement, *args)))
    return None


async def _settled_without_release(self: Door, hold: Hold, settlement: Settlement | None, *args: Any) -> Charge | None:
    return None if settlement is None else await self._settle_until_known(hold, settlement, *args)


_READING = Meter.reading


def _one_more(self: Meter) -> tuple[Usage, bool]:
    usage, estimated = _READING(self)
    return ({**usage, OUTPUT: usage[OUTPUT] + 1} if estimated else usage), estimated


PLANTED |= {
    "unwaited": Planted(
        "what was told is durable", "an answer doesn't wait for its settlement", gateway=True,
        swaps=((Door, "settle", _settled_without_waiting),),
    ),
    "unreleased": Planted(
        "no hold leaks", "a call that came to nothing isn't released", gateway=True,
        swaps=((Door, "settle", _settled_without_release),),
    ),
    "undelivered": Planted(
        "nothing delivered, nothing charged", "an upstream that died before its first word is paid for", gateway=True,
        swaps=((Meter, "delivered", lambda self: True),),
    ),
    "one-more": Planted(
        "a bill is what was reported, or the rule", "the rule counts one token more", gateway=True,
        swaps=((Meter, "reading", _one_more),),
    ),
    "believed": Planted(
        "a bill is what was reported, or the rule", "usage that can't be is believed", gateway=True,
        swaps=((Meter, "usage", lambda self: {INPUT: 3, OUTPUT: 1} if self.reported is not None else None),),
        signs=("nothing delivered, nothing charged",),
    ),
    "sent-again": Planted(
        "an idempotency key is charged once", "a repeat is a call of its own", gateway=True,
        swaps=((Repeatable, "of", lambda exchange, body: None),), seed=1,
    ),
}  # fmt: skip


def simulate(planted: Planted, seed: int, server: Server, *, keep_trace: bool = False) -> Report:
    """One seed with the fault in it."""
    before = [(whose, name, vars(whose)[name]) for whose, name, _ in planted.swaps]
    for whose, name, instead in planted.swaps:
        setattr(whose, name, instead)
    try:
        world = GatewayWorld if planted.gateway else World
        return world(seed, server, ledger_type=planted.ledger_type, keep_trace=keep_trace).run()
    finally:
        for whose, name, was in before:
            setattr(whose, name, was)


def patches(planted: Planted) -> Callable[[asyncpg.Connection], Awaitable[None]]:
    """What puts it into a database."""

    async def patch(connection: asyncpg.Connection) -> None:
        for function, text, instead in planted.edits:
            body = await connection.fetchval(
                "select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = 'ledger'::regnamespace"
                " and p.proname = $1",
                function,
            )
            if text not in body:
                raise LookupError(f"{function} has no {text!r}: plant {planted.what!r} anew")
            await connection.execute(body.replace(text, instead))
        if planted.also:
            await connection.execute(planted.also)

    return patch


def caught(planted: Planted, broken: Sequence[str]) -> bool:
    """Whether what was found is what was planted. `books check` may be the one that says so."""
    return any(one.startswith((f"{planted.law}:", *(f"{sign}:" for sign in planted.signs))) for one in broken)
