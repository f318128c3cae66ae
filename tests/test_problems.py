import pytest

from freehold.problems import Conflict, Forbidden, InvalidRequest, LedgerUnavailable, NotFound, Problem, error_body


class TooDear(Problem):
    """This costs {needed}, and {left}
    is left."""

    status = 402
    code = "too_dear"
    retry = False


def test_the_docstring_with_its_facts_is_the_message() -> None:
    problem = TooDear(needed="2.00", left="1.00")
    assert problem.message == str(problem) == "This costs 2.00, and 1.00 is left."
    assert problem.facts == {"needed": "2.00", "left": "1.00"}


def test_a_fact_that_is_missing_is_an_error_where_it_is_raised() -> None:
    with pytest.raises(KeyError):
        TooDear(needed="2.00")


def test_a_facts_braces_are_not_read_as_a_template() -> None:
    assert InvalidRequest(reason="{needed}").message == "{needed}"


def test_the_body_is_openais() -> None:
    assert error_body(InvalidRequest(param="model", reason="No.")) == {
        "error": {"message": "No.", "type": "invalid_request_error", "code": "invalid_request", "param": "model"}
    }


def test_headers_tell_when_and_whether_to_try_again() -> None:
    assert TooDear(needed=1, left=0).headers() == {"x-should-retry": "false"}
    assert LedgerUnavailable(reason="x", retry_after_s=0).headers() == {"retry-after": "1"}
    assert NotFound(reason="x").headers() == {}


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (InvalidRequest, 400, "invalid_request"),
        (NotFound, 404, "not_found"),
        (Conflict, 409, "conflict"),
        (Forbidden, 403, "forbidden"),
        (LedgerUnavailable, 503, "ledger_unavailable"),
    ],
)
def test_each_refusal_has_a_status_and_a_code(problem: type[Problem], status: int, code: str) -> None:
    assert (problem.status, problem.code) == (status, code)
