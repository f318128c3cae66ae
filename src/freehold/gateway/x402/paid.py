"""A call that brings a payment instead of a key: asked for its price, admitted once for one payment.

The payment funds the payer's own account, which is then held and charged as with any call. It is its call's
idempotency key: the same request gets the same answer again, another one is refused.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from freehold.gateway.admission import Admitted, Bounds, bound, served
from freehold.gateway.asgi import Exchange
from freehold.gateway.asking import Ask
from freehold.gateway.authority import TRIES
from freehold.gateway.replay import Repeatable, again
from freehold.gateway.x402 import model
from freehold.gateway.x402.model import Payment, Settled, Unacceptable
from freehold.gateway.x402.payments import KEYLESS, KEYLESS_VERSION, Payments
from freehold.gateway.x402.problems import PaymentRefused, PaymentRequired, PaymentServed, PriceRose
from freehold.identity.problems import NoCredentials
from freehold.ledger.model import HoldRequest
from freehold.ledger.problems import AnswerStored, DayUnopened, StalePrice
from freehold.money import MAX_NANO, usdc_to_nano
from freehold.pricing.model import Price, PriceBook, worst_case_nano_up
from freehold.pricing.problems import PriceNotSet
from freehold.problems import LedgerUnavailable
from freehold.upstream.catalogue import Serving

if TYPE_CHECKING:
    from freehold.gateway.door import Door

DESCRIPTION = "One model call; what it doesn't use stays credit of the payer's account."


@dataclass(frozen=True, slots=True)
class Quote:
    """What a call may cost at most, at one version of the book."""

    serving: Serving
    bounds: Bounds
    price: Price
    version: int
    nano: int

    def units(self, payments: Payments) -> int:
        """USDC base units that are asked for it."""
        return model.units_up(self.nano, least=payments.settings.least_units)


async def admit_paid(door: "Door", exchange: Exchange, ask: Ask, body: bytes) -> Admitted | None:
    """Take the payment and hold the worst case of `ask`; None when a repeat was answered from what is kept.

    Raises PaymentRequired and what else refuses: PaymentRefused, PaymentReused, PaymentServed, PaymentPending,
    InvalidRequest for a header that can't be read; and what `admit` raises but for what concerns keys.
    """
    payments = door.payments
    if payments is None:
        raise NoCredentials
    found = _quote(ask, door, await door.prices.refresh())
    units = found.units(payments)
    sent = exchange.header(model.SIGNATURE.lower().encode())
    if sent is None:
        raise PaymentRequired(price=model.usdc(units), required=await required(payments, exchange.path, units))
    payment = model.read(sent)
    purpose = hashlib.sha256(b"call\0" + exchange.path.encode() + b"\0" + body).digest()
    settled = await take(payments, payment, purpose, exchange.path, units)
    exchange.limits = [(b"payment-response", model.settled_response(settled).encode())]
    return await _hold(door, payments, exchange, ask, found, settled, purpose)


async def take(
    payments: Payments, payment: Payment, purpose: bytes, path: str, units: int, *, account_id: int | None = None
) -> Settled:
    """`Payments.take`, whose refusals say again what is asked."""
    try:
        return await payments.take(payment, purpose, least=units, account_id=account_id)
    except Unacceptable as why:
        terms = await payments.terms()
        raise PaymentRefused(
            reason=str(why),
            required=await required(payments, path, units, error=str(why)),
            response=model.refused_response(terms, payment.authorization.payer, str(why)),
        ) from None


async def required(payments: Payments, path: str, units: int, *, error: str = "", about: str = DESCRIPTION) -> str:
    """The value of the header PAYMENT-REQUIRED."""
    accepts = model.offer(await payments.terms(), units=units, timeout_s=await payments.timeout_s())
    url = payments.settings.public_url + path
    return model.required(accepts, url=url, description=about, error=error or "A payment is required.")


def _quote(ask: Ask, door: "Door", book: PriceBook) -> Quote:
    """The worst case, held whole: a payment can't grow with a stream. Raises as `admit` does."""
    serving = served(door, ask)
    bounds = bound(ask, serving.model, door.settings)
    bounds = replace(bounds, least_output=bounds.output, in_steps=False)
    price = book.prices.get(serving.model.id)
    if price is None:
        raise PriceNotSet(model=serving.model.id, param="model")
    nano = worst_case_nano_up(price, input_tokens=bounds.input, output_tokens=bounds.output * bounds.choices)
    return Quote(serving, bounds, price, book.version, min(nano, MAX_NANO))


async def _hold(
    door: "Door",
    payments: Payments,
    exchange: Exchange,
    ask: Ask,
    found: Quote,
    settled: Settled,
    purpose: bytes,
) -> Admitted | None:
    """Hold it on the account that was funded, as with any call."""
    repeatable = Repeatable(settled.name, purpose)
    day_unopened_ok = False
    for _ in range(TRIES):
        if found.nano > usdc_to_nano(settled.amount):
            units = found.units(payments)
            needed = await required(payments, exchange.path, units)
            raise PriceRose(price=model.usdc(units), payer=settled.payer, required=needed)
        request = HoldRequest(
            account_id=settled.account_id,
            key_id=KEYLESS,
            request_id=exchange.id,
            amount_nano=found.nano,
            least_nano=found.nano,
            price_version=found.version,
            key_version=KEYLESS_VERSION,
            deadline_s=door.settings.deadline_s,
            idempotency_key=repeatable.key,
            body_digest=repeatable.digest,
            day_unopened_ok=day_unopened_ok,
        )
        if not payments.still_admits(settled):
            raise PaymentServed(hours=payments.settings.served_s // 3600, payer=settled.payer)
        try:
            hold = await door.ledger.hold(request)
        except AnswerStored as stored:
            await again(door, exchange, settled.account_id, repeatable, stored)
            return None
        except StalePrice:
            found = _quote(ask, door, await door.prices.refresh())
        except DayUnopened:
            await door.allowance.refresh(settled.account_id)
            day_unopened_ok = True
        else:
            bounds = found.bounds
            held = bounds.output * bounds.choices
            return Admitted(
                hold, found.price, found.serving.model, found.serving, bounds.input, bounds.output, ask.choices, held
            )
    raise LedgerUnavailable(reason="the price is being changed")
