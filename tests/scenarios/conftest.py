"""The gateway's worker and the embedded model, for scenarios that need one, two, or two processes."""

from tests.gateway.conftest import house, own_house, prepared, shared_house
from tests.upstream.conftest import embedded, embedded_process

__all__ = ["embedded", "embedded_process", "house", "own_house", "prepared", "shared_house"]
