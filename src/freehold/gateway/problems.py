"""What the inference door refuses, beyond what the domains below it refuse."""

from freehold.problems import Problem


class RequestTooLarge(Problem):
    """{reason}"""

    status = 413
    code = "request_too_large"
    retry = False


class RequestTimeout(Problem):
    """No part of the request's body arrived for {waited} s. Send it again in one piece."""

    status = 408
    code = "request_timeout"


class MethodNotAllowed(Problem):
    """{path} takes {allowed}, not {method}."""

    status = 405
    code = "method_not_allowed"
    retry = False

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "allow": str(self.facts["allowed"])}


class ModelNotAllowed(Problem):
    """This key may call {allowed}, not {model}. Use one of those, or add the model to the key."""

    status = 403
    code = "model_not_allowed"
    type = "permission_error"
    retry = False


class NotForInference(Problem):
    """This is {kind} token, and model calls take an API key with the scope inference. Create one with `freehold keys create`."""

    status = 403
    code = "insufficient_scope"
    type = "permission_error"
    retry = False


class AnswerNotKept(Problem):
    """The call that first used this Idempotency-Key is done, and its answer was not kept. `GET /v1/account/receipts/{request_id}` says what it cost; use a new key for a new call."""

    status = 409
    code = "idempotency_conflict"
    retry = False


class UpstreamFailed(Problem):
    """The model's server failed ({reason}). {charged}"""

    status = 502
    code = "upstream_error"
    type = "server_error"


class NoUpstream(Problem):
    """No server of model {model} takes calls now ({reason}). Nothing was charged; try again in a moment."""

    status = 503
    code = "no_upstream"
    type = "server_error"


class UpstreamTimeout(Problem):
    """The model's server took too long ({reason}). {charged}"""

    status = 504
    code = "upstream_timeout"
    type = "server_error"


class NotSettled(Problem):
    """The call ran, but the ledger has not confirmed what it cost yet. `GET /v1/account/receipts/{request_id}` will say what, if anything, was charged."""

    status = 503
    code = "ledger_unavailable"
    type = "server_error"


class ServerFault(Problem):
    """Something failed here that should not. Report it with the request id {request_id}."""

    status = 500
    code = "server_error"
    type = "server_error"


NOT_CHARGED = "Nothing was charged; try again in a moment."
CHARGED = "What had been delivered was charged: see the receipt of this request."
