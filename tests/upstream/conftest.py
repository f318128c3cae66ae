"""The real embedded models, started once for all tests of this folder."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from freehold.upstream.embedded import EMBEDDED_MODELS
from freehold.upstream.openai_compatible import OpenAICompatible

KEY = "key-of-the-tests"


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def embedded_process() -> Iterator[Running]:
    """The child process, once it says that it's ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold.upstream.embedded"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({"api_key": KEY}).encode())
    process.stdin.close()
    ready = json.loads(process.stdout.readline())
    assert ready["ready"] is True
    yield Running(ready["url"], process)
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
async def embedded(embedded_process: Running) -> AsyncIterator[OpenAICompatible]:
    """The embedded models as the gateway reaches them."""
    upstream = OpenAICompatible("embedded", embedded_process.url, EMBEDDED_MODELS, api_key=KEY)
    yield upstream
    await upstream.close()
