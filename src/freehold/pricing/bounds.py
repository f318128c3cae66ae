"""The most input tokens that a request can come to, from its JSON alone, without the model's tokenizer. Pure.

A byte-level or byte-fallback tokenizer never makes more tokens of a text than it has UTF-8 bytes, and special tokens
only shorten it. What a chat template adds is bounded by constants, which the tests hold against a real model. The
bound is about four times what English prose comes to: it is for the hold, never for the charge.
"""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from freehold.problems import InvalidRequest, UnsupportedParameter

REQUEST_TOKENS = 256
"""What templates put around a conversation: a default system prompt, dates, the generation prompt."""

MESSAGE_TOKENS = 16
"""What templates put around one message, beside its role and text."""

TOOLS_TOKENS = 1_024
"""The instructions that templates add once when there are tools or a schema."""

NODE_TOKENS = 16
"""Indentation, separators and line ends of one JSON value or name when a template prints it."""

ITEM_TOKENS = 8
"""Special tokens around one item of an embedding or completion request."""

SILENT = frozenset(
    {
        "model", "stream", "stream_options", "metadata", "user", "n", "best_of", "max_tokens", "max_completion_tokens",
        "temperature", "top_p", "top_k", "min_p", "seed", "stop", "logprobs", "top_logprobs", "logit_bias",
        "presence_penalty", "frequency_penalty", "parallel_tool_calls", "store", "service_tier", "safety_identifier",
        "prompt_cache_key", "encoding_format", "dimensions", "freehold",
    }
)  # fmt: skip
"""Top-level fields that no template prints. Every other unknown field is counted in full."""


def input_bound(body: Mapping[str, Any], *, image_tokens: int = 0) -> int:
    """The most input tokens of a chat, completion or embedding request; `n` and `best_of` don't multiply input.

    `image_tokens` is the most that one image costs the model; 0 = it takes none. Raises InvalidRequest for a shape
    that no such request has, UnsupportedParameter for content that can't be bounded.
    """
    if "messages" in body:
        bound = REQUEST_TOKENS + _messages(body["messages"], image_tokens)
        read = "messages"
    elif "input" in body:
        bound, read = _items(body["input"], "input"), "input"
    elif "prompt" in body:
        bound, read = _items(body["prompt"], "prompt"), "prompt"
    else:
        raise InvalidRequest(reason="The request has no messages, input or prompt.", param="messages")
    for name, value in body.items():
        if name != read and name not in SILENT and value is not None:
            bound += (TOOLS_TOKENS if isinstance(value, Mapping | list) else 0) + _json(value) + text_bound(name)
    return bound


def estimated_input(body: Mapping[str, Any], *, image_tokens: int = 0) -> int:
    """The input of a call whose upstream reported no usable usage: a quarter of its bytes, rounded up, and images whole.

    Never above `input_bound` of the same request.
    """
    texts = sum(_texts(body.get(name)) for name in ("messages", "input", "prompt", "tools", "functions"))
    images = image_tokens * _images(body.get("messages"))
    return min(-(-texts // 4) + images, input_bound(body, image_tokens=image_tokens))


def text_bound(text: str) -> int:
    """The most tokens of a text: its bytes in UTF-8, or in NFKC if a tokenizer that normalises makes more of it."""
    if text.isascii():
        return len(text)
    return max(_bytes(text), _bytes(unicodedata.normalize("NFKC", text)))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _messages(messages: object, image_tokens: int) -> int:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest(reason="messages is not a list with at least one message.", param="messages")
    return sum(_message(message, image_tokens) for message in messages)


def _message(message: object, image_tokens: int) -> int:
    if type(message) is not dict and not isinstance(message, Mapping):  # the check of an abstract class is slow
        raise InvalidRequest(reason="A message is not an object with role and content.", param="messages")
    bound = MESSAGE_TOKENS
    for name, value in message.items():
        if name == "content":
            bound += _content(value, image_tokens)
        elif name == "role" and isinstance(value, str):
            bound += text_bound(value)
        elif isinstance(value, str):
            bound += MESSAGE_TOKENS + text_bound(value)
        elif value is not None:
            bound += MESSAGE_TOKENS + _json(value)
    return bound


def _content(content: object, image_tokens: int) -> int:
    if content is None:
        return 0
    if isinstance(content, str):
        return text_bound(content)
    if not isinstance(content, list):
        raise InvalidRequest(reason="content is neither text nor a list of parts.", param="messages")
    return sum(_part(part, image_tokens) for part in content)


def _part(part: object, image_tokens: int) -> int:
    if isinstance(part, str):
        return MESSAGE_TOKENS + text_bound(part)
    if not isinstance(part, Mapping):
        raise InvalidRequest(reason="A part of content is neither text nor an object with a type.", param="messages")
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return MESSAGE_TOKENS + text_bound(part["text"])
    if kind in ("image_url", "image"):
        if image_tokens <= 0:
            raise UnsupportedParameter(reason="This model takes no images.", param="messages")
        return MESSAGE_TOKENS + image_tokens
    if kind in ("input_audio", "file", "video_url", "audio_url"):
        raise UnsupportedParameter(reason=f"Content of type {kind} can't be priced before the call.", param="messages")
    return MESSAGE_TOKENS + _json(part)


def _items(given: object, name: str) -> int:
    """Texts and token arrays, alone or in a list."""
    if isinstance(given, str):
        return ITEM_TOKENS + text_bound(given)
    if not isinstance(given, list) or not given:
        raise InvalidRequest(reason=f"{name} is not text, and not a list with at least one item.", param=name)
    if all(type(item) is int for item in given):
        return ITEM_TOKENS + len(given)
    return sum(_item(item, name) for item in given)


def _item(item: object, name: str) -> int:
    if isinstance(item, str):
        return ITEM_TOKENS + text_bound(item)
    if isinstance(item, list) and item and all(type(token) is int for token in item):
        return ITEM_TOKENS + len(item)
    raise InvalidRequest(reason=f"An item of {name} is neither text nor a list of token numbers.", param=name)


def _json(value: object) -> int:
    """The most tokens of a JSON value as a template may print it: escaped, indented, a string of JSON parsed first.

    Every value and name but the first follows one of `,:[{`, also inside a string that is JSON itself.
    """
    try:
        escaped = json.dumps(value)
        printed = json.dumps(value, ensure_ascii=False) if "\\u" in escaped else escaped
    except RecursionError:
        raise InvalidRequest(reason="The request is nested too deeply.") from None
    return max(len(escaped), text_bound(printed)) + NODE_TOKENS * (1 + sum(map(escaped.count, ",:[{")))


def _texts(value: object) -> int:
    """UTF-8 bytes of all strings in a value, image data and types left out, and four for each number of a token array."""
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            total += _bytes(item)
        elif isinstance(item, Mapping):
            waiting.extend(v for k, v in item.items() if k not in ("image_url", "image", "type"))
        elif isinstance(item, list):
            waiting.extend(item)
        elif type(item) is int:
            total += 4
    return total


def _images(messages: object) -> int:
    parts = (
        part
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
    )
    return sum(isinstance(part, Mapping) and part.get("type") in ("image_url", "image") for part in parts)
