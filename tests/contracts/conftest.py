"""One deployment per session; each test gets it as it was."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.contracts.freehold_chain import Freehold

# pyrevm has no wheel for Linux on arm64: contracts are tested elsewhere, and are the same bytes there.
collect_ignore_glob = [] if find_spec("pyrevm") else ["test_*.py"]


@pytest.fixture(scope="session")
def deployed() -> "Freehold":
    from tests.contracts.freehold_chain import deploy

    return deploy()


@pytest.fixture
def chain(deployed: "Freehold") -> Iterator["Freehold"]:
    with deployed.evm.undone():
        yield deployed
