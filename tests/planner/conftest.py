"""Real traces, where they are; and series of the same formats, made here."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of real traces. CI names it in TRACE_DATA, and a folder that is named must hold them."""
    named = os.environ.get("TRACE_DATA")
    if not named:
        pytest.skip("TRACE_DATA names no folder of real traces")
    for part in ("azure", "servegen", "llm_prices"):
        assert (Path(named) / part).is_dir(), f"TRACE_DATA names {named}, which holds no {part}"
    return Path(named)


@pytest.fixture(scope="session")
def azure(traces: Path) -> Path:
    return traces / "azure"


@pytest.fixture(scope="session")
def servegen(traces: Path) -> Path:
    return traces / "servegen" / "servegen_language_m-small_client_traces.tar.gz"
