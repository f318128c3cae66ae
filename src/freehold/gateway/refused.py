"""What an upstream's refusal or failure means for the caller: named, and without the upstream's secrets."""

import re
from typing import Any

import msgspec

from freehold.gateway.admission import too_long
from freehold.gateway.problems import NOT_CHARGED, NoUpstream, UpstreamFailed, UpstreamTimeout
from freehold.problems import InvalidRequest, Problem
from freehold.upstream.model import (
    Answer,
    Kind,
    Model,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)

READ_BYTES = 64 * 1024
SHOWN_CHARACTERS = 500
RETRY_S = 5
"""When to try again, if the upstream doesn't say."""

_OVERFLOW = re.compile(
    r"context.?(length|size|window)|exceed_context_size|maximum context|prompt is too long|too many tokens"
    r"|too large to process|input (is|was) too (long|large)|longer than the (model'?s )?(maximum|context)",
    re.IGNORECASE,
)

_OWN = re.compile(r"api.?key|credential|unauthori[sz]ed|billing|quota", re.IGNORECASE)
"""What a refusal says that is about the operator's account at the upstream, and not about the request."""

_SECRET = re.compile(
    r"https?://\S+|\b(sk|pk|gsk|xai|key|org|proj)-\S+|\bbearer\s+\S+|\b\d{1,3}(\.\d{1,3}){3}(:\d+)?|\b[\w-]{32,}",
    re.IGNORECASE,
)
"""What looks like a key, an address or an organisation."""


class Refused(UpstreamError):
    """The upstream answered, and refused."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message, before_first_byte=False)
        self.problem = problem


async def problem_of(answer: Answer, model: Model, kind: Kind) -> Problem:
    """The caller's refusal for an upstream's answer that isn't a success. Raises UpstreamError while it is read."""
    status = answer.status
    param = "input" if kind is Kind.EMBEDDING else "messages"
    if status in (400, 413, 422) or status >= 500:
        code, message = _reading(await answer.read(READ_BYTES))
        if status == 413 or _OVERFLOW.search(code) or _OVERFLOW.search(message):
            return too_long(model, param)
        if status in (400, 422) and not _OWN.search(f"{code} {message}"):
            said = _SECRET.sub("…", message.replace(model.upstream_id, model.id))[:SHOWN_CHARACTERS]
            return InvalidRequest(reason=f"The model's server refused the request: {said or f'it answered {status}'}")
    if status in (429, 503):
        retry_after_s = answer.retry_after_s if answer.retry_after_s is not None else RETRY_S
        return NoUpstream(model=model.id, reason=f"it answered {status}", retry_after_s=retry_after_s)
    if status in (408, 504):
        return UpstreamTimeout(reason=f"it answered {status}", charged=NOT_CHARGED)
    return UpstreamFailed(reason=f"it answered {status}", charged=NOT_CHARGED)


def problem_of_failure(error: UpstreamError, model: Model, charged: str) -> Problem:
    """The caller's refusal for an upstream that could not be reached, took too long or broke off."""
    if isinstance(error, UpstreamUnreachable):
        return NoUpstream(model=model.id, reason="it can't be reached", retry_after_s=RETRY_S)
    if isinstance(error, UpstreamTimedOut):
        return UpstreamTimeout(reason="nothing came within its time limit", charged=charged)
    reason = "it closed the connection before it answered" if error.before_first_byte else "its answer broke off"
    return UpstreamFailed(reason=reason, charged=charged)


def _reading(raw: bytes) -> tuple[str, str]:
    """Code (or type) and message of an OpenAI-shaped error body; empty where there is none."""
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", ""
    code = f"{error.get('code') or ''} {error.get('type') or ''}"
    message = error.get("message")
    return code, message if isinstance(message, str) else ""
