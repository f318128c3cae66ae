"""The pages at GET / and GET /docs, asked as ASGI."""

import base64
import hashlib
import re
from typing import Any

from freehold.console.page import with_pages


async def rest(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"the rest"})


async def get(
    path: str, method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None
) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    app = with_pages(rest, url="http://10.0.0.7:9000/", model="some-model")
    await app({"type": "http", "method": method, "path": path, "headers": headers or []}, None, send)  # type: ignore[arg-type]
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


async def test_the_page_shows_a_curl_for_this_server_and_model() -> None:
    status, headers, body = await get("/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert int(headers["content-length"]) == len(body)
    assert b"curl http://10.0.0.7:9000/v1/chat/completions" in body
    assert b'"model": "some-model"' in body
    assert b'base_url="http://10.0.0.7:9000/v1"' in body
    assert b"{{" not in body


async def test_the_api_page_reads_the_description_from_this_server() -> None:
    status, _, body = await get("/docs")
    assert status == 200
    assert b'fetch("/openapi.json")' in body
    assert b"{{" not in body


async def test_everything_else_goes_to_the_rest() -> None:
    assert (await get("/v1/status"))[0] == 418
    assert (await get("/", "POST"))[0] == 418


async def test_a_page_carries_no_external_asset_and_no_inline_handler() -> None:
    for path in ("/", "/docs"):
        _, _, body = await get(path)
        assert not re.findall(rb'(?:src|href)="(?:https?:)?//', body)
        assert not re.findall(rb"\son\w+=", body)
        assert b"innerHTML" not in body


async def test_the_security_policy_allows_exactly_the_pages_own_script_and_style() -> None:
    for path in ("/", "/docs"):
        _, headers, body = await get(path)
        policy = headers["content-security-policy"]
        for tag in (b"script", b"style"):
            (part,) = re.findall(b"<%s>(.*?)</%s>" % (tag, tag), body, re.DOTALL)
            assert f"'sha256-{base64.b64encode(hashlib.sha256(part).digest()).decode()}'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


async def test_head_has_no_body_and_a_known_page_is_not_sent_again() -> None:
    status, headers, body = await get("/", "HEAD")
    assert (status, body) == (200, b"")
    status, _, body = await get("/", headers=[(b"if-none-match", headers["etag"].encode())])
    assert (status, body) == (304, b"")


async def test_a_model_name_enters_the_page_as_text() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    app = with_pages(rest, url="http://x", model="<script>alert(1)</script>")
    await app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)  # type: ignore[arg-type]
    assert b"<script>alert" not in sent[1]["body"]
