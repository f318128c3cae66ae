"""Refusals. Each has a name, a sentence, a status and a code; one function makes OpenAI's error body of it."""

from typing import Any, ClassVar


class Problem(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_request"
    type: ClassVar[str] = "invalid_request_error"
    retry: ClassVar[bool] = True
    """False adds `x-should-retry: false`, for refusals that a retry can't mend."""

    def __init__(self, *, param: str | None = None, retry_after_s: int | None = None, **facts: object) -> None:
        """`facts` fill the braces of the docstring, which is the message."""
        self.param = param
        self.retry_after_s = retry_after_s
        self.facts = facts
        template = " ".join((type(self).__doc__ or "").split())
        self.message = template.format(**facts)
        super().__init__(self.message)

    def headers(self) -> dict[str, str]:
        """Response headers that go with this refusal."""
        out: dict[str, str] = {}
        if self.retry_after_s is not None:
            out["retry-after"] = str(max(1, self.retry_after_s))
        if not self.retry:
            out["x-should-retry"] = "false"
        return out


class InvalidRequest(Problem):
    """{reason}"""


class UnsupportedParameter(Problem):
    """{reason}"""

    code = "unsupported_parameter"


class NotFound(Problem):
    """{reason}"""

    status = 404
    code = "not_found"


class Conflict(Problem):
    """{reason}"""

    status = 409
    code = "conflict"


class Forbidden(Problem):
    """{reason}"""

    status = 403
    code = "forbidden"
    type = "permission_error"


class LedgerUnavailable(Problem):
    """The ledger can't be reached, so nothing was decided about this call: {reason}. Try again in a moment."""

    status = 503
    code = "ledger_unavailable"
    type = "server_error"


def error_body(problem: Problem) -> dict[str, Any]:
    """OpenAI's error body: `{"error": {"message", "type", "code", "param"}}`."""
    return {"error": {"message": problem.message, "type": problem.type, "code": problem.code, "param": problem.param}}
