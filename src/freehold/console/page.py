"""`GET /` as an ASGI app: one static page, with a content security policy made from its own parts."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


class Page:
    """The landing page. Answers GET and HEAD of any path that is routed to it."""

    def __init__(self) -> None:
        self.body = files("freehold.console").joinpath("page.html").read_bytes()
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


def _policy(body: bytes) -> str:
    """Only this page's own script and style run, and it talks only to its own origin."""
    return (
        f"default-src 'none'; script-src {_hashes(_SCRIPT, body)}; style-src {_hashes(_STYLE, body)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(part: re.Pattern[bytes], body: bytes) -> str:
    digests = (base64.b64encode(hashlib.sha256(found).digest()).decode() for found in part.findall(body))
    return " ".join(f"'sha256-{digest}'" for digest in digests)
