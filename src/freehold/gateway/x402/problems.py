"""What paying by x402 refuses. A refusal that another payment can mend carries `PAYMENT-REQUIRED`."""

from freehold.problems import Problem


class NotTaken(Problem):
    """This server takes no payments by x402. Deposit USDC on its chain instead, with `freehold deposit`."""

    status = 404
    code = "not_found"
    retry = False


class PaymentRequired(Problem):
    """This costs up to {price} USDC, and neither an API key nor a payment came with it. Pay by x402 as the header PAYMENT-REQUIRED says, or send an API key as `Authorization: Bearer fh_…`."""

    status = 402
    code = "payment_required"
    retry = False

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "payment-required": str(self.facts["required"])}


class TopUpRequired(PaymentRequired):
    """Adding {price} USD costs {price} USDC. Pay by x402 as the header PAYMENT-REQUIRED says; `freehold top-up` does it."""


class PaymentRefused(PaymentRequired):
    """The payment was refused: {reason}. Nothing was taken; the header PAYMENT-REQUIRED says what is asked."""

    code = "payment_refused"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "payment-response": str(self.facts["response"])}


class PriceRose(PaymentRequired):
    """The price rose to {price} USDC while the payment was under way. What was paid is credit of {payer} here: sign in with that wallet to use it, or pay again."""


class PaymentPending(Problem):
    """The payment is on its way to the chain and not confirmed yet. Send the same request with the same payment again: it is taken once."""

    status = 503
    code = "payment_pending"
    type = "server_error"


class PaymentsUnavailable(Problem):
    """This server can't carry payments to the chain now; nothing was taken. Tell its operator, or send an API key."""

    status = 503
    code = "payments_unavailable"
    type = "server_error"
    retry = False


class PaymentReused(Problem):
    """This payment was made for another request. What is left of it is credit of the account that it funded: sign in with the wallet {payer}, or make a new payment."""

    status = 409
    code = "idempotency_conflict"
    retry = False


class PaymentServed(Problem):
    """The request that this payment was made for ended more than {hours} hours ago, and its answer is kept no longer. What is left of the payment is credit of {payer}: sign in with that wallet, or make a new payment."""

    status = 409
    code = "idempotency_conflict"
    retry = False
