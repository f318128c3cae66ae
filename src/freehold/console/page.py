"""`GET /` and `GET /docs` as an ASGI app before the rest: static pages whose security policy is made from their own parts."""

import base64
import hashlib
import html
import re
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


class Page:
    """One page. `facts` fill its `{{names}}`, as text."""

    def __init__(self, filename: str, **facts: str) -> None:
        text = files("freehold.console").joinpath(filename).read_text("utf-8")
        for name, value in facts.items():
            text = text.replace("{{" + name + "}}", html.escape(value))
        self.body = text.encode()
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'
        self.headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"etag", self.etag.encode()),
            (b"content-security-policy", _policy(self.body).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if self.etag in (tag.strip() for tag in asked.split(",")):
            await send({"type": "http.response.start", "status": 304, "headers": self.headers})
            await send({"type": "http.response.body", "body": b""})
            return
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


def with_pages(rest: App, *, url: str, model: str) -> App:
    """`rest`, with the pages before it. `url` is the server's public one, `model` the one that the snippets call."""
    pages = {"/": Page("page.html", url=url.rstrip("/"), model=model), "/docs": Page("docs.html", url=url.rstrip("/"))}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        page = pages.get(scope["path"]) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        await (page or rest)(scope, receive, send)

    return application


def _policy(body: bytes) -> str:
    """Only this page's own script and style run, and it talks only to its own origin."""
    return (
        f"default-src 'none'; script-src {_hashes(_SCRIPT, body)}; style-src {_hashes(_STYLE, body)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(part: re.Pattern[bytes], body: bytes) -> str:
    digests = (base64.b64encode(hashlib.sha256(found).digest()).decode() for found in part.findall(body))
    return " ".join(f"'sha256-{digest}'" for digest in digests)
