"""One chat call, streamed: what came back, what it cost, and which purse paid."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.cli.client import Client
from freehold.cli.refusal import ServerRefused, ServerUnreachable


@dataclass(frozen=True, slots=True)
class Spoken:
    """A finished call. Amounts are decimal USD."""

    text: str
    model: str
    request_id: str
    finish_reason: str | None
    usage: Mapping[str, Any]
    cost: str | None
    purses: Mapping[str, str]

    def paid_by(self) -> str:
        """'allowance', or 'allowance 0.0000012 USD + prepaid 0.0000003 USD'."""
        if len(self.purses) < 2:
            return next(iter(self.purses), "nobody (no charge)")
        return " + ".join(f"{purse} {amount} USD" for purse, amount in self.purses.items())

    def document(self) -> dict[str, Any]:
        return {
            "object": "chat",
            "text": self.text,
            "model": self.model,
            "request_id": self.request_id,
            "finish_reason": self.finish_reason,
            "usage": dict(self.usage),
            "cost_usd": self.cost,
            "purses": dict(self.purses),
        }


def speak(
    client: Client,
    *,
    model: str,
    messages: Sequence[Mapping[str, str]],
    max_tokens: int | None = None,
    on_text: Callable[[str], None] = lambda text: None,
) -> Spoken:
    """Send a streamed chat completion; `on_text` gets the pieces as they come.

    Raises ServerRefused (also for an error frame within the stream) and ServerUnreachable.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    headers, events = client.stream("/v1/chat/completions", body)
    text: list[str] = []
    usage: Mapping[str, Any] = {}
    finish: str | None = None
    cost: str | None = None
    purses: dict[str, str] = {}
    ended = False
    for event in events:
        if event.comment is not None:
            cost, purses = read_bill(event.comment) or (cost, purses)
        elif event.data == "[DONE]":
            ended = True
        elif event.data is not None:
            frame = _frame(event.data)
            usage = frame.get("usage") or usage
            for choice in frame.get("choices") or ():
                finish = choice.get("finish_reason") or finish
                piece = (choice.get("delta") or {}).get("content")
                if piece:
                    text.append(piece)
                    on_text(piece)
    if not ended:
        raise ServerUnreachable(
            "The answer broke off before its end; what was delivered is charged: see `freehold usage`."
        )
    return Spoken("".join(text), model, headers.get("x-request-id", ""), finish, usage, cost, purses)


def read_bill(comment: str) -> tuple[str, dict[str, str]] | None:
    """Cost and purses of the comment `freehold cost=… purse=a=…,b=…`; None for any other comment."""
    words = comment.split()
    if not words or words[0] != "freehold":
        return None
    named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    return named.get("cost", "0.00"), read_purses(named.get("purse", ""))


def read_purses(text: str) -> dict[str, str]:
    """`allowance=0.0012,prepaid=0.0003` as a map."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _frame(data: str) -> dict[str, Any]:
    try:
        frame = json.loads(data)
    except ValueError:
        frame = None
    if not isinstance(frame, dict):
        raise ServerUnreachable("The server sent a frame that is not JSON; see its log.")
    error = frame.get("error")
    if isinstance(error, dict):
        raise ServerRefused(502, str(error.get("code") or "upstream_error"), str(error.get("message")))
    return frame
