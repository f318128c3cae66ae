"""The gateway's worker, for scenarios that need one, two, or two processes."""

from tests.gateway.conftest import house, own_house, prepared, shared_house

__all__ = ["house", "own_house", "prepared", "shared_house"]
