"""What a call used, in the words of each shape: from the units that are charged, so that it says what the bill says."""

from typing import Any

from freehold.pricing.model import (
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHED,
    CACHED_AUDIO,
    REASONING,
    Usage,
    input_tokens,
    output_tokens,
)


def of_responses(usage: Usage) -> dict[str, Any]:
    """The usage object of `/v1/responses`."""
    prompt, output = input_tokens(usage), output_tokens(usage)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": _cached(usage), "cache_write_tokens": _written(usage)},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": usage.get(REASONING, 0)},
        "total_tokens": prompt + output,
    }


def of_messages(usage: Usage) -> dict[str, Any]:
    """The usage object of `/v1/messages`: what was cached or written stands beside `input_tokens`."""
    written, cached = _written(usage), _cached(usage)
    parts = {
        "ephemeral_1h_input_tokens": usage.get(CACHE_WRITE_1H, 0),
        "ephemeral_5m_input_tokens": usage.get(CACHE_WRITE, 0),
    }
    thought = usage.get(REASONING, 0)
    return {
        "input_tokens": input_tokens(usage) - written - cached,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": parts,
        "output_tokens": output_tokens(usage),
        "output_tokens_details": {"thinking_tokens": thought} if thought else None,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }


def _cached(usage: Usage) -> int:
    return usage.get(CACHED, 0) + usage.get(CACHED_AUDIO, 0)


def _written(usage: Usage) -> int:
    return usage.get(CACHE_WRITE, 0) + usage.get(CACHE_WRITE_1H, 0)
