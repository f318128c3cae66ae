"""The life of one call: authorise → bound → price the worst case → hold → forward → meter → settle → respond.

Content flows as it comes. What tells a client that its answer is whole (the finish and usage frames and `[DONE]`, or
a whole plain answer) leaves when the settlement is durable. However a call ends, its hold is settled or released.
"""

import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from freehold.gateway import headers, refused
from freehold.gateway.admission import Admitted, admit
from freehold.gateway.asgi import ClientLeft, Exchange
from freehold.gateway.asking import Ask, too_deep
from freehold.gateway.authority import bearer, known_key, own_bearer
from freehold.gateway.forward import Forward
from freehold.gateway.limit import Limit
from freehold.gateway.meter import BadFrame, Meter, Pass
from freehold.gateway.problems import CHARGED, NOT_CHARGED, UpstreamFailed, UpstreamTimeout
from freehold.gateway.replay import INLINE_BYTES, Kept, Repeatable, again
from freehold.gateway.shapes.model import Reader, Shape
from freehold.gateway.sse import ALIVE, DONE, Frames, FrameTooLong, comment
from freehold.gateway.stepping import Steps
from freehold.gateway.x402.paid import admit_paid
from freehold.ledger.model import Attempt, Charge, Settlement
from freehold.ledger.problems import AnswerStored
from freehold.money import MAX_NANO
from freehold.pricing.bounds import estimated_input
from freehold.pricing.model import cost_of_nano_up, input_tokens, output_tokens
from freehold.problems import Problem
from freehold.upstream.model import Answer, Kind, Model, UpstreamCall, UpstreamError

if TYPE_CHECKING:
    from freehold.gateway.door import Door

log = logging.getLogger("freehold.gateway")

AFTER_DONE_S = 0.1
"""How long a stream is read beyond its end marker, so that the connection can be used again."""

WAITING = comment("waiting")


async def serve(door: "Door", exchange: Exchange, shape: Shape) -> None:
    """Answer one inference request. Raises Problem for a refusal, when nothing was sent yet."""
    settings = door.settings
    token = bearer(exchange) if door.payments is None else own_bearer(exchange)
    if token is None:
        await _serve_paid(door, exchange, shape)
        return
    key = await known_key(door.identity, token)
    body = await exchange.body(limit_bytes=settings.body_limit_bytes, patience_s=settings.body_patience_s)
    ask = shape.read(body)
    repeatable = Repeatable.of(exchange, body)
    try:
        admitted = await admit(door, exchange, token, key, ask, repeatable)
    except AnswerStored as stored:
        assert repeatable is not None  # noqa: S101 - only a key leads to an answer
        await again(door, exchange, key.account_id, repeatable, stored)
        return
    call = Call(door, exchange, shape, ask, admitted)
    await (call.stream() if ask.stream else call.plain())


async def _serve_paid(door: "Door", exchange: Exchange, shape: Shape) -> None:
    """Answer a request that may bring a payment instead of a key."""
    settings = door.settings
    body = await exchange.body(limit_bytes=settings.body_limit_bytes, patience_s=settings.body_patience_s)
    ask = shape.read(body)
    admitted = await admit_paid(door, exchange, ask, body)
    if admitted is not None:
        call = Call(door, exchange, shape, ask, admitted)
        await (call.stream() if ask.stream else call.plain())


class Call:
    """One admitted call."""

    def __init__(self, door: "Door", exchange: Exchange, shape: Shape, ask: Ask, admitted: Admitted) -> None:
        self._door = door
        self._settings = door.settings
        self._exchange = exchange
        self._shape = shape
        self._ask = ask
        self._admitted = admitted
        self._hold = admitted.hold
        self._patience = Patience(exchange, deadline_s=self._settings.deadline_s, read_on_s=self._settings.read_on_s)
        self._problem: Problem | None = None
        """What ended the call before its answer was whole."""
        self._forward = Forward(
            admitted.serving,
            ask.kind,
            door.catalogue.clock,
            account_id=self._hold.account_id,
            most=self._settings.most_attempts,
        )
        self._refused = False
        """The upstream certainly ran nothing."""
        self._failed = False
        """The upstream, and not its client, ended the call early."""
        self._kept = Kept(stream=ask.stream) if admitted.hold.idempotency_key is not None and ask.store else None
        """What a repeat is answered."""
        self._whole = False
        """The answer was read to its end."""
        self._steps = Steps(door, admitted) if admitted.held_output < admitted.max_output * admitted.choices else None
        """None where the whole maximum is held."""
        self._cut = False
        """The stream was ended because no more can be held for it."""
        self._meter = Meter(
            estimated_input=lambda: estimated_input(ask.body, image_tokens=admitted.model.image_tokens),
            bound=admitted.input_bound,
            most_output=admitted.max_output * admitted.choices,
            embedding=ask.kind is Kind.EMBEDDING,
        )

    async def plain(self) -> None:
        """Forward, wait for the whole answer, settle, respond."""
        body = b""
        charge: Charge | None = None
        try:
            try:
                with self._patience:
                    body = await self._whole_answer()
            except (TimeoutError, UpstreamError, BadFrame) as error:
                self._problem = self._ended(error)
        finally:
            charge = await self._settle()
        if self._exchange.gone:
            return
        if self._problem is not None:
            raise self._problem
        found = headers.FREE if charge is None else headers.of_charge(charge)
        await self._exchange.respond(200, body, found, patience_s=self._settings.send_patience_s)

    async def stream(self) -> None:
        """Forward, pass content on as it comes, settle, end the stream."""
        reader: Reader | None = None
        last: list[bytes] = []
        marker = b""
        charge: Charge | None = None
        try:
            try:
                with self._patience:
                    answer = await self._send()
                    reader = self._reader()
                    self._exchange.failed = reader.failed
                    await self._pass_on(answer, reader, last)
                    last.append(reader.ending())
                    marker = reader.marker()
                    if self._kept is not None:
                        self._kept.add(b"".join(last))
                        self._kept.marker = marker
            except (TimeoutError, UpstreamError, BadFrame, FrameTooLong) as error:
                self._problem = self._ended(error)
        finally:
            charge = await self._settle()
        if self._exchange.gone:
            return
        if self._problem is not None and not self._exchange.started:
            raise self._problem
        if self._problem is not None:
            last = [self._exchange.failed(self._problem)]
        last.append(comment(headers.note(charge)))
        if self._problem is None:
            last.append(marker)
        self._begin()
        await self._exchange.end(b"".join(last), patience_s=self._settings.send_patience_s)

    async def _whole_answer(self) -> bytes:
        answer = await self._send()
        try:
            raw = await answer.read(self._settings.answer_limit_bytes)
        finally:
            await answer.close()
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadFrame("its answer is not JSON") from None
        if not isinstance(value, dict) or value.get("error") is not None:
            raise BadFrame("its answer is not what was asked for")
        try:
            body = msgspec.json.encode(self._reader().whole(value))
        except RecursionError:
            raise BadFrame("its answer is nested too deeply") from None
        self._whole = True
        if self._kept is not None:
            self._kept.add(body)
        return body

    async def _pass_on(self, answer: Answer, reader: Reader, last: list[bytes]) -> None:
        """Read the upstream's stream to its end; what must wait for the settlement is put in `last`."""
        try:
            if answer.content_type.startswith("application/json"):
                raise BadFrame("it answered a stream with JSON")
            frames = Frames()
            chunks = answer.chunks()
            ended = False
            async for chunk in chunks:
                ended = await self._take(frames.feed(chunk), reader, last)
                if ended:
                    if not self._cut:
                        await _drain(chunks)
                    break
            if not ended:
                ended = await self._take(frames.end(), reader, last)
        finally:
            await answer.close()
        if not ended and not self._meter.finished and self._meter.usage() is None:
            raise BadFrame("its stream broke off")
        self._whole = True

    async def _take(self, found: list[bytes], reader: Reader, last: list[bytes]) -> bool:
        """Meter some frames and send what may leave; True at the end marker."""
        now: list[bytes] = []
        ended = False
        try:
            for data in found:
                if data == DONE:
                    ended = True
                    break
                if data == ALIVE:
                    now.append(WAITING)
                    continue
                before = self._meter.deltas, self._meter.characters
                shown, leave = reader.see(data, counted=not self._exchange.gone)
                if self._steps is not None and await self._beyond(self._steps):
                    self._meter.deltas, self._meter.characters = before
                    self._cut = ended = True
                    last.append(reader.cut(self._admitted.choices))
                    break
                if leave is Pass.NOW:
                    now.append(reader.frame(shown))
                elif leave is Pass.SETTLED:
                    last.append(reader.frame(shown))
                elif leave is Pass.END:
                    ended = True
                    break
        finally:
            if now and self._kept is not None:
                self._kept.add(b"".join(now))
            if now and not self._exchange.gone:
                await self._write(b"".join(now))
        return ended

    async def _beyond(self, steps: Steps) -> bool:
        """Hold more when it is time; True when what came is more than what is held and can be."""
        output = self._meter.seen_output()
        if steps.near(output) and not self._exchange.gone:
            await steps.extend()
            self._hold = steps.hold
        return steps.spent(output)

    async def _write(self, data: bytes) -> None:
        try:
            self._begin()
            await self._exchange.write(data, patience_s=self._settings.send_patience_s)
        except ClientLeft:
            self._patience.client_left()

    def _begin(self) -> None:
        if not self._exchange.started:
            self._exchange.alive = WAITING
            self._exchange.start(200, [*headers.STREAM, *headers.of_day(self._hold.day)])

    async def _send(self) -> Answer:
        if self._exchange.gone:
            self._refused = True
            raise TimeoutError
        return await self._forward.send(self._upstream_call, lambda: self._exchange.gone)

    def _upstream_call(self, model: Model) -> UpstreamCall:
        ask = self._ask
        try:
            path, body = self._shape.upstream(ask, model, self._admitted.max_output)
        except RecursionError:  # what could just be read can be too deep to be written
            raise refused.Refused(too_deep()) from None
        return UpstreamCall(
            path=path,
            model=model,
            body=body,
            stream=ask.stream,
            request_id=self._exchange.request_id,
        )

    def _reader(self) -> Reader:
        """For the answer of the upstream that took the call."""
        route = self._forward.route
        assert route is not None  # noqa: S101 - it has just answered
        return self._shape.reader(
            self._ask, self._meter, self._admitted.model.id, route.model, self._exchange.request_id
        )

    def _ended(self, error: Exception) -> Problem:
        """What to tell the client of an answer that didn't come whole."""
        note = CHARGED if self._meter.delivered() else NOT_CHARGED
        if isinstance(error, refused.Refused):
            self._refused = True
            return error.problem
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(reason=f"over {self._settings.deadline_s:g} s", charged=note)
        self._failed = True
        self._whole = False
        self._forward.broke()
        if isinstance(error, UpstreamError):
            return refused.problem_of_failure(error, self._admitted.model, note)
        reason = str(error) or "it sent an endless frame"
        return UpstreamFailed(reason=reason, charged=note)

    async def _settle(self) -> Charge | None:
        self._forward.end(whole=self._whole)
        try:
            settlement, follows, owed = self._came_to()
        except Exception:
            # Whatever it was, the hold would stay open.
            await self._door.settle(self._hold, None)
            raise
        charge = await self._door.settle(self._hold, settlement, self._steps, follows, owed)
        if log.isEnabledFor(logging.INFO):
            log.info(
                "call request_id=%s account=%d key=%d model=%s outcome=%s cost_nano=%d",
                self._exchange.request_id,
                self._hold.account_id,
                self._hold.key_id,
                self._admitted.model.id,
                settlement.outcome if settlement else "free",
                charge.cost_nano if charge else 0,
            )
        return charge

    def _came_to(self) -> tuple[Settlement | None, bytes | None, tuple[Attempt, ...]]:
        """What to settle, what of its answer follows, and what the attempts of a free call cost."""
        settlement = self._settlement()
        if settlement is None:
            return None, None, self._attempts()
        if self._kept is None or not self._whole:
            return settlement, None, ()
        return *self._with_answer(settlement, self._kept), ()

    def _with_answer(self, settlement: Settlement, kept: Kept) -> tuple[Settlement, bytes | None]:
        """The settlement with what a repeat is answered, and what of it must follow by itself."""
        answer = kept.answer()
        if answer is None or self._hold.idempotency_key is None:
            return settlement, None
        sealed = self._door.answers.seal(self._hold.account_id, self._hold.idempotency_key, answer)
        if len(sealed) <= INLINE_BYTES:
            return replace(settlement, answer=sealed), None
        return replace(settlement, answer_follows=True), sealed

    def _settlement(self) -> Settlement | None:
        """What to charge; None when nothing was delivered."""
        outcome = self._outcome()
        if self._refused or (outcome in ("upstream_died", "deadline") and not self._meter.delivered()):
            return None
        usage, estimated = self._meter.reading()
        read, made = input_tokens(usage), output_tokens(usage)
        return Settlement(
            cost_nano=min(cost_of_nano_up(self._admitted.price, usage), MAX_NANO),
            model=self._admitted.model.id,
            usage=usage,
            outcome=outcome,
            estimated=estimated,
            attempts=tuple(self._forward.attempts(outcome, read, made)),
            tokens=read + made,
        )

    def _attempts(self) -> tuple[Attempt, ...]:
        """What a call that costs its caller nothing has cost the operator: what the upstream says it read and made."""
        usage = None if self._refused else self._meter.usage()
        tokens = (0, 0) if usage is None else (input_tokens(usage), output_tokens(usage))
        return tuple(self._forward.attempts("refused" if self._refused else self._outcome(), *tokens))

    def _outcome(self) -> str:
        if self._patience.deadline_passed:
            return "deadline"
        if self._failed:
            return "upstream_died"
        if self._exchange.gone:
            return "disconnected"
        return "complete" if self._whole else "upstream_died"


class Patience(Limit):
    """How long a call goes on: to its deadline, or a little longer than its client stays."""

    __slots__ = ("_exchange", "_read_on_s", "deadline_passed")

    def __init__(self, exchange: Exchange, *, deadline_s: float, read_on_s: float) -> None:
        super().__init__(deadline_s)
        self.deadline_passed = False
        self._exchange = exchange
        self._read_on_s = read_on_s

    def __enter__(self) -> None:
        super().__enter__()
        self._exchange.left = self.client_left

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exchange.left = None
        try:
            super().__exit__(kind, error, trace)
        except TimeoutError:
            self.deadline_passed = not self._exchange.gone
            raise

    def client_left(self) -> None:
        """From now on the upstream is read on for its usage only, and not for long."""
        self.at_most(self._read_on_s)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """What follows the end marker is thrown away."""
    try:
        with Limit(AFTER_DONE_S):
            async for _ in chunks:
                pass
    except (TimeoutError, UpstreamError):
        return
