"""A whole server keeps to what the OpenAPI document says of the account API, whoever asks and whatever is generated.

The routes that call models are asked in the same way in tests/gateway/test_described.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account as Wallets
from eth_account.messages import encode_defunct
from tests.app.conftest import Server

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "3")
PHASES = "coverage,fuzzing" if "SCHEMATHESIS_EXAMPLES" in os.environ else "fuzzing"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance"
)
OWN_END = ("/v1/auth/logout",)
"""What ends the session that asks."""

Known = dict[str, list[Any]]


def owner(server: Server) -> str:
    """A session of a wallet that was never seen before: it owns its account."""
    wallet = Wallets.create()
    _, asked = server.call("/v1/auth/nonce", {"address": wallet.address})
    signature = wallet.sign_message(encode_defunct(text=asked["message"])).signature.hex()
    _, session = server.call("/v1/auth/wallet", {"message": asked["message"], "signature": signature})
    return str(session["token"])


CALLERS: dict[str, Callable[[Server], str]] = {
    "key": lambda server: str(server.credentials()["api_key"]),
    "owner": owner,
    "operator": lambda server: str(server.credentials()["admin_token"]),
}


def there(server: Server, token: str) -> Known:
    """What the caller can name, by the parameters that take it: with nothing but wrong names every answer is a 404."""
    status, called = server.call(
        "/v1/chat/completions",
        {"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8},
    )
    assert status == 200, called
    _, usage = server.call("/v1/account/usage")
    _, account = server.call("/v1/account", token=token)
    own = account.get("id", server.credentials()["account_id"])
    made, key = server.call(f"/v1/account/keys?account={own}", {"name": "spare"}, token=token)
    return {
        "model": ["scripted-echo"],
        "receipt_id": [usage["data"][0]["request_id"]],
        "account": [own],
        "account_id": [own],
        "key_id": [key["id"]] if made == 201 else [1],
        "day": ["2026-01-01"],
    }


def told(document: dict[str, Any], known: Known) -> dict[str, Any]:
    """The document, whose parameters and fields name what is there half of the time."""

    def likely(name: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"anyOf": [{"enum": known[name]}, schema]} if name in known else schema

    for operation in (op for verbs in document["paths"].values() for op in verbs.values()):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = likely(parameter["name"], parameter["schema"])
    for title, schema in document["components"]["schemas"].items():
        if title.endswith("In"):
            fields = schema.get("properties", {})
            schema["properties"] = {name: likely(name, field) for name, field in fields.items()}
    return document


@pytest.mark.timeout(0 if "SCHEMATHESIS_EXAMPLES" in os.environ else 1_800)
def test_no_fault_no_undocumented_status_no_answer_against_its_schema(
    up: Callable[..., Server], tmp_path: Path
) -> None:
    server = up()
    said: dict[str, str] = {}
    for name, made in CALLERS.items():
        token = made(server)
        document = told(json.loads(server.text("/openapi.json")), there(server, token))
        for path in OWN_END:
            document["paths"].pop(path)
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(document), "utf-8")
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")), "run", str(file), "--url",
                str(server.credentials()["url"]), "-H", f"Authorization: Bearer {token}", "--exclude-tag", "inference",
                "--checks", CHECKS, "--max-examples", EXAMPLES, "--phases", PHASES, "--seed", "7", "--no-color",
                "--continue-on-failure", "--suppress-health-check", "all",
            ],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said[name] = done.stdout + done.stderr
    assert said == {}, "\n".join(said.values())
    assert server.call("/v1/account/balance")[0] == 200  # the callers could still ask
    status, books = server.call("/v1/admin/books", token=CALLERS["operator"](server))
    assert (status, books["differences"]) == (200, [])
