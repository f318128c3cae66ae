"""The openai package: chat, completions, responses and embeddings, plain, streamed, with tools and structured output."""

import json
import os
import sys
from typing import Any

from openai import BadRequestError, OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=os.environ["URL"], api_key=os.environ["KEY"], max_retries=0)
model = os.environ["MODEL"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": SCHEMA}}


class City(BaseModel):
    name: str
    people: int


def chats() -> dict[str, Any]:
    said = client.chat.completions.create(model=model, messages=ASK, max_tokens=50)
    with client.chat.completions.stream(model=model, messages=ASK) as stream:
        text = stream.get_final_completion().choices[0].message.content
    called = client.chat.completions.create(model=model, messages=ASK, tools=[TOOL]).choices[0]
    call: Any = called.message.tool_calls[0] if called.message.tool_calls else None
    turn: Any = [*ASK, called.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    after = client.chat.completions.create(model=model, messages=turn, tools=[TOOL]).choices[0]
    parsed = client.chat.completions.parse(model=model, messages=ASK, response_format=City).choices[0].message.parsed
    return {
        "plain": said.choices[0].message.content,
        "stream": text,
        "call": [called.finish_reason, call.function.name, json.loads(call.function.arguments)],
        "after": after.finish_reason,
        "parsed": type(parsed).__name__,
        "usage": said.usage.total_tokens if said.usage else None,
    }


def responses() -> dict[str, Any]:
    tool: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
    said = client.responses.create(model=model, input="hello there", instructions="Be kind.")
    with client.responses.stream(model=model, input="hello there") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    called: Any = client.responses.create(model=model, input=ASK, tools=[tool])
    (call,) = [item for item in called.output if item.type == "function_call"]
    turn: Any = [*ASK, call, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    after = client.responses.create(model=model, input=turn, tools=[tool])
    with client.responses.stream(model=model, input=ASK, tools=[tool]) as stream:
        streamed: Any = stream.get_final_response().output[0]
    parsed = client.responses.parse(model=model, input=ASK, text_format=City).output_parsed
    thought = client.responses.create(model=model, input="hi", reasoning={"effort": "low", "summary": "auto"})
    return {
        "plain": said.output_text,
        "stream": final.output_text,
        "first and last": [kinds[0], kinds[-1]],
        "call": [call.name, json.loads(call.arguments)],
        "streamed call": [streamed.name, json.loads(streamed.arguments)],
        "after": after.output_text.startswith("You said"),
        "parsed": type(parsed).__name__,
        "thought": [item.type for item in thought.output],
        "reasoning": thought.usage.output_tokens_details.reasoning_tokens if thought.usage else None,
        "cut": client.responses.create(model=model, input="a b c d", max_output_tokens=2).incomplete_details.reason,  # type: ignore[union-attr]
    }


def completions() -> dict[str, Any]:
    said = client.completions.create(model=model, prompt="once upon", echo=True, n=2, logprobs=1) if NATIVE else (
        client.completions.create(model=model, prompt="once upon", echo=True, n=2))  # fmt: skip
    stream = client.completions.create(model=model, prompt="once upon", stream=True)
    return {
        "plain": [choice.text for choice in said.choices],
        "stream": "".join(chunk.choices[0].text for chunk in stream if chunk.choices),
    }


def refusals() -> dict[str, Any]:
    try:
        client.responses.create(model=model, input="x", previous_response_id="resp_1")
    except BadRequestError as refused:
        return {"code": refused.code, "param": refused.param}
    return {}


NATIVE = os.environ["NATIVE"] == "1"
found = {"chat": chats(), "responses": responses(), "completions": completions(), "refused": refusals()}
found["models"] = {"ids": [each.id for each in client.models.list()]}
sys.stdout.write("\n" + json.dumps(found) + "\n")
