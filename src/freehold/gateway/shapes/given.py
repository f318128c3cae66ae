"""Fields of a request as the client gave them: each that has the wrong type is refused by its name."""

from collections.abc import Callable, Mapping
from typing import Any

from freehold.gateway.asking import MOST_TOKENS
from freehold.problems import InvalidRequest, UnsupportedParameter

Check = tuple[Callable[[Any], bool], str]
"""Whether a value that isn't null is right, and what it should be."""


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


NUMBER: Check = (_is_number, "a number")
WHOLE: Check = (lambda value: type(value) is int, "a whole number")
TEXT: Check = (lambda value: type(value) is str, "a text")
FLAG: Check = (lambda value: type(value) is bool, "true or false")
OBJECT: Check = (lambda value: type(value) is dict, "an object")
TEXTS: Check = (_is_texts, "a list of texts")
STOP: Check = (lambda value: type(value) is str or _is_texts(value), "a text or a list of texts")
CHOICE: Check = (lambda value: type(value) in (str, dict), "a text or an object")


def check_types(body: Mapping[str, Any], fields: Mapping[str, Check], inside: str = "") -> None:
    """Raises InvalidRequest, which names the field."""
    for name, value in body.items():
        check = fields.get(name)
        if check is not None and value is not None and not check[0](value):
            raise wrong(inside + name, f"is not {check[1]}")


def wrong(param: str, how: str) -> InvalidRequest:
    """`param` is the field's path, such as `input[2].content`."""
    return InvalidRequest(reason=f"{param} {how}.", param=param)


def unsupported(param: str, why: str) -> UnsupportedParameter:
    return UnsupportedParameter(reason=f"{param} is not supported: {why}.", param=param)


def an_object(value: Any, param: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise wrong(param, "is not an object")
    return value


def a_list(value: Any, param: str) -> list[Any]:
    if type(value) is not list:
        raise wrong(param, "is not a list")
    return value


def a_text(value: Any, param: str) -> str:
    if type(value) is not str:
        raise wrong(param, "is not a text")
    return value


def a_name(value: Any, param: str) -> str:
    """A text that isn't empty."""
    if type(value) is not str or not value:
        raise wrong(param, "is missing" if value is None else "is not a text")
    return value


def maximum(body: Mapping[str, Any], name: str, *, least: int = 1) -> int | None:
    """The most output tokens; None when absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= MOST_TOKENS:
        raise wrong(name, f"is not a whole number from {least} to {MOST_TOKENS:,}")
    return value


def one_of(value: Any, param: str, choices: tuple[str, ...]) -> str:
    if type(value) is not str or value not in choices:
        raise wrong(param, f"is not one of {', '.join(choices)}")
    return value
