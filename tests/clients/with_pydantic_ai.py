"""pydantic-ai: agents over chat completions, responses and messages."""

import asyncio
import json
import os
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

URL, KEY, NAME = os.environ["URL"], os.environ["KEY"], os.environ["MODEL"]


class City(BaseModel):
    name: str
    people: int


async def tried(model: Any) -> dict[str, Any]:
    plain = await Agent(model).run("hello there")
    async with Agent(model).run_stream("hello there") as streaming:
        streamed = await streaming.get_output()
    agent: Any = Agent(model)
    used: list[str] = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        used.append(city)
        return "sunny"

    told = await agent.run("What is the weather in Paris?")
    async with agent.run_stream("What is the weather in Paris?") as streaming:
        told_in_pieces = await streaming.get_output()
    shaped: Any = Agent(model, output_type=City)
    return {
        "plain": plain.output,
        "stream": streamed,
        "used": used,
        "told": [bool(told.output), bool(told_in_pieces)],
        "usage": plain.usage.output_tokens if not callable(plain.usage) else plain.usage().output_tokens,
        "shaped": type((await shaped.run("A city, please")).output).__name__,
    }


async def main() -> None:
    openai = OpenAIProvider(base_url=URL, api_key=KEY)
    anthropic = AnthropicProvider(base_url=URL.removesuffix("/v1"), api_key=KEY)
    found = {
        "chat": await tried(OpenAIChatModel(NAME, provider=openai)),
        "responses": await tried(OpenAIResponsesModel(NAME, provider=openai)),
        "messages": await tried(AnthropicModel(NAME, provider=anthropic)),
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


asyncio.run(main())
