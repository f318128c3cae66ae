"""What was done of a deployment: a file of JSON lines beside the deployment file, each on the disk before it counts.

A step is noted before its transaction is sent, with its nonce and hash, so that a run that was cut off anywhere is gone on
with by the next one, and nothing is sent twice: of one nonce only one transaction can ever be mined.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from freehold.chain.deploy import Parameters
from freehold.chain.keywallet import Fees
from freehold.chain.model import Deployment
from freehold.chain.problems import DeploymentBroken

VERSION = 1


@dataclass(slots=True)
class Entry:
    """A step that was begun."""

    what: str
    nonce: int
    sent: list[str] = field(default_factory=list)
    """Hashes of its transactions, of which one can be mined: a later one offers more for gas."""
    gas: int = 0
    fees: Fees = field(default_factory=lambda: Fees(0, 0))
    """What the last one offers."""
    mined: str | None = None
    """The one that was; empty when the contract was found at its address instead."""
    block: int | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """What a deployment is, from its beginning."""

    parameters: Parameters
    chain_id: int
    genesis: str
    """Hash of the chain's first block: two dev chains may have one id."""
    deployer: str
    from_block: int
    code: str
    """Digest of the contracts' code."""


class Journal:
    """Open it with `with Journal.open(path) as journal`; no two can have the same file open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.begun: Begun | None = None
        self.entries: list[Entry] = []
        self._file = os.fdopen(descriptor, "r+b")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises DeploymentBroken for a file that is none, or that another run has open; OSError."""
        journal = cls(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            fcntl.flock(journal._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            journal._file.close()
            raise DeploymentBroken(reason=f"Another run works on {path} already; let it end.") from None
        try:
            journal._read()
        except BaseException:
            journal._file.close()
            raise
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, begun: Begun) -> None:
        self._write({"version": VERSION, "begun": asdict(begun)})

    def nonces(self) -> list[int]:
        return [entry.nonce for entry in self.entries]

    def open_step(self) -> int:
        """Number of the first step that isn't known to be mined."""
        return next((at for at, entry in enumerate(self.entries) if entry.block is None), len(self.entries))

    def sending(self, step: int, what: str, nonce: int, tx_hash: str, gas: int, fees: Fees) -> None:
        """Before it is sent."""
        offer = {"gas": gas, "tip": fees.tip, "most": fees.most}
        self._write({"step": step, "what": what, "nonce": nonce, "sending": tx_hash, **offer})

    def mined(self, step: int, tx_hash: str, block: int) -> None:
        self._write({"step": step, "mined": tx_hash, "block": block})

    def lost(self, step: int) -> None:
        """It was mined, and the chain doesn't have it any more."""
        self._write({"step": step, "lost": True})

    def given_up(self, step: int) -> None:
        """Its nonce was used otherwise, or its transaction failed: it gets another one. Only the last one can be."""
        self._write({"step": step, "given_up": True})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(line)

    def _read(self) -> None:
        raw = self._file.read()
        whole, _, rest = raw.rpartition(b"\n")
        try:
            for line in whole.splitlines():
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise DeploymentBroken(
                reason=f"{self.path} can't be read as the journal of a deployment; restore it, or name another --out."
            ) from None
        if rest:  # the last line was cut off: what it says was not done yet
            self._file.truncate(len(raw) - len(rest))

    def _take(self, line: Mapping[str, Any]) -> None:
        if "begun" in line:
            if line["version"] != VERSION:
                raise ValueError
            self.begun = _begun(line["begun"])
            return
        step = line["step"]
        if "sending" in line:
            if step == len(self.entries):
                self.entries.append(Entry(line["what"], line["nonce"]))
            entry = self.entries[step]
            entry.sent.append(line["sending"])
            entry.gas, entry.fees = line["gas"], Fees(line["tip"], line["most"])
        elif "mined" in line:
            self.entries[step].mined, self.entries[step].block = line["mined"], line["block"]
        elif "lost" in line:
            self.entries[step].mined = self.entries[step].block = None
        elif "given_up" in line and step == len(self.entries) - 1:
            self.entries.pop()
        else:
            raise ValueError


def _begun(read: Mapping[str, Any]) -> Begun:
    parameters: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in read["parameters"].items()
    }
    if parameters["beside"] is not None:
        parameters["beside"] = Deployment(**parameters["beside"])
    return Begun(
        Parameters(**parameters),
        read["chain_id"],
        read["genesis"],
        read["deployer"],
        read["from_block"],
        read["code"],
    )
