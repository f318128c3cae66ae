from pathlib import Path

from freehold.gateway.account.admin import NewAccountOut
from freehold.gateway.account.application import describe
from freehold.gateway.account.auth import SessionOut
from freehold.gateway.account.keys import NewKeyOut
from freehold.gateway.account.reference import pages

COMMITTED = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
MAKE = "make it with `python -m freehold.gateway.account.reference`"


def test_the_committed_document_is_current() -> None:
    assert COMMITTED.read_text("utf-8") == pages()[COMMITTED.name], MAKE


def test_every_route_says_what_it_does_and_what_it_refuses() -> None:
    for path, verbs in describe()["paths"].items():
        for verb, operation in verbs.items():
            assert operation["summary"], (verb, path)
            assert operation["tags"], (verb, path)
            if path.startswith(("/v1/account", "/v1/admin")):
                assert {"401", "403"} <= set(operation["responses"]), (verb, path)
                assert operation["security"], (verb, path)
            assert "422" not in operation["responses"], (verb, path)
            if "requestBody" in operation:
                assert {"408", "413"} <= set(operation["responses"]), (verb, path)
            if path != "/healthz":
                assert "503" in operation["responses"], (verb, path)


def test_no_two_routes_have_one_name() -> None:
    names = [operation["operationId"] for verbs in describe()["paths"].values() for operation in verbs.values()]
    assert len(names) == len(set(names))


def test_every_amount_has_its_integer_twin() -> None:
    for name, schema in describe()["components"]["schemas"].items():
        fields = set(schema.get("properties", ()))
        if not name.endswith("Out"):
            continue
        for twin in (field for field in fields if field.endswith("_nano")):
            amount = twin.removesuffix("_nano")
            assert {amount, f"{amount}_usd"} & fields, (name, twin)


def test_no_answer_shows_a_secret_in_its_repr() -> None:
    hiding = [SessionOut.model_fields["token"], NewKeyOut.model_fields["secret"], NewAccountOut.model_fields["secret"]]
    assert not any(field.repr for field in hiding)
