"""One JSON object a line, with fields that only the code's own text makes."""

import json
import logging
from typing import Any

from freehold.app.logs import JsonLines


def line(text: str, *args: Any, exc_info: Any = None) -> dict[str, Any]:
    record = logging.LogRecord("freehold.gateway", logging.WARNING, __file__, 1, text, args, exc_info)
    written = JsonLines().format(record)
    assert "\n" not in written
    read: dict[str, Any] = json.loads(written)
    return read


def test_named_arguments_are_fields() -> None:
    read = line("call request_id=%s account=%d took %s at 5%% cost_nano=%d", "req_1", 7, "long", 12)
    assert (read["request_id"], read["account"], read["cost_nano"]) == ("req_1", 7, 12)
    assert read["message"] == "call request_id=req_1 account=7 took long at 5% cost_nano=12"
    assert (read["level"], read["logger"]) == ("warning", "freehold.gateway")
    assert read["time"].endswith("Z")


def test_what_a_client_sends_makes_no_field() -> None:
    read = line("lost path=%s: %s", '/v1/x" account=9\n{"level":"info"}', "request_id=req_forged")
    assert "account" not in read and "request_id" not in read
    assert read["level"] == "warning"


def test_a_fault_has_its_trace_on_the_same_line() -> None:
    try:
        raise ValueError("odd")
    except ValueError as fault:
        read = line("failed request_id=%s", "req_2", exc_info=(type(fault), fault, fault.__traceback__))
    assert "ValueError: odd" in read["trace"]
    assert read["request_id"] == "req_2"
