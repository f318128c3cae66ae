"""Model ids lead to a model and an upstream, or to near names."""

import pytest

from freehold.problems import error_body
from freehold.upstream.catalogue import Catalogue, ModelNotFound
from freehold.upstream.model import Kind, Model
from freehold.upstream.scripted import Scripted


def model(model_id: str, upstream_id: str = "x") -> Model:
    return Model(model_id, Kind.CHAT, 100, 100, upstream_id)


def test_a_model_is_found_with_its_upstream() -> None:
    one, two = Scripted("one", [model("a"), model("b")]), Scripted("two", [model("c")])
    catalogue = Catalogue([one, two])
    assert catalogue.find("c") == (model("c"), two)
    assert [found.id for found in catalogue.models()] == ["a", "b", "c"]


def test_of_two_upstreams_with_one_model_the_first_is_asked_and_both_are_known() -> None:
    one, two = Scripted("one", [model("a", "first")]), Scripted("two", [model("a", "second")])
    catalogue = Catalogue([one, two])
    assert catalogue.find("a") == (model("a", "first"), one)
    assert [route.upstream.name for route in catalogue.serving("a").routes] == ["one", "two"]
    assert len(catalogue.models()) == 1


def test_an_unknown_model_is_refused_with_near_names() -> None:
    catalogue = Catalogue([Scripted("one", [model("llama-3.3-70b"), model("qwen3-32b")])])
    with pytest.raises(ModelNotFound, match=r"no model Llama-3\.3-7b here\. Near names: llama-3\.3-70b\.") as refusal:
        catalogue.find("Llama-3.3-7b")
    assert refusal.value.status == 404
    assert error_body(refusal.value)["error"]["code"] == "model_not_found"
    assert error_body(refusal.value)["error"]["param"] == "model"


def test_with_nothing_near_the_models_are_listed() -> None:
    with pytest.raises(ModelNotFound, match=r"Models here: qwen3-32b\."):
        Catalogue([Scripted("one", [model("qwen3-32b")])]).find("zzz")


def test_without_upstreams_the_refusal_says_so() -> None:
    with pytest.raises(ModelNotFound, match="No upstream is configured"):
        Catalogue([]).find("a")


def test_a_name_with_braces_is_shown_as_it_is() -> None:
    with pytest.raises(ModelNotFound, match=r"no model \{near\} here"):
        Catalogue([]).find("{near}")
