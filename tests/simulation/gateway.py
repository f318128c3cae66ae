"""The gateway under the same faults: the real Door and Call, between clients who leave and upstreams that lie or die.

Requests arrive in process; the upstreams are scripted, and each client writes down what it sent and got.
"""

import asyncio
import json
import logging
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from uuid import UUID

from freehold.gateway.asgi import ClientLeft, Exchange, answer
from freehold.gateway.door import Door
from freehold.gateway.headers import Headers
from freehold.gateway.replay import KEY_BYTES, Answers
from freehold.gateway.settings import DoorSettings
from freehold.identity.model import ApiKey, Caller, Scope
from freehold.identity.problems import InvalidApiKey
from freehold.ledger.ledger import Ledger
from freehold.ledger.model import KeyState
from freehold.money import parse_usd
from freehold.pricing.model import INPUT, OUTPUT, Price, PriceBook
from freehold.upstream.catalogue import Catalogue
from freehold.upstream.model import Terms, UpstreamCall, UpstreamUnreachable
from freehold.upstream.scripted import MODELS, Scripted, Seen

from .server import Server
from .world import Account, Died, VirtualClock, Worker, World

CHAT = "/v1/chat/completions"
MODEL = "scripted-echo"
PROMPT = "hello there"
RULE_INPUT = 4
"""A quarter of the bytes of "user" and PROMPT, rounded up."""
REPORTED_INPUT = 3
"""What the scripted upstream reports for PROMPT."""
LIES: tuple[Any, ...] = (
    None,
    "missing",
    "many",
    [],
    {},
    {"prompt_tokens": None, "completion_tokens": 3},
    {"prompt_tokens": -1, "completion_tokens": 3},
    {"prompt_tokens": 3, "completion_tokens": "3"},
    {"prompt_tokens": 3, "completion_tokens": 1.5},
    {"prompt_tokens": 3, "completion_tokens": 10**30},
)
NOT_SETTLED = "The call ran, but the ledger has not confirmed"


def rates(version: int, scale: int) -> dict[str, int]:
    """nano-USD per million tokens of a version of the price book: no round number, so that costs are rounded."""
    return {INPUT: scale * 4_001 + version * 7, OUTPUT: scale * 9_001 + version * 13}


def cost_nano(version: int, scale: int, usage: dict[str, int]) -> int:
    """By hand: exact, rounded up once."""
    price = rates(version, scale)
    return -(-sum(tokens * price[unit] for unit, tokens in usage.items()) // 1_000_000)


@dataclass
class Sent:
    """One request as its client knows it."""

    id: UUID
    account: Account
    key_id: int
    script: dict[str, Any]
    stream: bool
    most: int | None
    revoked: bool
    """Whether the key was known as revoked when it was sent."""
    again: str | None
    """Its idempotency key."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    ended: bool = False
    """The response came to its end."""
    gone: bool = False
    gone_early: bool = False
    """Its client left before the response came to its end."""
    worker_died: bool = False

    def whole(self) -> bool:
        """Whether its client was told that the answer is whole."""
        return self.status == 200 and self.ended and (not self.stream or self.parts[-1].endswith(b"data: [DONE]\n\n"))

    def name(self) -> UUID:
        """The call that the answer is of: another one for a repeat."""
        told = self.headers.get("x-request-id")
        return UUID(told.removeprefix("req_")) if told else self.id

    def words(self) -> list[str]:
        if self.status != 200:
            return []
        body = b"".join(self.parts)
        if not self.stream:
            return [json.loads(body)["choices"][0]["message"]["content"]] if self.ended else []
        chunks = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
        deltas = [choice["delta"].get("content") for chunk in chunks for choice in chunk.get("choices", ())]
        return [delta for delta in deltas if delta]

    def told_nano(self) -> int | None:
        if not self.stream:
            return parse_usd(self.headers["x-freehold-cost"]) if "x-freehold-cost" in self.headers else None
        for line in b"".join(self.parts).split(b"\n\n"):
            if line.startswith(b": freehold cost="):
                return parse_usd(line.split(b"=")[1].split()[0].decode())
        return None


class Keys:
    """Identity as one worker remembers it: read from the ledger's rows, kept until forgotten."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, ApiKey] = {}

    async def key(self, token: str) -> ApiKey:
        if token not in self._known:
            account_id, key_id = map(int, token.removeprefix("fh_").split("x"))
            limits = await self._ledger.key_limits(account_id, key_id)
            self._known[token] = ApiKey(
                id=key_id, account_id=account_id, user_id=None, name="", prefix="", scopes=frozenset({Scope.INFERENCE}),
                models=None, expires_at_s=limits.expires_at_s, created_at_s=0, version=limits.version,
                revoked_at_s=0 if limits.state is KeyState.REVOKED else None,
            )  # fmt: skip
        return self._known[token]

    def forget(self, token: str) -> None:
        self._known.pop(token, None)

    async def caller(self, token: str) -> Caller:
        raise InvalidApiKey


class Book:
    """The price book as one worker remembers it; what a version's prices are, everybody can compute."""

    def __init__(self, ledger: Ledger, scale: int) -> None:
        self._ledger = ledger
        self._scale = scale
        self._version = 0

    def current(self) -> PriceBook:
        return PriceBook(self._version, {MODEL: Price(MODEL, rates(self._version, self._scale))})

    async def refresh(self, version: int | None = None) -> PriceBook:
        self._version = await self._ledger.price_version()
        return self.current()


class Unsteady(Scripted):
    """A scripted upstream that now and then isn't there."""

    def __init__(self, name: str, world: "GatewayWorld", *, away: float, priority: int) -> None:
        model = replace(MODELS[0], input_cost_nano=3_000_001, output_cost_nano=5_000_001)
        terms = Terms(priority=priority, failures=3, open_s=2.0)
        super().__init__(name, [model], keep_seen=1_000_000, terms=terms)
        self._world = world
        self._away = away

    async def send(self, call: UpstreamCall) -> Any:
        await asyncio.sleep(self._world.random.random() * 0.01)
        if self._world.random.random() < self._away:
            raise UpstreamUnreachable(f"Upstream {self.name} can't be reached.", before_first_byte=True)
        return await super().send(call)


class Refreshes:
    """The allowance of one worker: the day is opened by whoever the world chooses."""

    def __init__(self, world: "GatewayWorld") -> None:
        self._world = world

    async def refresh(self, account_id: int) -> None:
        world = self._world
        opening = world.go(world._open_day(world._account(account_id)))
        await asyncio.wait({opening})
        opening.result()


class Hearing(logging.Handler):
    """Hears what the gateway logs as its own fault."""

    def __init__(self, world: "GatewayWorld") -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        if asyncio._get_running_loop() is not self._world.loop:
            return  # what a killed process leaves behind is being closed
        self._world.breaks("the gateway has no fault of its own", f"{record.getMessage()} {fault!r}")


class GatewayWorld(World):
    """Workers that serve requests, instead of callers of the ledger."""

    door_type: type[Door] = Door

    def __init__(
        self,
        seed: int,
        server: Server,
        *,
        ledger_type: type[Ledger] = Ledger,
        door_type: type[Door] = Door,
        keep_trace: bool = True,
    ) -> None:
        super().__init__(seed, server, ledger_type=ledger_type, keep_trace=keep_trace)
        drawn = Random(f"gateway {seed}")
        self.plan.scale = drawn.choice((10**5, 10**9))
        self.door_type = door_type
        self.token_nano = self.plan.scale // drawn.choice((20, 200))
        self.doors: dict[int, Door] = {}
        self.sent: list[Sent] = []
        self.settings = DoorSettings(
            default_output_tokens=64, least_output_tokens=4, deadline_s=drawn.choice((3.0, 10.0)), read_on_s=2.0,
            send_patience_s=2.0, settle_patience_s=drawn.choice((1.0, 5.0)),
        )  # fmt: skip
        away = drawn.choice((0.0, 0.0, 0.3))
        self.upstreams = [Unsteady("first", self, away=away, priority=0), Unsteady("second", self, away=0, priority=1)]
        self._answers = Answers(bytes(KEY_BYTES))
        self._hearing = Hearing(self)

    def run(self) -> Any:
        gateway = logging.getLogger("freehold.gateway")
        gateway.addHandler(self._hearing)
        try:
            return super().run()
        finally:
            gateway.removeHandler(self._hearing)

    def judge(self) -> None:
        from .delivered import final

        final(self)

    def seen(self) -> dict[str, list[Seen]]:
        """What upstreams were asked, by request."""
        found: dict[str, list[Seen]] = {}
        for upstream in self.upstreams:
            for one in upstream.seen:
                found.setdefault(str(UUID(one.request_id.removeprefix("req_"))), []).append(one)
        return found

    def taken(self, row: dict[str, Any], charges: dict[str, dict[str, Any]]) -> int | None:
        """A call's tokens are its usage's."""
        charge = charges.get(row["request_id"])
        return None if charge is None else sum(charge["usage"].values())

    # ---- workers

    async def _serve(self, worker: Worker, callers: int) -> None:
        try:
            await self._started(worker)
        except Died:
            return
        self.doors[worker.number] = self.door_type(
            ledger=worker.ledger, identity=Keys(worker.ledger), prices=Book(worker.ledger, self.token_nano),
            catalogue=Catalogue(self.upstreams, clock=VirtualClock(self.loop)), allowance=Refreshes(self),
            settings=self.settings, answers=self._answers,
        )  # fmt: skip
        clients = [self.go(self._client()) for _ in range(callers)]
        for client in clients:
            await client

    async def _client(self) -> None:
        for _ in range(self.plan.calls):
            await asyncio.sleep(self.random.choice((0, 0.01, 1.0)) * self.random.random())
            await self._ask()

    async def _ask(self) -> None:
        """One request, sent again while its client has a reason to."""
        account = self.random.choice(self.accounts)
        key_id = self.burst or self.random.choice((1, 1, 2, 3))
        body = self._body()
        again = f"again{self.random.randint(1, 3)}-{self.random.randint(1, 4)}" if self.random.random() < 0.3 else None
        for _ in range(self.random.randint(1, 3)):
            sent = await self._send(account, key_id, body, again)
            if sent is None or sent.whole() or (sent.status in (402, 403, 401, 409) and not sent.worker_died):
                return
            await asyncio.sleep(self.random.random() * 2)

    def _body(self) -> dict[str, Any]:
        """A call, and what its upstream is told to do with it."""
        chance = self.random
        chunks = [f"w{n} " for n in range(chance.choice((0, 1, 3, 12, 80)))]
        script: dict[str, Any] = {"chunks": chunks}
        where = chance.randint(0, len(chunks))
        match chance.randrange(12):
            case 0:
                script["die_after"] = where
            case 1:
                script["hang_after"] = chance.choice((-1, where))
            case 2:
                script["timeout_after"] = chance.choice((-1, where))
            case 3:
                script["status"] = chance.choice((400, 401, 429, 500, 503))
            case 4:
                script[chance.choice(("die", "unreachable"))] = True
            case 5:
                script["done"] = False
        if chance.random() < 0.3:
            script["usage"] = chance.choice(LIES)
        if chance.random() < 0.5:
            script["delay_s"] = chance.choice((0.001, 0.05, 0.3))
        if chance.random() < 0.2:
            script["fragment_bytes"] = chance.choice((1, 7, 100))
            script["chunks"] = chunks[:4]
        body: dict[str, Any] = {
            "model": MODEL, "stream": chance.random() < 0.7, "messages": [{"role": "user", "content": PROMPT}],
            "metadata": {"freehold_script": script},
        }  # fmt: skip
        if chance.random() < 0.6:
            body["max_tokens"] = chance.choice((1, 20, 100))
        return body

    async def _send(self, account: Account, key_id: int, body: dict[str, Any], again: str | None) -> Sent | None:
        living = [worker for worker in self.alive() if worker.number in self.doors]
        if not living:
            await asyncio.sleep(1)
            return None
        worker = self.random.choice(living)
        script = body["metadata"]["freehold_script"]
        sent = Sent(
            self.uuid(),
            account,
            key_id,
            script,
            body["stream"],
            body.get("max_tokens"),
            key_id in account.revoked_at,
            again,
        )
        self.sent.append(sent)
        headers = [(b"authorization", f"Bearer fh_{account.id}x{key_id}".encode())]
        if again is not None:
            headers.append((b"idempotency-key", again.encode()))
        exchange = Carried(self, sent, json.dumps(body).encode(), headers)
        self.say(f"ask {str(sent.id)[:8]} of key {account.id}.{key_id} at worker {worker.number}")
        if self.random.random() < self.plan.leaves / 2:
            self.loop.after_steps(self.random.randint(1, 400), exchange.leave)
        handler = self.doors[worker.number].route(CHAT)
        assert handler is not None
        try:
            await self.on(worker, lambda: answer(handler, exchange))
        except Died:
            sent.worker_died = True
        self.count(f"answered {sent.status}" if sent.ended else "not answered")
        sent.gone_early = sent.gone or exchange.stalled
        sent.gone = True
        return sent


class Carried(Exchange):
    """A request, and its client's end: a body in parts, leaving, and how what comes is accepted."""

    def __init__(self, world: GatewayWorld, sent: Sent, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__("POST", CHAT, "", headers)
        self.id = sent.id
        self.stalled = False
        self._world = world
        self._sent = sent
        cut = world.random.randint(0, len(body))
        self._body = [body[:cut], body[cut:]] if world.random.random() < 0.3 else [body]
        self._slow = world.random.random() < 0.2
        leaves = world.random.random() < world.plan.leaves
        self._leaves_at = world.random.randint(0, 14) if leaves else None
        self._stalls_at = world.random.randint(0, 14) if world.random.random() < 0.03 else None
        self._got = 0
        self._head: tuple[int, Headers] | None = None
        self._context: Context | None = None

    def leave(self) -> None:
        """The client goes; its worker hears of it a little later."""
        if not self._sent.gone:
            self._sent.gone = True
            if self._context is not None:
                self._world.loop.call_soon(self._hear, context=self._context)

    def _hear(self) -> None:
        if not self.gone:
            self.gone = True
            if self.left is not None:
                self.left()

    async def _part(self, patience_s: float) -> tuple[bytes, bool]:
        self._context = copy_context()
        if self._slow:
            await asyncio.sleep(self._world.random.random() * 0.1)
        if self._sent.gone:
            self.gone = True
            raise ClientLeft
        return self._body.pop(0), bool(self._body)

    def _begin(self, status: int, headers: Headers) -> None:
        self._head = status, headers

    async def _push(self, data: bytes, more: bool, patience_s: float) -> None:
        if self._slow:
            await asyncio.sleep(self._world.random.random() * 0.02)
        if self._stalls_at is not None and self._got >= self._stalls_at:
            self.stalled = True
            await asyncio.sleep(patience_s)
            self.gone = True
        if self.gone or self._sent.gone:
            raise ClientLeft
        sent = self._sent
        if self._head is not None:
            sent.status = self._head[0]
            sent.headers = {name.decode(): value.decode() for name, value in self._head[1]}
            self._head = None
        self._got += 1
        sent.parts.append(data)
        sent.ended = not more
        if self._leaves_at is not None and self._got >= self._leaves_at and not sent.ended:
            self.leave()
