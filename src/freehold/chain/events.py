"""The events that Freehold reads, from log to value. `artifacts/` holds the same ABI; a test compares them."""

from collections.abc import Mapping
from typing import Any

from freehold.chain.abi import Contract, Log
from freehold.chain.model import AllowanceChanged, Block, Deployment, Deposited, Event, Place


def _input(name: str, kind: str, indexed: bool = False) -> Mapping[str, Any]:
    return {"name": name, "type": kind, "indexed": indexed}


ALLOWANCE_CHANGED: Mapping[str, Any] = {
    "type": "event",
    "name": "AllowanceChanged",
    "inputs": [
        _input("operator", "address", True),
        _input("beneficiary", "address", True),
        _input("day", "uint256"),
        _input("today", "uint256"),
        _input("onward", "uint256"),
    ],
}
DEPOSITED: Mapping[str, Any] = {
    "type": "event",
    "name": "Deposited",
    "inputs": [
        _input("beneficiary", "address", True),
        _input("payer", "address", True),
        _input("amount", "uint256"),
    ],
}


class Events:
    """Reads the logs of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._chain_id = deployment.chain_id
        self._vault = Contract([ALLOWANCE_CHANGED], address=deployment.contracts["vault"], name="CapacityVault")
        self._prepaid = Contract([DEPOSITED], address=deployment.contracts["prepaid"], name="Prepaid")
        self._strips = Contract([ALLOWANCE_CHANGED], address=deployment.contracts["strips"], name="Strips")
        self.vault = self._vault.address
        self.prepaid = self._prepaid.address
        changed, deposited = self._vault.topic("AllowanceChanged"), self._prepaid.topic("Deposited")
        self.strips = self._strips.address
        self.logged = ((self.vault, changed), (self.strips, changed), (self.prepaid, deposited))
        """Whose logs are read, and of what topic."""

    def filter(self) -> dict[str, Any]:
        """What eth_getLogs is asked for, without the blocks."""
        return {
            "address": [address for address, _ in self.logged],
            "topics": [list(dict.fromkeys(topic for _, topic in self.logged))],
        }

    def read(self, log: Log, block: Block) -> Event | None:
        """The log as an event of `block`; None when it is none of ours."""
        place = Place(self._chain_id, block.number, block.hash, block.time_s, log.tx_hash, log.log_index)
        if log.address == self.vault:
            found = self._vault.event(log)
            return AllowanceChanged(place, **found[1]) if found else None
        if log.address == self.strips:
            found = self._strips.event(log)
            return AllowanceChanged(place, **found[1], strips=True) if found else None
        if log.address == self.prepaid:
            found = self._prepaid.event(log)
            return Deposited(place, **found[1]) if found else None
        return None
