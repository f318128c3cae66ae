"""What the ledger refuses."""

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
