"""What an upstream reports as used, read with distrust. Pure."""

from collections.abc import Mapping
from typing import Any

from freehold.pricing.model import CACHE_WRITE, CACHED, INPUT, OUTPUT, Usage

MAX_TOKENS = 1_000_000_000
"""No call uses more; a larger number is a lie."""


def usage_of(reported: object, *, embedding: bool = False) -> Usage | None:
    """OpenAI's usage object, of a chat, a completion or (with `embedding`) an embedding, as a map unit → tokens.

    `prompt_tokens` includes the cached and cache-write tokens of `prompt_tokens_details`; here each stands alone.
    `completion_tokens` includes reasoning. None when a number is missing, null, negative, above MAX_TOKENS or not a
    whole number, and when more is cached or written than there was input: then the caller's own rule applies.
    """
    if type(reported) is not dict and not isinstance(reported, Mapping):  # the check of an abstract class is slow
        return None
    prompt = _tokens(reported.get("prompt_tokens"))
    completion = _tokens(reported.get("completion_tokens", 0 if embedding else None))
    details = reported.get("prompt_tokens_details")
    if details is None:
        details = {}
    if prompt is None or completion is None:
        return None
    if type(details) is not dict and not isinstance(details, Mapping):
        return None
    cached = _optional(details, "cached_tokens")
    written = _optional(details, "cache_write_tokens")
    if cached is None or written is None or cached + written > prompt:
        return None
    usage = {INPUT: prompt - cached - written, CACHED: cached, CACHE_WRITE: written, OUTPUT: completion}
    return {unit: tokens for unit, tokens in usage.items() if tokens or unit in (INPUT, OUTPUT)}


def _optional(details: Mapping[str, Any], name: str) -> int | None:
    """A detail that many servers leave out or send as null: then it is 0."""
    value = details.get(name)
    return 0 if value is None else _tokens(value)


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
