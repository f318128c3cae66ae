"""langchain-openai, over chat completions and over responses."""

import json
import os
import sys
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    people: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def tried(responses: bool) -> dict[str, Any]:
    chat: Any = ChatOpenAI(
        base_url=os.environ["URL"], api_key=os.environ["KEY"], model=os.environ["MODEL"], max_retries=0,
        use_responses_api=responses, stream_usage=True,
    )  # fmt: skip
    said = chat.invoke("hello there")
    streamed = list(chat.stream("hello there"))
    whole = streamed[0]
    for chunk in streamed[1:]:
        whole = whole + chunk
    ask = HumanMessage("What is the weather in Paris?")
    armed = chat.bind_tools([get_weather])
    called = armed.invoke([ask])
    (call,) = called.tool_calls
    after = armed.invoke([ask, called, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])])
    return {
        "plain": said.text,
        "stream": whole.text,
        "usage": [said.usage_metadata["total_tokens"], whole.usage_metadata["total_tokens"]],
        "call": [call["name"], call["args"]],
        "after": [after.tool_calls, bool(after.text)],
        "shaped": type(chat.with_structured_output(City).invoke("A city, please")).__name__,
    }


sys.stdout.write("\n" + json.dumps({"chat": tried(False), "responses": tried(True)}) + "\n")
