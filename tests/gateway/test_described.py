"""The inference routes keep to what the OpenAPI document says of them, whatever is generated from it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from tests.gateway.house import House, prepare, worker
from tests.gateway.shapes import NATIVE, TRANSLATED, scripted

from freehold.db import Database
from freehold.gateway.account.application import describe

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "5")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture
async def house(postgres_url: str, migrated_template: str) -> AsyncIterator[House]:
    server = await asyncpg.connect(postgres_url)
    await server.execute(f'create database "described" template "{migrated_template}" strategy file_copy')
    database = await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/described")), max_size=20)
    await prepare(database)
    async with worker(database, scripted=scripted()) as house:
        for model in (NATIVE, TRANSLATED):
            await house.set_price(model, {"input": 1_000, "output": 2_000})
        yield house
    await database.close()
    await server.execute('drop database "described" with (force)')
    await server.close()


@pytest.mark.timeout(0 if "SCHEMATHESIS_EXAMPLES" in os.environ else 1_800)
async def test_no_fault_no_undocumented_status_no_answer_against_its_schema(house: House, tmp_path: Path) -> None:
    document = describe()
    for schema in document["components"]["schemas"].values():
        if schema.get("properties", {}).get("model", {}).get("minLength"):
            schema["properties"]["model"] = {"type": "string", "enum": [NATIVE, TRANSLATED]}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document), "utf-8")
    customer = await house.customer(prepaid="1000000")
    program = Path(sys.executable).with_name("schemathesis")
    process = await asyncio.create_subprocess_exec(
        str(program), "run", str(file), "--url", house.url.removesuffix("/v1"), "-H",
        f"Authorization: Bearer {customer.token}", "--include-tag", "inference", "--checks", CHECKS,
        "--max-examples", EXAMPLES, "--phases", "coverage,fuzzing", "--seed", "7", "--no-color",
        "--continue-on-failure", "--suppress-health-check", "all",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert len(house.scripted.seen) == 100  # as many as it keeps: the calls came through
    assert await house.held_nano(customer) == 0
