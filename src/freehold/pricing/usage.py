"""What an upstream reports as used, read with distrust, as one map unit → tokens. Pure.

The map is disjoint: every token stands in exactly one unit (model.UNITS), so a cost is a plain sum. The three shapes
differ in what they count where; README.md has the table.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

from freehold.pricing.model import (
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHED,
    CACHED_AUDIO,
    INPUT,
    INPUT_AUDIO,
    OUTPUT,
    OUTPUT_AUDIO,
    REASONING,
    Usage,
)

MAX_TOKENS = 1_000_000_000
"""No call uses more; a larger number is a lie."""

_NOTHING: Mapping[str, Any] = {}


def usage_of(reported: object, *, embedding: bool = False) -> Usage | None:
    """The usage object of a chat, a completion or (with `embedding`) an embedding, in OpenAI's shape.

    `prompt_tokens` includes what `prompt_tokens_details` counts (cached, cache-write and audio tokens), and
    `completion_tokens` what `completion_tokens_details` counts (reasoning and audio tokens); here each stands alone.
    Some servers count reasoning beside the completion: then `total_tokens` tells. None when a number is missing, null,
    negative, above MAX_TOKENS or not a whole number, and when the details are more than the whole: then the caller's
    own rule applies.
    """
    if not _is_object(reported):
        return None
    prompt = _tokens(reported.get("prompt_tokens"))
    completion = _tokens(reported.get("completion_tokens", 0 if embedding else None))
    if prompt is None or completion is None:
        return None
    inside = reported.get("prompt_tokens_details")
    made = reported.get("completion_tokens_details")
    if not inside and not made and (inside is None or _is_object(inside)) and (made is None or _is_object(made)):
        return {INPUT: prompt, OUTPUT: completion}
    return _parted(prompt, completion, inside, made, reported.get("total_tokens"))


def usage_of_responses(reported: object) -> Usage | None:
    """The usage object of `/v1/responses`: as `usage_of`, under the names `input_tokens` and `output_tokens`."""
    if not _is_object(reported):
        return None
    prompt = _tokens(reported.get("input_tokens"))
    completion = _tokens(reported.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    return _parted(
        prompt,
        completion,
        reported.get("input_tokens_details"),
        reported.get("output_tokens_details"),
        reported.get("total_tokens"),
    )


def usage_of_messages(reported: object) -> Usage | None:
    """The usage object of Anthropic's `/v1/messages`.

    `cache_creation_input_tokens` and `cache_read_input_tokens` are besides `input_tokens`; of the former,
    `cache_creation.ephemeral_1h_input_tokens` were written for an hour. `output_tokens` includes thinking;
    `output_tokens_details.thinking_tokens`, where a server has it, tells it apart. None as in `usage_of`.
    """
    if not _is_object(reported):
        return None
    fresh = _tokens(reported.get("input_tokens"))
    output = _tokens(reported.get("output_tokens"))
    written = _optional(reported, "cache_creation_input_tokens")
    cached = _optional(reported, "cache_read_input_tokens")
    parts = reported.get("cache_creation")
    if parts is None:
        parts = _NOTHING
    made = reported.get("output_tokens_details")
    if made is None:
        made = _NOTHING
    if fresh is None or output is None or written is None or cached is None:
        return None
    if not _is_object(parts) or not _is_object(made):
        return None
    hour = _optional(parts, "ephemeral_1h_input_tokens")
    thought = _optional(made, "thinking_tokens")
    if hour is None or hour > written or fresh + written + cached > MAX_TOKENS or thought is None or thought > output:
        return None
    return _used(
        {
            INPUT: fresh,
            CACHED: cached,
            CACHE_WRITE: written - hour,
            CACHE_WRITE_1H: hour,
            OUTPUT: output - thought,
            REASONING: thought,
        }
    )


def _parted(prompt: int, completion: int, inside: object, made: object, total: object) -> Usage | None:
    inside = _NOTHING if inside is None else inside
    made = _NOTHING if made is None else made
    if not _is_object(inside) or not _is_object(made):
        return None
    cached = _optional(inside, "cached_tokens")
    written = _optional(inside, "cache_write_tokens")
    heard = _optional(inside, "audio_tokens")
    thought = _optional(made, "reasoning_tokens")
    said = _optional(made, "audio_tokens")
    if cached is None or written is None or heard is None or thought is None or said is None:
        return None
    # What is both heard and cached is in both counts; more of it than must be is not assumed.
    both = max(0, cached + written + heard - prompt)
    if both > min(cached, heard):
        return None
    besides = thought > 0 and total == prompt + completion + thought
    output = completion - said - (0 if besides else thought)
    if output < 0:
        return None
    return _used(
        {
            INPUT: prompt - cached - written - heard + both,
            CACHED: cached - both,
            CACHE_WRITE: written,
            INPUT_AUDIO: heard - both,
            CACHED_AUDIO: both,
            OUTPUT: output,
            REASONING: thought,
            OUTPUT_AUDIO: said,
        }
    )


def _used(usage: dict[str, int]) -> Usage:
    """Without the units of which nothing was used, but for input and output."""
    return {unit: tokens for unit, tokens in usage.items() if tokens or unit in (INPUT, OUTPUT)}


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return type(value) is dict or isinstance(value, Mapping)  # the check of an abstract class is slow


def _optional(details: Mapping[str, Any], name: str) -> int | None:
    """A detail that many servers leave out or send as null: then it is 0."""
    value = details.get(name)
    return 0 if value is None else _tokens(value)


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
