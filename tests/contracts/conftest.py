"""One deployment per session; each test gets it as it was."""

from collections.abc import Iterator

import pytest
from tests.contracts.freehold_chain import Freehold, deploy


@pytest.fixture(scope="session")
def deployed() -> Freehold:
    return deploy()


@pytest.fixture
def chain(deployed: Freehold) -> Iterator[Freehold]:
    with deployed.evm.undone():
        yield deployed
