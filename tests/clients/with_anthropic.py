"""The anthropic package: messages plain, streamed, with tools and structured output; counting; models; errors."""

import json
import os
import sys
from typing import Any

from anthropic import Anthropic, APIStatusError, BadRequestError

client = Anthropic(base_url=os.environ["URL"].removesuffix("/v1"), api_key=os.environ["KEY"], max_retries=0)
model = os.environ["MODEL"]
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": "d", "input_schema": SCHEMA}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
PICTURE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
HELLO: Any = [{"role": "user", "content": "hello there"}]

said = client.messages.create(model=model, max_tokens=50, messages=HELLO, system="Be kind.")
with client.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
called: Any = client.messages.create(model=model, max_tokens=50, messages=ASK, tools=[TOOL])
(call,) = [block for block in called.content if block.type == "tool_use"]
result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}
turn: Any = [*ASK, {"role": "assistant", "content": called.content}, result]
after = client.messages.create(model=model, max_tokens=50, messages=turn, tools=[TOOL])
with client.messages.stream(model=model, max_tokens=50, messages=ASK, tools=[TOOL]) as stream:
    streamed: Any = stream.get_final_message().content[0]
form: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
shaped: Any = client.messages.create(model=model, max_tokens=50, messages=HELLO, output_config=form).content[0]
thought = client.messages.create(
    model=model, max_tokens=4_000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 2_000}
)
seen = client.messages.create(
    model=model, max_tokens=50, messages=[{"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]}]
)
found: dict[str, Any] = {
    "plain": [said.content[0].text, said.stop_reason],  # type: ignore[union-attr]
    "stream": [text, final.stop_reason, final.usage.input_tokens, final.usage.output_tokens],
    "plain usage": [said.usage.input_tokens, said.usage.output_tokens],
    "call": [called.stop_reason, call.name, call.input],
    "streamed call": [streamed.name, streamed.input],
    "after": after.stop_reason,
    "shaped": json.loads(shaped.text),
    "thought": [block.type for block in thought.content],
    "seen": seen.stop_reason,
    "count": client.messages.count_tokens(model=model, messages=HELLO).input_tokens,
    "models": [each.id for each in client.models.list()],
    "request id": str(said._request_id)[:4],
}
try:
    client.messages.create(model=model, max_tokens=50, messages=HELLO, extra_body={"container": "c"})
except BadRequestError as refused:
    found["refused"] = refused.body["error"]["type"]  # type: ignore[index,call-overload]
try:
    client.messages.create(model=model, max_tokens=100_000_000, messages=HELLO, timeout=60)
except APIStatusError as refused:
    found["poor"] = [refused.status_code, refused.body["error"]["type"]]  # type: ignore[index,call-overload]
sys.stdout.write("\n" + json.dumps(found) + "\n")
