"""Which column is what, in each format that is known; told apart by the names of the columns alone."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from freehold.pricing.model import CACHED, CACHED_AUDIO, INPUTS, OUTPUTS

_CACHED = (CACHED, CACHED_AUDIO)


@dataclass(frozen=True, slots=True)
class Layout:
    """A format: names of columns as `normal` makes them."""

    name: str
    time: str
    signs: frozenset[str] = frozenset()
    """Columns by which it is known."""
    time_scale: float | None = None
    """Seconds of one unit of a numeric time counted from the series' own start; None: told by its size."""
    model: str | None = None
    requests: str | None = None
    row_is_request: bool = False
    rate: str | None = None
    """Requests a second over the window that a row stands for."""
    inputs: tuple[str, ...] = ()
    """Added up."""
    cached: tuple[str, ...] = ()
    cached_within: bool = False
    """True: `inputs` include `cached`."""
    outputs: tuple[str, ...] = ()
    cost: str | None = None
    cost_scale: float = 1.0
    currency: str | None = None
    keep: tuple[str, str] | None = None
    """Only rows with this value in this column are usage."""
    required: tuple[str, ...] = ()
    """Numbers that may not be missing."""
    client_per_file: bool = False
    guessed: bool = False
    """True: no known format, but its columns have telling names."""
    columns: tuple[str, ...] = field(default=())
    """Their names when the file has no line of names."""

    def used(self) -> tuple[str, ...]:
        """Every column that is read."""
        named = (self.time, self.model, self.requests, self.rate, self.cost, self.currency, self.keep and self.keep[0])
        single = tuple(name for name in named if name)
        return tuple(dict.fromkeys((*single, *self.inputs, *self.cached, *self.outputs)))


@lru_cache(maxsize=1_024)
def normal(name: str) -> str:
    """A column's name in lower case, with underscores for spaces and hyphens."""
    return re.sub(r"[\s\-.]+", "_", name.strip().strip("\ufeff").lower())


_UNCACHED = tuple(unit for unit in INPUTS if unit not in _CACHED)

KNOWN: tuple[Layout, ...] = (
    Layout(
        "Freehold usage, by call", "at", frozenset({"at", "request_id", "model", "cost_nano"}), model="model",
        row_is_request=True, inputs=_UNCACHED, cached=_CACHED, outputs=OUTPUTS, cost="cost_nano", cost_scale=1e-9,
        required=("cost_nano",),
    ),
    Layout(
        "Freehold usage, added up", "group", frozenset({"group", "calls", "cost_nano"}), requests="calls",
        inputs=_UNCACHED, cached=_CACHED, outputs=OUTPUTS, cost="cost_nano", cost_scale=1e-9,
        required=("calls", "cost_nano"),
    ),
    Layout(
        "Freehold bill", "day", frozenset({"what", "day", "purse", "amount_nano"}), model="model", requests="calls",
        cost="amount_nano", cost_scale=-1e-9, keep=("what", "charge"), required=("amount_nano",),
    ),
    Layout(
        "Freehold bill", "day", frozenset({"day", "model", "source", "calls", "cost_nano"}), model="model",
        requests="calls", cost="cost_nano", cost_scale=1e-9, required=("cost_nano",),
    ),
    Layout(
        "OpenAI costs", "start_time", frozenset({"start_time", "amount_value"}), model="line_item",
        cost="amount_value", currency="amount_currency", required=("amount_value",),
    ),
    Layout(
        "OpenAI usage", "start_time", frozenset({"start_time", "num_model_requests"}), model="model",
        requests="num_model_requests", inputs=("input_tokens",), cached=("input_cached_tokens",), cached_within=True,
        outputs=("output_tokens",),
    ),
    Layout(
        "LiteLLM spend logs", "starttime", frozenset({"starttime", "spend", "prompt_tokens"}), model="model",
        row_is_request=True, inputs=("prompt_tokens",), outputs=("completion_tokens",), cost="spend",
    ),
    Layout(
        "Azure LLM inference trace", "timestamp", frozenset({"timestamp", "contexttokens", "generatedtokens"}),
        row_is_request=True, inputs=("contexttokens",), outputs=("generatedtokens",),
        required=("contexttokens", "generatedtokens"),
    ),
    Layout(
        "BurstGPT", "timestamp", frozenset({"timestamp", "model", "request_tokens", "response_tokens"}), 1.0,
        model="model", row_is_request=True, inputs=("request_tokens",), outputs=("response_tokens",),
        required=("request_tokens", "response_tokens"),
    ),
    Layout(
        "Mooncake", "timestamp", frozenset({"timestamp", "input_length", "output_length"}), 1e-3, row_is_request=True,
        inputs=("input_length",), outputs=("output_length",), required=("input_length", "output_length"),
    ),
    Layout(
        "ServeGen client series", "t", frozenset({"t", "rate", "cv", "family"}), 1.0, rate="rate", required=("rate",),
        client_per_file=True, columns=("t", "rate", "cv", "family", "p1", "p2"),
    ),
)  # fmt: skip
"""From the most telling to the least."""

SERVEGEN = KNOWN[-1]

_TIMES = (
    "at", "time", "timestamp", "datetime", "date_time", "created_at", "created", "start_time", "starttime", "start",
    "date", "day", "usage_date", "hour", "period", "bucket", "ts", "t",
)  # fmt: skip
_MODELS = ("model", "model_name", "model_id", "model_group", "snapshot_id")
_REQUESTS = ("requests", "calls", "request_count", "num_requests", "n_requests", "num_model_requests", "count")
_INPUTS = (
    "input_tokens", "prompt_tokens", "context_tokens", "contexttokens", "request_tokens", "input_length",
    "n_context_tokens_total", "tokens_in", "input",
)  # fmt: skip
_CACHED_INPUTS = ("input_cached_tokens", "cached_input_tokens", "cached_tokens", "n_cached_context_tokens_total")
_OUTPUTS = (
    "output_tokens", "completion_tokens", "generated_tokens", "generatedtokens", "response_tokens", "output_length",
    "n_generated_tokens_total", "tokens_out", "output",
)  # fmt: skip
_COSTS = ("cost_usd", "usd", "spend_usd", "amount_usd", "cost", "spend", "total_cost", "amount_value", "amount")


def known(names: Collection[str]) -> Layout | None:
    """The format with these columns, or one guessed from telling names; None when there is no time or no amount."""
    for layout in KNOWN:
        if layout.signs <= set(names):
            return layout
    return _guess(names)


def _guess(names: Collection[str]) -> Layout | None:
    def first(of: Sequence[str]) -> str | None:
        return next((name for name in of if name in names), None)

    def these(of: Sequence[str]) -> tuple[str, ...]:
        found = first(of)
        return (found,) if found else ()

    time, cost, requests = first(_TIMES), first(_COSTS), first(_REQUESTS)
    inputs, outputs = these(_INPUTS), these(_OUTPUTS)
    if time is None or not (cost or requests or inputs or outputs):
        return None
    return Layout(
        "table",
        time,
        model=first(_MODELS),
        requests=requests,
        row_is_request=requests is None and cost is None,
        inputs=inputs,
        cached=these(_CACHED_INPUTS) if inputs else (),
        cached_within=True,
        outputs=outputs,
        cost=cost,
        guessed=True,
    )
