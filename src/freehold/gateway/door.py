"""The inference door: what it needs, its routes, and settlements that outlive their callers."""

import asyncio
import difflib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec

from freehold.clock import Clock
from freehold.gateway import call, counting
from freehold.gateway.asgi import Exchange
from freehold.gateway.authority import bearer, lister, own_bearer
from freehold.gateway.limit import Limit
from freehold.gateway.problems import MethodNotAllowed, NotSettled
from freehold.gateway.replay import Answers
from freehold.gateway.settings import DoorSettings
from freehold.gateway.shapes import listed
from freehold.gateway.shapes.chat import Chat
from freehold.gateway.shapes.completions import Completions
from freehold.gateway.shapes.embeddings import Embeddings
from freehold.gateway.shapes.messages import Messages
from freehold.gateway.shapes.model import Shape
from freehold.gateway.shapes.responses import Responses
from freehold.gateway.stepping import Steps
from freehold.gateway.x402.payments import Payments
from freehold.identity.model import ApiKey, Caller
from freehold.ledger.model import Attempt, Charge, Hold, HoldRequest, Settlement
from freehold.pricing.model import PriceBook
from freehold.problems import Conflict, LedgerUnavailable, NotFound
from freehold.upstream.catalogue import ModelNotFound, Serving
from freehold.upstream.model import Model

log = logging.getLogger("freehold.gateway")

Handler = Callable[[Exchange], Awaitable[None]]

RETRY_FIRST_S = 0.1
RETRY_LAST_S = 5.0
"""How long the worker waits between two tries to settle: doubled each time."""
MOST_FAULTS = 200
"""After so many tries that no rule foresaw, some 16 minutes, a settlement is given up: its hold was swept long before."""
STORE_PATIENCE_S = 2.0
"""How long a settled answer waits to be kept for repeats before its own client gets it."""
STORE_FOR_S = 30.0
"""How long it is tried to keep it: so long repeats wait for it, and then they are told the receipt."""


class Ledger(Protocol):
    """What the door asks of the ledger."""

    async def hold(self, request: HoldRequest) -> Hold: ...
    async def extend(self, hold: Hold, more_nano: int, *, tokens: int = 0, day_unopened_ok: bool = False) -> Hold: ...
    async def settle(self, hold: Hold, settlement: Settlement) -> Charge: ...
    async def release(self, hold: Hold, attempts: tuple[Attempt, ...] = ()) -> None: ...
    async def store_answer(self, hold: Hold, answer: bytes) -> bool: ...
    async def charge(self, account_id: int, request_id: UUID) -> Charge: ...
    async def require_key(self, account_id: int, key_id: int, version: int) -> None: ...


class Identity(Protocol):
    """What the door asks of identity."""

    async def key(self, token: str) -> ApiKey: ...
    def forget(self, token: str) -> None: ...
    async def caller(self, token: str) -> Caller: ...


class Prices(Protocol):
    """What the door asks of the price book."""

    def current(self) -> PriceBook: ...
    async def refresh(self, version: int | None = None) -> PriceBook: ...


class Catalogue(Protocol):
    """What the door asks of the upstreams."""

    @property
    def clock(self) -> Clock: ...
    def models(self) -> Sequence[Model]: ...
    def serving(self, model_id: str) -> Serving: ...


class Allowance(Protocol):
    """What the door asks of the allowance: issue today's to an account that has none yet."""

    async def refresh(self, account_id: int) -> object: ...


class Door:
    """The inference routes over one ledger, one identity, one price book and the upstreams."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        identity: Identity,
        prices: Prices,
        catalogue: Catalogue,
        allowance: Allowance,
        settings: DoorSettings | None = None,
        answers: Answers | None = None,
        payments: Payments | None = None,
    ) -> None:
        """`answers` seals what is kept for repeats; all workers need the same key. `payments` None: calls need a key."""
        self.ledger = ledger
        self.identity = identity
        self.prices = prices
        self.catalogue = catalogue
        self.allowance = allowance
        self.settings = settings or DoorSettings()
        self.answers = answers or Answers()
        self.payments = payments
        self._settling: set[asyncio.Task[Any]] = set()
        self._routes: Mapping[str, Handler] = {
            "/v1/chat/completions": self._asked(Chat()),
            "/v1/embeddings": self._asked(Embeddings()),
            "/v1/models": self._models,
            "/v1/completions": self._asked(Completions()),
            "/v1/responses": self._asked(Responses()),
            "/v1/messages": _in_anthropics_words(self._asked(Messages())),
            "/v1/messages/count_tokens": _in_anthropics_words(self._count),
        }

    def route(self, path: str) -> Handler | None:
        """Who answers `path`; None for a path that isn't an inference route."""
        handler = self._routes.get(path)
        if handler is None and path.startswith("/v1/models/"):
            return self._model
        if handler is None and path.startswith("/v1/messages/"):
            return _in_anthropics_words(_not_served)
        return handler

    async def settle(
        self,
        hold: Hold,
        settlement: Settlement | None,
        steps: Steps | None = None,
        follows: bytes | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> Charge | None:
        """Settle, or release when `settlement` is None, with what its `attempts` cost; returns once that is durable.

        `steps` may still grow the hold; `follows` is a sealed answer that is stored next, if it can be.

        Raises NotSettled when it isn't within `settle_patience_s`; the worker goes on trying until it is known, also
        when the caller is cancelled.
        """
        try:
            with Limit(self.settings.settle_patience_s):
                if settlement is not None and steps is None and follows is None:
                    charge = await self._settle_at_once(hold, settlement)
                    if charge is not None:
                        return charge
                return await asyncio.shield(self._go_on(hold, settlement, steps, follows, attempts))
        except TimeoutError:
            log.warning("settlement is late request_id=req_%s", hold.request_id.hex)
            raise NotSettled(request_id=f"req_{hold.request_id.hex}") from None

    async def _settle_at_once(self, hold: Hold, settlement: Settlement) -> Charge | None:
        """The first try, without a task of its own, as nearly all are the last; None when it has to go on.

        It is sent again then although it may have been applied: a repeat gets the first one's charge.
        """
        try:
            return await self.ledger.settle(hold, settlement)
        except asyncio.CancelledError:
            self._go_on(hold, settlement, None, None)
            raise
        except Exception as fault:  # noqa: BLE001 - the task meets it again, and knows what it means
            log.info("settling again request_id=req_%s: %s", hold.request_id.hex, fault)
            return None

    def _go_on(
        self,
        hold: Hold,
        settlement: Settlement | None,
        steps: Steps | None,
        follows: bytes | None,
        attempts: tuple[Attempt, ...] = (),
    ) -> "asyncio.Task[Charge | None]":
        """Whoever has left or has been told otherwise."""
        task = asyncio.get_running_loop().create_task(
            self._settle_until_known(hold, settlement, steps, follows, attempts)
        )
        self._keep(task)
        return task

    def _keep(self, task: "asyncio.Task[Any]") -> None:
        self._settling.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: "asyncio.Task[Any]") -> None:
        self._settling.discard(task)
        if not task.cancelled():
            task.exception()  # was logged, and counts as heard, also where the caller has left

    async def finish(self, *, patience_s: float = 30.0) -> None:
        """Wait for the settlements under way, when the worker stops. What is open then, the sweeper takes."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=patience_s)

    async def _settle_until_known(
        self,
        hold: Hold,
        settlement: Settlement | None,
        steps: Steps | None,
        follows: bytes | None,
        attempts: tuple[Attempt, ...],
    ) -> Charge | None:
        if steps is not None and settlement is not None:
            hold = await steps.cover(settlement.cost_nano)
        pause_s, faults = RETRY_FIRST_S, 0
        while True:
            try:
                if settlement is None:
                    await self.ledger.release(hold, attempts)
                    return None
                charge = await self.ledger.settle(hold, settlement)
                if follows is not None:
                    await self._store(hold, follows)
                return charge
            except LedgerUnavailable:
                pass
            except (Conflict, NotFound) as known:
                log.error("settled otherwise request_id=req_%s: %s", hold.request_id.hex, known)
                raise NotSettled(request_id=f"req_{hold.request_id.hex}") from known
            except Exception as fault:
                # Whatever it was, the hold would stay open if nobody tried again.
                log.exception("settlement failed, and is tried again request_id=req_%s", hold.request_id.hex)
                faults += 1
                if faults == MOST_FAULTS:
                    raise NotSettled(request_id=f"req_{hold.request_id.hex}") from fault
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_LAST_S)

    async def _store(self, hold: Hold, answer: bytes) -> None:
        """Keep a settled call's answer for repeats. The money is down, so its own client waits for that only a little."""
        task = asyncio.get_running_loop().create_task(self._store_while_awaited(hold, answer))
        self._keep(task)
        await asyncio.wait({task}, timeout=STORE_PATIENCE_S)

    async def _store_while_awaited(self, hold: Hold, answer: bytes) -> None:
        pause_s = RETRY_FIRST_S
        try:
            with Limit(STORE_FOR_S):
                while True:
                    try:
                        await self.ledger.store_answer(hold, answer)
                        return
                    except LedgerUnavailable:
                        await asyncio.sleep(pause_s)
                        pause_s = min(pause_s * 2, RETRY_LAST_S)
        except TimeoutError:
            log.warning("an answer can't be kept in time request_id=req_%s", hold.request_id.hex)
        except Exception:
            log.exception("an answer can't be kept request_id=req_%s", hold.request_id.hex)

    def _asked(self, shape: Shape) -> Handler:
        """Who answers requests in this shape."""

        async def handle(exchange: Exchange) -> None:
            _only(exchange, "POST")
            await call.serve(self, exchange, shape)

        return handle

    async def _count(self, exchange: Exchange) -> None:
        _only(exchange, "POST")
        await counting.serve(self, exchange)

    async def _models(self, exchange: Exchange) -> None:
        _only(exchange, "GET")
        anthropics = listed.wants_anthropics(exchange)
        allowed = await self._listing(exchange)
        book = await self.prices.refresh()
        await _reply(
            exchange, listed.page(allowed, book, exchange.query) if anthropics else listed.models(allowed, book)
        )

    async def _model(self, exchange: Exchange) -> None:
        _only(exchange, "GET")
        anthropics = listed.wants_anthropics(exchange)
        wanted = exchange.path.removeprefix("/v1/models/")
        allowed = {model.id: model for model in await self._listing(exchange)}
        if wanted not in allowed:
            raise _not_found(wanted, list(allowed))
        entry = listed.anthropics_entry if anthropics else listed.entry
        await _reply(exchange, entry(allowed[wanted], await self.prices.refresh()))

    async def _listing(self, exchange: Exchange) -> list[Model]:
        """The models that the caller may see. The key is checked afresh: nothing is held here that would.

        Who may pay without an account may see what there is to pay for.
        """
        token = bearer(exchange) if self.payments is None else own_bearer(exchange)
        only = None if token is None else await lister(self.identity, self.ledger, token)
        return [model for model in self.catalogue.models() if only is None or model.id in only]


def _only(exchange: Exchange, method: str) -> None:
    if exchange.method != method:
        raise MethodNotAllowed(path=exchange.path, allowed=method, method=exchange.method)


def _in_anthropics_words(handler: Handler) -> Handler:
    """With Anthropic's errors and `request-id`."""

    async def handle(exchange: Exchange) -> None:
        listed.speak_anthropics(exchange)
        await handler(exchange)

    return handle


async def _not_served(exchange: Exchange) -> None:
    raise NotFound(
        reason=f"{exchange.path[:200]} is not served here: only /v1/messages and /v1/messages/count_tokens are."
    )


async def _reply(exchange: Exchange, value: object) -> None:
    await exchange.respond(200, msgspec.json.encode(value), [], patience_s=30.0)


def _not_found(wanted: str, listed: list[str]) -> ModelNotFound:
    near = difflib.get_close_matches(wanted[:200], listed, n=3, cutoff=0.5) or sorted(listed)[:10]
    return ModelNotFound(model=wanted[:200], near=f" Near names: {', '.join(near)}." if near else "", param="model")
