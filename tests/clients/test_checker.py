"""The public checker `llm-comply` passes, whether the upstream speaks each API or chat alone."""

import json

import pytest
from tests.clients.conftest import TALKER, THINKER, Outside

FORMATS = {
    "openai-chat": (TALKER, ()),
    "open-responses": (TALKER, ()),
    "anthropic": (THINKER, ("--auth-header", "x-api-key", "--no-bearer", "-H", "anthropic-version:2023-06-01")),
}

ADVISORY = {"compact-response"}
"""Of an endpoint that the checker itself calls advisory: compaction would keep state, and is 404."""


@pytest.mark.parametrize("form", list(FORMATS))
async def test_llm_comply_passes(outside: Outside, form: str) -> None:
    model, options = FORMATS[form]
    arguments = ("--format", form, "-u", outside.house.url, "-k", outside.customer.token, "-m", model, "--json")
    code, said = await outside.run("llm-comply", *arguments, *options)
    report = json.loads(said[said.index("{") :])
    found = {each["id"]: each for each in report["results"]}
    assert {name: each["errors"] for name, each in found.items() if each["status"] != "passed"} == {}
    assert {name for name, each in found.items() if each.get("warnings")} <= ADVISORY
    assert (code, len(found) >= 8) == (0, True)
    assert await outside.house.held_nano(outside.customer) == 0
