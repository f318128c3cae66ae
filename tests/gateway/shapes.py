"""What the tests of shapes share: a worker whose models speak every shape, or chat alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.gateway.house import Customer, House
from tests.gateway.raw import Response, ask

from freehold.upstream.model import CHAT, SHAPES, Kind, Model, Terms
from freehold.upstream.scripted import Scripted

NATIVE, TRANSLATED = "native", "translated"
PRICE = {
    "input": 1_000_000_000,
    "cached_input": 100_000_000,
    "cache_write": 1_250_000_000,
    "cache_write_1h": 2_000_000_000,
    "output": 4_000_000_000,
    "reasoning": 5_000_000_000,
}
"""nano-USD per million: so many nano-USD a thousandth of a token."""


def scripted() -> Scripted:
    return Scripted(
        terms=Terms(failures=1_000_000),
        models=[
            Model(NATIVE, Kind.CHAT, 8_192, 4_096, NATIVE, image_tokens=1_024, shapes=frozenset(SHAPES)),
            Model(TRANSLATED, Kind.CHAT, 8_192, 4_096, TRANSLATED, image_tokens=1_024, shapes=frozenset({CHAT})),
        ],
    )


@dataclass(frozen=True)
class Spoken:
    """One shape: where it is asked, and how."""

    name: str
    path: str
    limit: str

    def body(self, model: str, text: str = "hello there", /, *, script: Any = None, **fields: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, **fields}
        if script is not None:
            body["metadata"] = {"freehold_script": json.dumps(script)}
        if self.name == "responses":
            body.setdefault("input", text)
        elif self.name == "completions":
            body.setdefault("prompt", text)
        else:
            body.setdefault("messages", [{"role": "user", "content": text}])
        if self.name in ("messages", "completions") and "max_tokens" not in body:
            body["max_tokens"] = 64
        return body

    def said(self, answer: dict[str, Any]) -> str:
        """The text of a plain answer."""
        if self.name == "responses":
            parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
            return "".join(part.get("text", "") for part in parts)
        if self.name == "messages":
            return "".join(block.get("text", "") for block in answer["content"])
        if self.name == "completions":
            return "".join(choice["text"] for choice in answer["choices"])
        return "".join(choice["message"]["content"] or "" for choice in answer["choices"])

    def streamed(self, response: Response) -> str:
        """The text of a stream."""
        found = []
        for event in events(response):
            if event.get("type") == "response.output_text.delta":
                found.append(event["delta"])
            elif event.get("type") == "content_block_delta":
                found.append(event["delta"].get("text", ""))
            for choice in event.get("choices", ()):
                found.append(choice["text"] if "text" in choice else choice["delta"].get("content") or "")
        return "".join(found)

    def ended(self, response: Response) -> bool:
        """Whether the stream says that it is whole."""
        last = response.events()[-1]
        return last == (
            'event: message_stop\ndata: {"type":"message_stop"}' if self.name == "messages" else "data: [DONE]"
        )


RESPONSES = Spoken("responses", "/v1/responses", "max_output_tokens")
MESSAGES = Spoken("messages", "/v1/messages", "max_tokens")
COMPLETIONS = Spoken("completions", "/v1/completions", "max_tokens")
CHATS = Spoken("chat", "/v1/chat/completions", "max_tokens")
ALL: Sequence[Spoken] = (RESPONSES, MESSAGES, COMPLETIONS)


def events(response: Response) -> list[dict[str, Any]]:
    """The JSON of a stream's data, named events' too. An event's name is its type."""
    found = []
    for block in response.events():
        lines = block.split("\n")
        data = next((line.removeprefix("data: ") for line in lines if line.startswith("data: ")), None)
        if data is None or data == "[DONE]":
            continue
        value = json.loads(data)
        name = next((line.removeprefix("event: ") for line in lines if line.startswith("event: ")), None)
        assert name is None or name == value["type"]
        found.append(value)
    return found


async def send(house: House, spoken: Spoken, customer: Customer, body: Any, **headers: str) -> Response:
    return await ask(house.port, spoken.path, body, customer.token, **headers)
