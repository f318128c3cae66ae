"""The CLI's HTTP client, and a streamed chat through it."""

import json
import socket

import pytest

from freehold.cli.chatting import read_bill, read_purses, speak
from freehold.cli.client import Client
from freehold.cli.refusal import Refusal, ServerRefused, ServerUnreachable

from .webserver import answering, response, stream

ASKED = [{"role": "user", "content": "Hello"}]


def frame(**delta: object) -> str:
    return "data: " + json.dumps({"choices": [{"delta": delta}]})


def test_an_answer_is_read_as_json() -> None:
    with answering(response(b'{"ready": true}')) as url:
        assert Client(url).get("/v1/status") == {"ready": True}


def test_a_refusal_of_the_server_keeps_its_own_sentence() -> None:
    body = b'{"error": {"message": "Nothing is left.", "type": "x", "code": "insufficient_credit", "param": null}}'
    with answering(response(body, status="402 Payment Required")) as url, pytest.raises(ServerRefused) as caught:
        Client(url).get("/v1/account/balance")
    assert (caught.value.status, caught.value.code, str(caught.value)) == (
        402,
        "insufficient_credit",
        "Nothing is left.",
    )


@pytest.mark.parametrize("raw", [response(b"<html>"), response(b"\xff\xfe", status="500 Oops")])
def test_an_answer_that_is_no_json_is_told_in_a_sentence(raw: bytes) -> None:
    with answering(raw) as url, pytest.raises(ServerUnreachable, match="not JSON"):
        Client(url).get("/v1/status")


def test_a_refusal_without_a_reason_is_told_in_a_sentence() -> None:
    with answering(response(b"[]", status="500 Oops")) as url, pytest.raises(ServerRefused, match="status 500"):
        Client(url).get("/v1/status")


def test_what_speaks_no_http_is_told_in_a_sentence() -> None:
    with answering(b"220 mail.example ESMTP\r\n") as url, pytest.raises(ServerUnreachable, match="doesn't speak HTTP"):
        Client(url).get("/v1/status")


def test_an_answer_that_breaks_off_is_told_in_a_sentence() -> None:
    with answering(response(b"{", length=10)) as url, pytest.raises(ServerUnreachable, match="broke"):
        Client(url).get("/v1/status")


@pytest.mark.parametrize("key", ["fh_secret\nx", "fh_secr\u00fct", "fh_\u2026secret"])
def test_a_key_that_was_copied_badly_is_told_and_not_repeated(key: str) -> None:
    with pytest.raises(Refusal, match="copy it anew") as caught:
        Client("http://127.0.0.1:1", token=key)
    assert "sec" not in str(caught.value)


def test_a_server_that_is_down_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerUnreachable, match="freehold up"):
        Client(f"http://127.0.0.1:{port}").get("/v1/status")


@pytest.mark.parametrize("url", ["", "localhost:8402", "ftp://x", "http://", "http://x:notaport"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refusal):
        Client(url)


def test_a_url_that_ends_in_v1_means_the_server() -> None:
    assert Client("http://127.0.0.1:8402/v1/").url == "http://127.0.0.1:8402"


def test_a_streamed_chat_gives_its_text_its_usage_and_its_bill() -> None:
    pieces: list[str] = []
    raw = stream(
        frame(role="assistant", content="Good "),
        frame(content="day"),
        'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}',
        'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}',
        ": freehold cost=0.0000015 purse=allowance=0.000001,prepaid=0.0000005",
        "data: [DONE]",
    )
    with answering(raw) as url:
        spoken = speak(Client(url), model="m", messages=ASKED, on_text=pieces.append)
    assert (spoken.text, pieces, spoken.finish_reason) == ("Good day", ["Good ", "day"], "stop")
    assert spoken.usage == {"prompt_tokens": 3, "completion_tokens": 2}
    assert (spoken.cost, spoken.request_id) == ("0.0000015", "req_1")
    assert spoken.paid_by() == "allowance 0.000001 USD + prepaid 0.0000005 USD"


def test_a_stream_that_ends_early_is_no_answer() -> None:
    with answering(stream(frame(content="Go"))) as url, pytest.raises(ServerUnreachable, match="before its end"):
        speak(Client(url), model="m", messages=ASKED)


def test_an_error_frame_in_a_stream_is_the_servers_refusal() -> None:
    raw = stream(frame(content="Go"), 'data: {"error": {"message": "The upstream died.", "code": "upstream_error"}}')
    with answering(raw) as url, pytest.raises(ServerRefused, match="The upstream died"):
        speak(Client(url), model="m", messages=ASKED)


def test_a_frame_that_is_no_json_is_told_in_a_sentence() -> None:
    with answering(stream("data: {oops")) as url, pytest.raises(ServerUnreachable, match="not JSON"):
        speak(Client(url), model="m", messages=ASKED)


def test_a_bill_is_read_from_its_comment_and_other_comments_are_not_bills() -> None:
    assert read_bill("freehold cost=0.01 purse=prepaid=0.01") == ("0.01", {"prepaid": "0.01"})
    assert read_bill("freehold cost=0.00 purse=none") == ("0.00", {})
    assert read_bill("keep-alive") is None
    assert read_purses("") == {}
