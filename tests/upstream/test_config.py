"""The operator's tables become upstreams; every fault is one sentence that names upstream and field."""

from pathlib import Path
from typing import Any

import pytest

from freehold.upstream.config import ConfigError, read_upstreams
from freehold.upstream.model import Kind, Model, Terms
from freehold.upstream.openai_compatible import OpenAICompatible
from freehold.upstream.scripted import Scripted

MODEL = {"id": "m", "context_tokens": 100, "max_output_tokens": 50}
TABLE = {"name": "up", "url": "http://127.0.0.1:8000/v1", "models": [MODEL]}


def test_a_table_becomes_an_upstream_with_its_models() -> None:
    embedder = {"id": "e", "kind": "embedding", "context_tokens": 512, "upstream_id": "real/e"}
    thinker = {**MODEL, "hidden_output": True, "image_tokens": 1_600, "owned_by": "somebody"}
    (upstream,) = read_upstreams([{**TABLE, "models": [thinker, embedder], "read_timeout_s": 9}])
    assert isinstance(upstream, OpenAICompatible)
    assert upstream.models == {
        "m": Model("m", Kind.CHAT, 100, 50, "m", hidden_output=True, owned_by="somebody", image_tokens=1_600),
        "e": Model("e", Kind.EMBEDDING, 512, 0, "real/e"),
    }


def test_scripted_and_embedded_upstreams_bring_their_models() -> None:
    scripted, embedded = read_upstreams(
        [
            {"name": "s", "kind": "scripted", "script": {"chunks": ["x"]}},
            {"name": "e", "kind": "embedded", "url": "http://127.0.0.1:1/v1", "api_key": "k"},
        ]
    )
    assert isinstance(scripted, Scripted)
    assert scripted.script.chunks == ("x",)
    assert set(embedded.models) == {"smollm2-135m", "minilm-l6"}


def test_a_key_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret\n")
    assert len(read_upstreams([{**TABLE, "api_key_file": str(path)}])) == 1
    path.write_text(" \n")
    with pytest.raises(ConfigError, match="api_key_file of upstream up is empty"):
        read_upstreams([{**TABLE, "api_key_file": str(path)}])
    with pytest.raises(ConfigError, match="api_key_file of upstream up can't be read"):
        read_upstreams([{**TABLE, "api_key_file": str(tmp_path / "none")}])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": ""}, "number 1 needs a name"),
        ({"name": 5}, "number 1 needs a name"),
        ({"kind": "magic"}, "kind of upstream up is 'magic'"),
        ({"base_url": "x"}, "base_url of upstream up is not a field"),
        ({"api_keys": "x"}, "did you mean api_key"),
        ({"url": None}, "url of upstream up is missing"),
        ({"url": "ftp://host/"}, "url of upstream up doesn't begin with http"),
        ({"url": "http://"}, "url of upstream up doesn't begin with http"),
        ({"url": "http://host:99999999/v1"}, "url of upstream up is not a URL"),
        ({"url": "https://user:pass@host/v1"}, "holds a user or password"),
        ({"url": "https://host/v1?key=1"}, "goes on after its path"),
        ({"api_key": ""}, "api_key of upstream up is not a text"),
        ({"api_key": 5}, "api_key of upstream up is not a text"),
        ({"api_key": "a", "api_key_file": "b"}, "both given"),
        ({"api_key": "two\nlines"}, "characters that no HTTP header takes"),
        ({"read_timeout_s": 0}, "read_timeout_s of upstream up"),
        ({"connect_timeout_s": "5"}, "connect_timeout_s of upstream up"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s of upstream up"),
        ({"script": {}}, "script of upstream up doesn't go with kind 'openai'"),
        ({"models": []}, "models of upstream up is not a list"),
        ({"models": "m"}, "models of upstream up is not a list"),
        ({"models": [5]}, "A model of upstream up is not a table"),
        ({"models": [MODEL, MODEL]}, "names m twice"),
    ],
)
def test_a_fault_of_an_upstream_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_upstreams([{**TABLE, **change}])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": ""}, "needs an id"),
        ({"id": "a\nb"}, "needs an id"),
        ({"contxt_tokens": 5}, "contxt_tokens of model m of upstream up is not a field: did you mean context_tokens"),
        ({"kind": "video"}, "kind of model m of upstream up is 'video'"),
        ({"context_tokens": None}, "context_tokens of model m of upstream up is missing"),
        ({"context_tokens": 0}, "context_tokens of model m"),
        ({"context_tokens": 1.5}, "context_tokens of model m"),
        ({"context_tokens": True}, "context_tokens of model m"),
        ({"max_output_tokens": 101}, "max_output_tokens of model m of upstream up is not between 1 and"),
        ({"hidden_output": "yes"}, "hidden_output of model m of upstream up is not true or false"),
        ({"upstream_id": ""}, "upstream_id of model m"),
        ({"image_tokens": -1}, "image_tokens of model m"),
    ],
)
def test_a_fault_of_a_model_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_upstreams([{**TABLE, "models": [{**MODEL, **change}]}])


def test_two_upstreams_with_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="Two upstreams have the name up"):
        read_upstreams([TABLE, TABLE])


@pytest.mark.parametrize("tables", ["x", {"name": "up"}, 5, None])
def test_what_is_no_list_of_tables_is_refused(tables: Any) -> None:
    with pytest.raises(ConfigError, match="not a list of tables"):
        read_upstreams(tables)


def test_a_script_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ConfigError, match="script of upstream s can't be followed: dance is not a directive"):
        read_upstreams([{"name": "s", "kind": "scripted", "script": {"dance": True}}])


def test_no_fault_shows_a_key() -> None:
    with pytest.raises(ConfigError) as fault:
        read_upstreams([{**TABLE, "api_key": "sk-very-secret\n"}])
    assert "sk-very-secret" not in str(fault.value)


def test_terms_say_when_an_upstream_is_used() -> None:
    terms = {"priority": 1, "weight": 3, "max_concurrency": 8, "circuit_failures": 2, "circuit_open_s": 1.5}
    (upstream,) = read_upstreams([{**TABLE, **terms}])
    assert upstream.terms == Terms(priority=1, weight=3, max_concurrency=8, failures=2, open_s=1.5)
    assert read_upstreams([TABLE])[0].terms == Terms()


def test_what_an_upstream_costs_is_read_exactly_and_a_model_may_say_otherwise() -> None:
    dear = {**MODEL, "id": "dear", "input_cost_usd_per_million": "2.5"}
    costs = {"input_cost_usd_per_million": 0.15, "output_cost_usd_per_million": "0.6"}
    (upstream,) = read_upstreams([{**TABLE, **costs, "models": [MODEL, dear]}])
    assert (upstream.models["m"].input_cost_nano, upstream.models["m"].output_cost_nano) == (150_000_000, 600_000_000)
    assert upstream.models["dear"].input_cost_nano == 2_500_000_000
    assert upstream.models["dear"].cost_nano_up(input_tokens=1, output_tokens=1) == 3_100


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"priority": -1}, "priority of upstream up is not a whole number from 0 to 1,000"),
        ({"weight": 0}, "weight of upstream up"),
        ({"max_concurrency": None}, "max_concurrency of upstream up"),
        ({"circuit_failures": 0}, "circuit_failures of upstream up"),
        ({"circuit_open_s": 0}, "circuit_open_s of upstream up"),
        (
            {"input_cost_usd_per_million": "a lot"},
            "input_cost_usd_per_million of model m of upstream up is not an amount",
        ),
        ({"output_cost_usd_per_million": -1}, "output_cost_usd_per_million of model m of upstream up is not an amount"),
    ],
)
def test_terms_that_can_not_be_kept_are_refused(fault: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_upstreams([{**TABLE, **fault}])


def test_a_model_is_of_one_kind_at_all_its_upstreams() -> None:
    other = {**TABLE, "name": "other", "models": [{"id": "m", "kind": "embedding", "context_tokens": 9}]}
    with pytest.raises(ConfigError, match="Model m is chat at upstream up and embedding at other"):
        read_upstreams([TABLE, other])
