"""JSON-RPC over HTTP. No part of a node's URL but its scheme, host and port gets into an error.

Providers put keys into user names, paths and queries, so the rest of the URL is a secret.
"""

import json
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp

from freehold.chain.problems import NodeUnavailable, RpcError

BATCH = 100
"""Calls in one HTTP request; common providers take no more."""

_HEX = re.compile(r"0x[0-9a-fA-F]*")


def shown(url: str) -> str:
    """The part of a node's URL that may be shown."""
    parts = urlsplit(url)
    host = parts.hostname or "unknown host"
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


class Rpc:
    """A client of one node. Opens its connections at the first call; `close` it."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._secrets = _secrets(url)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(timeout_s, 5.0))
        self._session: aiohttp.ClientSession | None = None
        self._id = 0
        self.timeout_s = timeout_s
        self.node = shown(url)

    def __repr__(self) -> str:
        return f"Rpc({self.node})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, *params: Any) -> Any:
        """One call's result. Raises RpcError for the node's answer, NodeUnavailable when there is none."""
        question = self._question(method, params)
        return self._result(method, await self._post(question))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of many calls, in order. Raises the first RpcError, or NodeUnavailable."""
        results: list[Any] = []
        for start in range(0, len(calls), BATCH):
            part = calls[start : start + BATCH]
            questions = [self._question(method, params) for method, params in part]
            answers = await self._post(questions)
            if isinstance(answers, dict):
                self._result("a batch", answers)
            if not isinstance(answers, list):
                raise self._unavailable("it doesn't answer batches of calls")
            by_id = {answer["id"]: answer for answer in answers if isinstance(answer, dict) and "id" in answer}
            for (method, _), question in zip(part, questions, strict=True):
                results.append(self._result(method, by_id.get(question["id"])))
        return results

    def _question(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        self._id += 1
        return {"jsonrpc": "2.0", "id": self._id, "method": method, "params": list(params)}

    async def _post(self, body: Any) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                raw = await response.read()
                status = response.status
        except aiohttp.ConnectionTimeoutError:
            raise self._unavailable("no connection in time") from None
        except TimeoutError:
            problem = self._unavailable(f"no answer within {self.timeout_s:g} s")
            problem.timed_out = True
            raise problem from None
        except aiohttp.InvalidURL:
            raise self._unavailable("its URL is not a valid one") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(_why(error)) from None
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if status >= 300 and not (isinstance(answer, dict) and "error" in answer):
            raise self._unavailable(f"HTTP status {status}")
        if status == 429:
            raise self._unavailable("it limits the rate of calls (HTTP status 429)")
        if answer is None:
            raise self._unavailable("its answer is not JSON")
        return answer

    def _result(self, method: str, answer: Any) -> Any:
        if not isinstance(answer, dict):
            raise self._unavailable(f"its answer to {method} is missing or not an object")
        error = answer.get("error")
        if error is not None:
            raise self._error(method, error)
        if "result" not in answer:
            raise self._unavailable(f"its answer to {method} has neither result nor error")
        return answer["result"]

    def _error(self, method: str, error: Any) -> RpcError:
        if not isinstance(error, dict):
            return RpcError(method=method, number=0, reason=self._clean(str(error)))
        number = error.get("code", 0)
        return RpcError(
            method=method,
            number=number if isinstance(number, int) else 0,
            reason=self._clean(str(error.get("message", "no message"))),
            data=_revert_data(error.get("data")),
        )

    def _unavailable(self, reason: str) -> NodeUnavailable:
        return NodeUnavailable(node=self.node, reason=self._clean(reason), retry_after_s=5)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _secrets(url: str) -> tuple[str, ...]:
    """Every part of the URL that must not be shown, longest first."""
    parts = urlsplit(url)
    pieces = {parts.username or "", parts.password or "", parts.path.strip("/"), parts.query}
    pieces |= set(parts.path.split("/")) | {value for _, value in parse_qsl(parts.query)}
    pieces |= {unquote(piece) for piece in pieces}
    return (url, *sorted((piece for piece in pieces if len(piece) > 5), key=len, reverse=True))


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid"
    if isinstance(error, aiohttp.ClientSSLError):
        return "it doesn't speak TLS as it should"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or 'refused'})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return type(error).__name__


def _revert_data(data: Any) -> bytes | None:
    """Revert data in the shapes that nodes give it: a hex string, `{"data": …}`, or `Reverted 0x…`."""
    if isinstance(data, dict):
        data = data.get("data", data.get("result"))
    if not isinstance(data, str):
        return None
    found = _HEX.search(data)
    if not found or len(found.group()) % 2:
        return None
    return bytes.fromhex(found.group()[2:])
