"""Upstreams from an operator's tables (TOML `[[upstream]]` or JSON), each fault named in one sentence.

    [[upstream]]
    name = "vllm"
    kind = "openai"                      # or "scripted"; "embedded" is the server that Freehold starts itself
    url = "http://10.0.0.5:8000/v1"
    api_key_file = "/run/secrets/vllm"   # or api_key
    models = [{ id = "llama-70b", upstream_id = "meta-llama/Llama-3.3-70B-Instruct", context_tokens = 131072,
                max_output_tokens = 8192 }]

`shapes` lists the APIs that an upstream, or by its own table a model, speaks natively: ["chat"] unless given, with
"completions", "responses" or "messages" beside "chat". Every other API is translated to and from chat.

A model's `kind` is "chat" unless it says "embedding"; `upstream_id` is `id` unless given; `hidden_output = true` for
models that bill reasoning; `image_tokens` is the most that one image costs. `connect_timeout_s` and `read_timeout_s`
may be given per upstream.

Several upstreams may serve one model. Then these fields of an upstream decide:

    priority = 0            # lower is asked first; the next one when none of these can take a call, or one failed
    weight = 1              # share of the calls among upstreams of one priority, 1 to 1000
    max_concurrency = 64    # calls at once, of one worker; no limit unless given
    circuit_failures = 5    # after so many failures in a row it is asked no more,
    circuit_open_s = 10     # for so long; then one call tries it
    input_cost_usd_per_million = "0.15"     # what the operator owes it; a model's own table may say otherwise
    output_cost_usd_per_million = "0.60"

A model that several upstreams serve has the smallest of their limits, and the largest `image_tokens`.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from freehold.money import parse_usd
from freehold.upstream.embedded import EMBEDDED_MODELS
from freehold.upstream.model import CHAT, SHAPES, Kind, Model, Terms, Upstream
from freehold.upstream.openai_compatible import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, OpenAICompatible
from freehold.upstream.scripted import MODELS as SCRIPTED_MODELS
from freehold.upstream.scripted import Script, Scripted, ScriptError

_COSTS = ("input_cost_usd_per_million", "output_cost_usd_per_million")
_FIELDS = (
    "name", "kind", "url", "api_key", "api_key_file", "models", "connect_timeout_s", "read_timeout_s", "script",
    "priority", "weight", "max_concurrency", "circuit_failures", "circuit_open_s", "shapes", *_COSTS,
)  # fmt: skip
_KINDS = ("openai", "scripted", "embedded")
_MODEL_FIELDS = (
    "id", "upstream_id", "kind", "context_tokens", "max_output_tokens", "hidden_output", "image_tokens", "owned_by",
    "shapes", *_COSTS,
)  # fmt: skip
_MAX_TOKENS = 100_000_000


class ConfigError(ValueError):
    """An upstream's table can't be used; the text names upstream and field, and never a key."""


def read_upstreams(tables: Sequence[Mapping[str, Any]]) -> list[Upstream]:
    """One upstream per table, in order. Raises ConfigError."""
    if isinstance(tables, str | bytes | Mapping) or not isinstance(tables, Sequence):
        raise ConfigError("The upstreams are not a list of tables.")
    upstreams = [_upstream(table, number) for number, table in enumerate(tables, 1)]
    names = [upstream.name for upstream in upstreams]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two upstreams have the name {name}.")
    kinds: dict[str, tuple[Kind, str]] = {}
    for upstream in upstreams:
        for model in upstream.models.values():
            kind, other = kinds.setdefault(model.id, (model.kind, upstream.name))
            if kind is not model.kind:
                raise ConfigError(
                    f"Model {model.id} is {kind} at upstream {other} and {model.kind} at {upstream.name}."
                )
    return upstreams


def _upstream(table: object, number: int) -> Upstream:
    if not isinstance(table, Mapping):
        raise ConfigError(f"Upstream number {number} is not a table.")
    name = table.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > 64:
        raise ConfigError(f"Upstream number {number} needs a name of 1 to 64 characters.")
    where = f"upstream {name}"
    _known(table, _FIELDS, where)
    kind = table.get("kind", "openai")
    if kind not in _KINDS:
        raise ConfigError(f"kind of {where} is {kind!r}, not one of {', '.join(_KINDS)}.")
    if kind == "scripted":
        _without(table, ("url", "api_key", "api_key_file", "connect_timeout_s", "read_timeout_s"), where, kind)
        script = _script(table.get("script", {}), where)
        return Scripted(name, _models(table, where, SCRIPTED_MODELS), script=script, terms=_terms(table, where))
    _without(table, ("script", "shapes") if kind == "embedded" else ("script",), where, kind)
    key = _api_key(table, where)
    try:
        return OpenAICompatible(
            name,
            _url(table.get("url"), where),
            _models(table, where, EMBEDDED_MODELS if kind == "embedded" else ()),
            api_key=key,
            connect_timeout_s=_seconds(table, "connect_timeout_s", CONNECT_TIMEOUT_S, where),
            read_timeout_s=_seconds(table, "read_timeout_s", READ_TIMEOUT_S, where),
            terms=_terms(table, where),
        )
    except ValueError as reason:
        raise reason if isinstance(reason, ConfigError) else ConfigError(str(reason)) from None


def _models(table: Mapping[str, Any], where: str, default: Sequence[Model]) -> Sequence[Model]:
    given = table.get("models")
    usual = {name: table[name] for name in (*_COSTS, "shapes") if name in table}
    if given is None and default:
        of_input, of_output = _costs(usual, where)
        return [
            replace(
                model,
                input_cost_nano=of_input,
                output_cost_nano=of_output,
                shapes=_shapes(usual, model.kind, where, default=model.shapes),
            )
            for model in default
        ]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ConfigError(f"models of {where} is not a list with at least one model.")
    models = [_model({**usual, **entry} if isinstance(entry, Mapping) else entry, where) for entry in given]
    ids = [model.id for model in models]
    for model_id in ids:
        if ids.count(model_id) > 1:
            raise ConfigError(f"models of {where} names {model_id} twice.")
    return models


def _model(entry: object, where: str) -> Model:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"A model of {where} is not a table.")
    model_id = entry.get("id")
    if not isinstance(model_id, str) or not model_id or len(model_id) > 200 or not model_id.isprintable():
        raise ConfigError(f"A model of {where} needs an id of 1 to 200 printable characters.")
    inside = f"model {model_id} of {where}"
    _known(entry, _MODEL_FIELDS, inside)
    kind = entry.get("kind", Kind.CHAT.value)
    if kind not in tuple(Kind):
        raise ConfigError(f"kind of {inside} is {kind!r}, not one of {', '.join(Kind)}.")
    context = _tokens(entry, "context_tokens", None, inside)
    output = _tokens(entry, "max_output_tokens", 0 if kind == Kind.EMBEDDING else None, inside)
    if kind == Kind.CHAT and not 0 < output <= context:
        raise ConfigError(f"max_output_tokens of {inside} is not between 1 and its context_tokens, {context}.")
    hidden = entry.get("hidden_output", False)
    if not isinstance(hidden, bool):
        raise ConfigError(f"hidden_output of {inside} is not true or false.")
    of_input, of_output = _costs(entry, inside)
    return Model(
        id=model_id,
        kind=Kind(kind),
        context_tokens=context,
        max_output_tokens=output,
        upstream_id=_text(entry, "upstream_id", model_id, inside),
        hidden_output=hidden,
        owned_by=_text(entry, "owned_by", "freehold", inside),
        image_tokens=_tokens(entry, "image_tokens", 0, inside),
        input_cost_nano=of_input,
        output_cost_nano=of_output,
        shapes=_shapes(entry, Kind(kind), inside),
    )


def _shapes(
    table: Mapping[str, Any], kind: Kind, where: str, *, default: frozenset[str] = frozenset({CHAT})
) -> frozenset[str]:
    """The APIs that are spoken natively. They say nothing about embeddings, which have one."""
    given = table.get("shapes")
    if "shapes" not in table or kind is Kind.EMBEDDING:
        return default
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and name in SHAPES for name in given):
        raise ConfigError(f"shapes of {where} is not a list of {', '.join(SHAPES)}.")
    if CHAT not in given:
        raise ConfigError(f"shapes of {where} leaves out chat, which every upstream of a chat model speaks here.")
    return frozenset(given)


def _costs(table: Mapping[str, Any], where: str) -> tuple[int, int]:
    """What a million input and output tokens cost the operator, nano-USD."""
    of_input, of_output = (_usd(table, name, where) for name in _COSTS)
    return of_input, of_output


def _usd(table: Mapping[str, Any], field: str, where: str) -> int:
    """Nano-USD of an amount, which is a decimal number or text; 0 when it isn't given."""
    value = table.get(field, 0)
    try:
        if type(value) not in (str, int, float):
            raise ValueError("no amount")
        return parse_usd(value if isinstance(value, str) else f"{Decimal(str(value)):f}")
    except (ValueError, ArithmeticError):
        raise ConfigError(f"{field} of {where} is not an amount of USD such as 0.15.") from None


def _terms(table: Mapping[str, Any], where: str) -> Terms:
    usual = Terms()
    return Terms(
        priority=_number(table, "priority", usual.priority, 0, 1_000, where),
        weight=_number(table, "weight", usual.weight, 1, 1_000, where),
        max_concurrency=_number(table, "max_concurrency", None, 1, 100_000, where),
        failures=_number(table, "circuit_failures", usual.failures, 1, 1_000_000, where),
        open_s=_seconds(table, "circuit_open_s", usual.open_s, where),
    )


def _number(table: Mapping[str, Any], field: str, default: Any, least: int, most: int, where: str) -> Any:
    value = table.get(field, default)
    if field in table and (type(value) is not int or not least <= value <= most):
        raise ConfigError(f"{field} of {where} is not a whole number from {least:,} to {most:,}.")
    return value


def _known(table: Mapping[str, Any], names: Collection[str], where: str) -> None:
    for field in table:
        if field not in names:
            near = difflib.get_close_matches(str(field), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(names)}."
            raise ConfigError(f"{field} of {where} is not a field: {hint}")


def _without(table: Mapping[str, Any], names: Collection[str], where: str, kind: str) -> None:
    for field in names:
        if field in table:
            raise ConfigError(f"{field} of {where} doesn't go with kind {kind!r}.")


def _text(table: Mapping[str, Any], field: str, default: str, where: str) -> str:
    value = table.get(field, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{field} of {where} is not a text.")
    return value


def _tokens(table: Mapping[str, Any], field: str, default: int | None, where: str) -> int:
    value = table.get(field, default)
    if value is None:
        raise ConfigError(f"{field} of {where} is missing.")
    least = 1 if default is None else 0
    if type(value) is not int or not least <= value <= _MAX_TOKENS:
        raise ConfigError(f"{field} of {where} is not a whole number from {least} to {_MAX_TOKENS}.")
    return value


def _seconds(table: Mapping[str, Any], field: str, default: float, where: str) -> float:
    value = table.get(field, default)
    if type(value) not in (int, float) or not 0 < value <= 86_400:
        raise ConfigError(f"{field} of {where} is not a number of seconds above 0.")
    return float(value)


def _url(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"url of {where} is missing.")
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  raises for a port that is none
    except ValueError:
        raise ConfigError(f"url of {where} is not a URL.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url of {where} doesn't begin with http:// or https:// and a host.")
    if parts.username or parts.password:
        raise ConfigError(f"url of {where} holds a user or password: use api_key or api_key_file.")
    if parts.query or parts.fragment:
        raise ConfigError(f"url of {where} goes on after its path: leave out what follows ? or #.")
    return value


def _api_key(table: Mapping[str, Any], where: str) -> str | None:
    if "api_key" in table and "api_key_file" in table:
        raise ConfigError(f"api_key and api_key_file of {where} are both given: keep one.")
    if "api_key_file" in table:
        path = Path(_text(table, "api_key_file", "", where))
        try:
            key = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"api_key_file of {where} can't be read: {path}.") from None
        if not key:
            raise ConfigError(f"api_key_file of {where} is empty: {path}.")
        return key
    return _text(table, "api_key", "", where) if "api_key" in table else None


def _script(directives: object, where: str) -> Script:
    if not isinstance(directives, Mapping):
        raise ConfigError(f"script of {where} is not a table.")
    try:
        return Script().with_directives(directives)
    except ScriptError as reason:
        raise ConfigError(f"script of {where} can't be followed: {reason}") from None
