"""Configuration read again without a restart: the supervisor reads and checks it, every worker takes it up.

At SIGHUP the supervisor writes the new upstreams and the outcome into the directory `run`, and sends SIGHUP on to the
workers. A worker that is asked over HTTP sends the supervisor that signal, and waits for the outcome.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from freehold.host.process import write_private
from freehold.problems import Conflict, InvalidRequest

PATIENCE_S = 30.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reload went."""

    number: int
    """Counts reloads of one supervisor."""
    ok: bool
    said: str
    """One sentence."""


def write(run: Path, outcome: Outcome, upstreams: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Tell the workers; the upstreams hold keys, so that only the owner may read them."""
    if upstreams is not None:
        write_private(run / "upstreams.json", json.dumps(list(upstreams)))
    write_private(run / "reload.json", json.dumps(asdict(outcome)))


def read_upstreams_of(run: Path) -> list[Mapping[str, Any]]:
    """What was written last."""
    return list(json.loads((run / "upstreams.json").read_text("utf-8")))


def read_outcome(run: Path) -> Outcome:
    try:
        return Outcome(**json.loads((run / "reload.json").read_text("utf-8")))
    except FileNotFoundError:
        return Outcome(0, ok=True, said="")


class Reload:
    """A worker's way to ask for a reload."""

    def __init__(self, run: Path | None, supervisor: int | None) -> None:
        self._run = run
        self._supervisor = supervisor

    async def __call__(self) -> str:
        """What the supervisor says. Raises InvalidRequest when the configuration is refused, Conflict without one."""
        if self._run is None or self._supervisor != os.getppid():
            raise Conflict(reason="This server was not started by `freehold up`, so it can't be reloaded: restart it.")
        before = read_outcome(self._run).number
        os.kill(self._supervisor, signal.SIGHUP)
        until_s = time.monotonic() + PATIENCE_S
        while (outcome := read_outcome(self._run)).number == before:
            if time.monotonic() > until_s:
                raise Conflict(reason=f"The reload was not done within {PATIENCE_S:g} s; see the server's output.")
            await asyncio.sleep(LOOK_S)
        if not outcome.ok:
            raise InvalidRequest(reason=outcome.said)
        return outcome.said
