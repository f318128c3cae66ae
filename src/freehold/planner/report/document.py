"""A plan as a JSON document, and the schema that the document keeps to."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np

from freehold.clock import Day

VERSION = 1
"""Of the document; a change that a reader must know of raises it."""


def document(value: Any) -> Any:
    """The value as what JSON knows. What has no finite number is null; days are `YYYY-MM-DD`.

    A dataclass becomes an object of its fields.
    """
    if isinstance(value, Day):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: document(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return [document(each) for each in value.tolist()]
    if isinstance(value, Mapping):
        return {str(name): document(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [document(each) for each in value]
    if isinstance(value, np.generic):
        return document(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def with_version(value: Any) -> dict[str, Any]:
    """The document of a plan or a backtest, headed by its version."""
    return {"version": VERSION, **document(value)}


def schema(kind: type, title: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of `with_version` of a value of `kind`, made from the type hints."""
    definitions: dict[str, Any] = {}
    _define(kind, definitions)
    top = definitions.pop(kind.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **top,
        "properties": {"version": {"const": VERSION}, **top["properties"]},
        "required": ["version", *top["required"]],
        "$defs": dict(sorted(definitions.items())),
    }


def _define(kind: type, definitions: dict[str, Any]) -> None:
    if kind.__name__ in definitions:
        return
    hints = typing.get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind)]
    definitions[kind.__name__] = {}
    definitions[kind.__name__] = {
        "type": "object",
        "properties": {name: _of(hints[name], definitions) for name in names},
        "required": names,
        "additionalProperties": False,
    }


_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    type(None): {"type": "null"},
    Day: {"type": "string", "pattern": r"^\d{4,}-\d{2}-\d{2}$"},
}


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        return {"anyOf": [_of(each, definitions) for each in inner]}
    if origin is tuple:
        return {"type": "array", "items": _of(inner[0], definitions)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(inner[1], definitions)}
    if isinstance(origin, type) and issubclass(origin, np.ndarray):
        return {"type": "array", "items": {"type": ["number", "null"]}}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [each.value for each in hint]}
    _define(hint, definitions)
    return {"$ref": f"#/$defs/{hint.__name__}"}
