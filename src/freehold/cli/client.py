"""HTTP to a running server: requests with JSON, and streams of server-sent events."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from freehold.cli.refusal import Refusal, ServerRefused, ServerUnreachable

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The body. Raises ServerUnreachable when it isn't JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise ServerUnreachable(
                f"The server's answer (status {self.status}) is not JSON, so it is probably not Freehold; "
                "check the URL with `freehold status --url …`."
            ) from None


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of an event stream: its data, or a comment (a line that begins with a colon)."""

    data: str | None
    comment: str | None


class Client:
    """A server's address and, where a route needs one, a bearer token."""

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refusal(f"{url!r} is not a server's URL; give one such as http://127.0.0.1:8402.")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Refusal("The API key has characters in it that no key has, such as a line end; copy it anew.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.token = token
        self.timeout_s = timeout_s
        self._host = parts.hostname
        self._tls = parts.scheme == "https"
        self._prefix = urlsplit(self.url).path
        try:
            self._port = parts.port
        except ValueError:
            raise Refusal(f"{url!r} has no valid port; give a URL such as http://127.0.0.1:8402.") from None

    def bearing(self, token: str | None) -> "Client":
        """The same server with another token."""
        return Client(self.url, token=token, timeout_s=self.timeout_s)

    def get(self, path: str, **query: object) -> Any:
        return self.call("GET", path, query=query).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: object) -> Any:
        return self.call("POST", path, body=body or {}, query=query).json()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, its answer read whole. Raises ServerUnreachable, and ServerRefused for a status over 399."""
        connection, response = self._send(method, path, body, query, "application/json", headers)
        try:
            reply = Reply(response.status, _headers(response), self._read(response))
        finally:
            connection.close()
        if reply.status >= 400:
            raise _refusal(reply)
        return reply

    def stream(self, path: str, body: Mapping[str, Any]) -> tuple[Mapping[str, str], Iterator[Event]]:
        """POST `body`; the response's headers, and its events as they come. Raises as `call` does."""
        connection, response = self._send("POST", path, body, None, "text/event-stream")
        headers = _headers(response)
        if response.status >= 400 or "text/event-stream" not in headers.get("content-type", ""):
            try:
                reply = Reply(response.status, headers, self._read(response))
            finally:
                connection.close()
            if reply.status >= 400:
                raise _refusal(reply)
            raise ServerUnreachable("The server did not answer with a stream; check the URL with `freehold status`.")
        return headers, self._events(connection, response)

    def _events(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[Event]:
        data: list[str] = []
        try:
            while raw := response.readline():
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if line.startswith(":"):
                    yield Event(None, line[1:].strip())
                elif line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif not line and data:
                    yield Event("\n".join(data), None)
                    data = []
        except (OSError, http.client.HTTPException) as broken:
            raise ServerUnreachable(
                f"The connection to {self.url} broke in the middle of the answer ({_reason(broken)}); "
                "what was delivered is charged: see `freehold usage`."
            ) from None
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as broken:
            raise ServerUnreachable(f"The connection to {self.url} broke ({_reason(broken)}); try again.") from None

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, object] | None,
        accept: str,
        more: Mapping[str, str] | None = None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"accept": accept, "user-agent": "freehold-cli", **(more or {})}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{self._prefix}{path}" + (f"?{urlencode(asked)}" if asked else "")
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self.timeout_s)
        try:
            connection.request(method, target, payload, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as broken:
            connection.close()
            raise self._unreachable(broken) from None

    def _unreachable(self, broken: Exception) -> ServerUnreachable:
        if isinstance(broken, TimeoutError):
            return ServerUnreachable(
                f"{self.url} did not answer within {self.timeout_s:.0f} s; see its log, or try again."
            )
        if isinstance(broken, ssl.SSLError):
            return ServerUnreachable(f"{self.url} doesn't speak TLS as expected ({_reason(broken)}); check the URL.")
        if isinstance(broken, socket.gaierror):
            return ServerUnreachable(f"The host of {self.url} is not known; check the URL.")
        if isinstance(broken, ConnectionRefusedError):
            return ServerUnreachable(f"No server answers at {self.url}; start one with `freehold up`, or give --url.")
        if isinstance(broken, http.client.HTTPException):
            return ServerUnreachable(f"What answers at {self.url} doesn't speak HTTP; check the URL.")
        return ServerUnreachable(f"{self.url} can't be reached ({_reason(broken)}); check the URL and that it runs.")


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _reason(broken: Exception) -> str:
    if isinstance(broken, OSError) and broken.strerror:
        return broken.strerror.lower()
    return str(broken) or type(broken).__name__


def _refusal(reply: Reply) -> ServerRefused:
    error = reply.json()
    error = error.get("error") if isinstance(error, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return ServerRefused(
            reply.status, "unknown", f"The server refused with status {reply.status} and gave no reason; see its log."
        )
    return ServerRefused(reply.status, str(error.get("code") or "unknown"), error["message"], reply.headers)
