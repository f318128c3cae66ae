"""Reading embeddings requests."""

import json
from typing import Any

import pytest

from freehold.gateway.admission import bound
from freehold.gateway.problems import RequestTooLarge
from freehold.gateway.settings import DoorSettings
from freehold.gateway.shapes import embeddings
from freehold.problems import InvalidRequest, UnsupportedParameter
from freehold.upstream.model import Kind, Model

MODEL = Model("mini", Kind.EMBEDDING, 256, 0, "vendor/mini-1")


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "mini", "input": "hi", **fields}).encode()


def bounded(given: Any) -> int:
    return bound(embeddings.read(body(input=given)), MODEL, DoorSettings()).input


def test_the_request_goes_upstream_under_the_upstreams_name() -> None:
    ask = embeddings.read(body(encoding_format="base64", dimensions=8))
    assert json.loads(embeddings.upstream_body(ask, MODEL)) == {
        "model": "vendor/mini-1",
        "input": "hi",
        "encoding_format": "base64",
        "dimensions": 8,
    }


def test_every_item_is_bounded_token_arrays_too() -> None:
    assert bounded("abc") < bounded(["abc", "abc"]) < bounded(["abc", "abc", "abc"])
    assert bounded([1, 2, 3]) >= 3
    assert bounded([[1, 2, 3], [4]]) >= 4


def test_items_are_bounded_by_the_context_each() -> None:
    assert bounded(["x" * 3_000] * 3) == 3 * MODEL.context_tokens


@pytest.mark.parametrize("given", ["x" * 10_000, ["short", "x" * 10_000], list(range(300)), [list(range(300))]])
def test_an_item_surely_beyond_the_context_is_too_large(given: Any) -> None:
    with pytest.raises(RequestTooLarge):
        bounded(given)


def test_too_many_items_are_too_large() -> None:
    with pytest.raises(RequestTooLarge):
        embeddings.read(body(input=["x"] * 2_049))


@pytest.mark.parametrize("given", [None, [], {}, 3, [{}], [[]], [None], ["x", 3], [1, "x"]])
def test_an_input_of_the_wrong_shape_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bounded(given)
    assert caught.value.param == "input"


@pytest.mark.parametrize("fields", [{"stream": True}, {"messages": []}, {"service_tier": "flex"}, {"best_of": 2}])
def test_what_embeddings_do_not_take_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        embeddings.read(body(**fields))
    assert caught.value.param in {*fields, None}
