"""Any OpenAI-compatible server, over HTTP: vLLM, llama.cpp, a cloud API, the embedded model.

What is reached without TLS and without a proxy, such as a model server beside the gateway, is spoken to on the event
loop itself (wire.py); all else through pyreqwest.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError, RequestTimeoutError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from freehold.upstream.model import (
    Answer,
    Model,
    Terms,
    UpstreamBroke,
    UpstreamCall,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from freehold.upstream.wire import Wire

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 120.0

MESSAGES = "messages"
"""The path of Anthropic's API, which has a version and takes the key under another name, too."""
ANTHROPIC_VERSION = "2023-06-01"

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_HEADERS = {
    "user-agent": "freehold",
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "content-type": "application/json",
}

_NOT_CONNECTED = "client error (Connect)"
"""The cause that says so. The exception's class can't be asked: pyreqwest 0.15 also raises ConnectError and
ConnectTimeoutError when the peer took the request and then fell silent or closed, which may have run it."""

_REASONS = {
    "refused": "connection refused",
    "deadline": "the connection timed out",
    "timed out": "the connection timed out",
    "dns": "its host name doesn't resolve",
    "certificate": "its TLS certificate isn't accepted",
    "tls": "it doesn't speak TLS",
}


class OpenAICompatible:
    """An upstream reached at `base_url`, such as `http://127.0.0.1:8000/v1`. Connections are kept.

    `read_timeout_s` is the longest silence: before the response's headers, and between two pieces of its body.
    Redirects are not followed, so that the key goes to no other host; no error's text holds the key or the address.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        models: Iterable[Model],
        *,
        api_key: str | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        terms: Terms | None = None,
        direct: bool | None = None,
    ) -> None:
        """`direct`: whether on the event loop itself; None: wherever neither TLS nor a proxy is needed."""
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError(f"The API key of upstream {name} has characters that no HTTP header takes.")
        self.name = name
        self.models: Mapping[str, Model] = {model.id: model for model in models}
        self.terms = terms or Terms()
        self.base_url = base_url.rstrip("/")
        headers = _HEADERS if api_key is None else {**_HEADERS, "authorization": f"Bearer {api_key}"}
        key = {} if api_key is None else {"x-api-key": api_key}
        self._of_messages = {"anthropic-version": ANTHROPIC_VERSION, **key}
        within = {"connect_timeout_s": connect_timeout_s, "read_timeout_s": read_timeout_s}
        self._way: _Direct | _Library = (
            _Direct(name, self.base_url, headers, **within)
            if (is_direct(base_url) if direct is None else direct)
            else _Library(name, self.base_url, headers, **within)
        )

    async def send(self, call: UpstreamCall) -> Answer:
        """Send, and wait for the headers; a status above 399 is an answer too.

        Raises UpstreamUnreachable when there was no connection, UpstreamTimedOut when the headers did not come in
        time, UpstreamBroke when the connection ended before them.
        """
        return await self._way.send(call, self._of_messages if call.path.startswith(MESSAGES) else {})

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        await self._way.close()


class _Direct:
    """Over connections of our own."""

    def __init__(
        self, name: str, base_url: str, headers: Mapping[str, str], *, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        self._wire = Wire(
            name, host, parts.port or 80, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
        )
        fixed = {"host": parts.netloc, **headers}
        self._path = parts.path
        self._head = "".join(f"{key}: {value}\r\n" for key, value in fixed.items())

    async def send(self, call: UpstreamCall, more: Mapping[str, str]) -> Answer:
        own = "".join(f"{name}: {value}\r\n" for name, value in more.items()) if more else ""
        head = (
            f"POST {self._path}/{call.path} HTTP/1.1\r\n{self._head}{own}x-request-id: {call.request_id}\r\n"
            f"content-length: {len(call.body)}\r\n\r\n"
        )
        return await self._wire.ask(head.encode("latin-1") + call.body)

    async def close(self) -> None:
        self._wire.close()


class _Library:
    """Through pyreqwest: with TLS, HTTP/2 and proxies."""

    def __init__(
        self, name: str, base_url: str, headers: Mapping[str, str], *, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        self.name = name
        self._base_url = base_url
        self._headers = dict(headers)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._client: Client | None = None  # its threads start with the first call

    async def send(self, call: UpstreamCall, more: Mapping[str, str]) -> "HttpAnswer":
        if self._client is None:
            self._client = self._build()
        request = (
            self._client.post(f"{self._base_url}/{call.path}")
            .headers({**more, "x-request-id": call.request_id})
            .body_bytes(call.body)
            .streamed_read_buffer_limit(0)  # the default holds a stream's first second back
            .build_streamed()
        )
        try:
            response = await request.__aenter__()
        except PyreqwestError as failure:
            raise self.failed(failure, answered=False) from None
        return HttpAnswer(self, request, response)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def failed(self, failure: PyreqwestError, *, answered: bool) -> UpstreamError:
        """What a transport failure means for the call. `answered`: the response's headers had come."""
        causes = _causes(failure)
        if _NOT_CONNECTED in causes:
            return UpstreamUnreachable(
                f"Upstream {self.name} can't be reached: {_reason(causes)}.", before_first_byte=True
            )
        if isinstance(failure, RequestTimeoutError):
            silence = f"nothing came for {self._read_timeout_s:g} s"
            return UpstreamTimedOut(f"Upstream {self.name} timed out: {silence}.", before_first_byte=not answered)
        where = "in the middle of its answer" if answered else "before it answered"
        return UpstreamBroke(f"Upstream {self.name} closed the connection {where}.", before_first_byte=not answered)

    def _build(self) -> Client:
        builder = (
            ClientBuilder()
            .default_headers(self._headers)
            .follow_redirects(False)
            .connect_timeout(timedelta(seconds=self._connect_timeout_s))
            .read_timeout(timedelta(seconds=self._read_timeout_s))
        )
        if urlsplit(self._base_url).hostname in _LOOPBACK:
            builder = builder.no_proxy()
        return builder.build()


class HttpAnswer:
    """A response whose headers have come."""

    def __init__(self, upstream: _Library, request: StreamRequest, response: Response) -> None:
        self.status = response.status
        self.content_type = response.get_header("content-type") or ""
        self.retry_after_s = _seconds(response.get_header("retry-after"))
        self._upstream = upstream
        self._request = request
        self._reader = response.body_reader
        self._open = True

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body; the connection is free again. Raises UpstreamBroke, also above `limit_bytes`, UpstreamTimedOut."""
        body = bytearray()
        try:
            async for chunk in self.chunks():
                body += chunk
                if len(body) > limit_bytes:
                    raise UpstreamBroke(
                        f"Upstream {self._upstream.name} sent more than {limit_bytes} bytes.", before_first_byte=False
                    )
        finally:
            await self.close()
        return bytes(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes off the wire. Raises UpstreamBroke, UpstreamTimedOut."""
        while self._open:
            try:
                chunk = await self._reader.read_chunk()
            except PyreqwestError as failure:
                raise self._upstream.failed(failure, answered=True) from None
            if chunk is None:
                return
            yield chunk.to_bytes()

    async def close(self) -> None:
        """Free the connection; one that still has body to come is closed. Safe to call twice."""
        if self._open:
            self._open = False
            await self._request.__aexit__(None, None, None)


def is_direct(base_url: str) -> bool:
    """Neither TLS nor a proxy nor a password is needed to get there."""
    parts = urlsplit(base_url)
    if parts.scheme != "http" or parts.username is not None or not parts.hostname or parts.query:
        return False
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        return False  # it would have to be escaped
    if parts.hostname in _LOOPBACK:
        return True
    proxies = getproxies()
    return not ({"http", "all"} & proxies.keys()) or bool(proxy_bypass(parts.hostname))


def _causes(failure: PyreqwestError) -> list[str]:
    causes = failure.details["causes"] if isinstance(failure, DetailedPyreqwestError) else None
    return [cause["message"] for cause in causes or []]


def _reason(causes: list[str]) -> str:
    """A word on the cause, from a closed list: what the transport says holds the address."""
    said = " ".join(causes[1:]).lower()
    for sign, reason in _REASONS.items():
        if sign in said:
            return reason
    return "no connection"


def _seconds(retry_after: str | None) -> int | None:
    return int(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None
