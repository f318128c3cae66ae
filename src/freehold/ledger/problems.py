"""What the ledger refuses."""

from uuid import UUID

from freehold.ledger.model import RateState
from freehold.problems import LedgerUnavailable, Problem


class InsufficientCredit(Problem):
    """This call may cost up to {needed} USD, and {available} USD is left ({purses}). The allowance is renewed at {reset}; a deposit or a lower max_tokens also helps."""

    status = 402
    code = "insufficient_credit"
    type = "insufficient_quota"
    retry = False


class KeyLimitReached(Problem):
    """This call may cost up to {needed} USD, and this key's {limit} limit of {cap} USD has {used} USD used or held; it resets {reset}. Raise the limit or use another key."""

    status = 402
    code = "key_limit_reached"
    type = "insufficient_quota"
    retry = False


class KeyRevoked(Problem):
    """This API key was revoked. Create a new one with `freehold keys create`."""

    status = 401
    code = "key_revoked"
    type = "authentication_error"
    retry = False


class KeyExpired(Problem):
    """This API key expired at {expired}. Create a new one with `freehold keys create`."""

    status = 401
    code = "key_expired"
    type = "authentication_error"
    retry = False


class RateLimited(Problem):
    """This key's limit of {cap} {unit} per minute is reached: {used} were counted in the last 60 s, and this call asks for {needed}. It fits again in {wait_s} s."""

    status = 429
    code = "rate_limited"
    type = "rate_limit_error"
    rate: RateState | None = None
    """Where the key stands, for the answer's headers."""


class TooLargeForRate(RateLimited):
    """This call may take {needed} tokens, which this key's limit of {cap} {unit} per minute never lets through. Lower max_tokens, shorten the prompt or raise the limit."""

    retry = False


class IdempotencyInProgress(Problem):
    """The call that first used this Idempotency-Key is still running, as {request}. Ask again in a moment for its answer."""

    status = 409
    code = "idempotency_in_progress"


class IdempotencyConflict(Problem):
    """This Idempotency-Key was used in the last 24 hours for another body, by {request}. Use a new key for a new call."""

    status = 409
    code = "idempotency_conflict"
    retry = False


class BillDiffers(Problem):
    """The bill of {month} doesn't add up to its entries: {differences}. Nothing is shown rather than something wrong; the operator finds the cause with `freehold books check`."""

    status = 500
    code = "bill_differs"
    type = "server_error"
    retry = False


class DayUnopened(Exception):
    """Today's allowance was not issued to this account yet: issue it and hold again, or hold with `day_unopened_ok`."""


class StalePrice(Exception):
    """The price book has moved on; price the call at `current` and hold again."""

    def __init__(self, current: int) -> None:
        super().__init__(f"price version {current} is current")
        self.current = current


class StaleKey(Exception):
    """The key was changed; read it and hold again."""


class WorkerFenced(LedgerUnavailable):
    """This server lost touch with its ledger and is starting anew, so nothing was decided about this call. Try again in a moment."""


class AnswerStored(Exception):
    """The idempotency key's call was settled: give its `answer` again; where it is None, name its receipt (409)."""

    def __init__(self, request_id: UUID, answer: bytes | None) -> None:
        super().__init__(f"request {request_id} is answered already")
        self.request_id = request_id
        self.answer = answer
