"""The dev chain: anvil, on loopback, with its state kept in one file.

Three habits of anvil are dealt with here. After a restart its clock starts at the wall's again, behind a chain whose
time was moved on: so it starts without mining and is told the time first. It overwrites its state file in place, so
that a kill can leave half a file: `keep_copy` keeps the last whole one, and a start falls back to it. And
`--preserve-historical-states` adds some 270 kB to the file for each block, one per second: it is not used.
"""

import contextlib
import json
import os
import platform
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freehold.host.process import POLL_S, Child, HostError, end_leftover

CHAIN_ID = 402031
PREFERRED_PORT = 8545
READY_TIMEOUT_S = 30.0
GENESIS_S = 60
"""How far behind the wall's time a new chain begins, so that the first blocks needn't wait for it."""
_SYSTEMS = {"linux": "linux", "darwin": "darwin"}
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "arm64": "arm64", "aarch64": "arm64"}

PACKAGED = frozenset({("linux", "amd64")})
"""Platforms whose anvil npm/package-lock.json holds."""


class Anvil:
    """A running dev chain."""

    def __init__(self, child: Child, url: str, folder: Path) -> None:
        self.child = child
        self.url = url
        self._folder = folder

    @classmethod
    def start(
        cls,
        data: Path,
        program: Path,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        port: int | None = None,
        behind_s: int = GENESIS_S,
    ) -> "Anvil":
        """Start it on the state kept in `data`/anvil, or on none. It mines nothing until `go`.

        Its port is that of the last start when that is free, so that a wallet's settings stay right. `behind_s` is how
        far behind the wall's time a new chain begins. Raises HostError.
        """
        folder, run, logs = (data / name for name in ("anvil", "run", "logs"))
        for each in (folder, run, logs):
            each.mkdir(mode=0o700, exist_ok=True)
        end_leftover(run / "anvil.pid")
        chosen = port if port is not None else _port(folder / "port")
        try:
            child = _launch(program, folder, run, logs, chosen, behind_s)
        except _BrokenState as broken:
            _restore(folder, str(broken), say)
            try:
                child = _launch(program, folder, run, logs, chosen, behind_s)
            except _BrokenState as again:
                raise HostError(_sentence_on_state(folder, str(again))) from None
        (folder / "port").write_text(f"{chosen}\n", "utf-8")
        return cls(child, f"http://127.0.0.1:{chosen}", folder)

    def step_back(self, seconds: int) -> None:
        """Set the clock so that blocks mined at once, before `go`, don't run ahead of the wall's."""
        newest = int(self.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        self.call("anvil_setTime", hex(max(int(time.time()) - seconds, newest + 1)))

    def go(self) -> None:
        """Go on with the wall's time, or after the newest block's where that is later, at a block each second."""
        newest = self.call("eth_getBlockByNumber", "latest", False)
        at_s = max(int(time.time()), int(newest["timestamp"], 16) + 1)
        self.call("anvil_setTime", hex(at_s))
        self.call("evm_setIntervalMining", 1)

    def call(self, method: str, *params: object) -> Any:
        """One JSON-RPC call. Raises HostError when the chain refuses or can't be reached."""
        try:
            return _call(self.url, method, *params)
        except OSError as error:
            raise HostError(f"The dev chain at {self.url} doesn't answer: {error}.") from error

    def keep_copy(self) -> bool:
        """Keep the state file's present content beside it if it is whole. True when it was."""
        state = self._folder / "state.json"
        try:
            before = state.stat()
            content = state.read_bytes()
            after = state.stat()
        except OSError:
            return False
        whole = before.st_mtime_ns == after.st_mtime_ns and len(content) == after.st_size and content[-1:] == b"}"
        if whole:
            fresh = self._folder / "state.copy.new"
            fresh.write_bytes(content)
            fresh.replace(self._folder / "state.copy.json")
        return whole

    def stop(self) -> None:
        """End it; it writes its state first."""
        self.child.stop(grace_s=30)


class _BrokenState(Exception):
    """The state file can't be read; the text is anvil's reason."""


def program_in(node_modules: Path) -> Path:
    """The anvil binary of this platform in an npm folder. Raises HostError, saying what to do."""
    system, machine = _SYSTEMS.get(sys.platform), _MACHINES.get(platform.machine().lower())
    if system is None or machine is None:
        raise HostError(
            f"There is no anvil for {sys.platform} on {platform.machine()}; set FREEHOLD_RPC_URL to a chain of your own."
        )
    found = node_modules / "@foundry-rs" / f"anvil-{system}-{machine}" / "bin" / "anvil"
    if not found.is_file():
        mend = (
            "run `make up` to install it"
            if (system, machine) in PACKAGED
            else "set FREEHOLD_RPC_URL to a chain of your own"
        )
        raise HostError(f"The dev chain's program is missing ({found}): {mend}.")
    return found


def _call(url: str, method: str, *params: object) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310 - our own loopback URL
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy
    with opener.open(request, timeout=10) as response:
        answer = json.load(response)
    if "error" in answer:
        raise HostError(f"The dev chain refuses {method}: {answer['error'].get('message', answer['error'])}.")
    return answer["result"]


def _port(noted: Path) -> int:
    """The port of the last start, else the usual one, else any that is free."""
    wanted = [PREFERRED_PORT]
    with contextlib.suppress(OSError, ValueError):
        wanted.insert(0, int(noted.read_text("utf-8")))
    for port in (*wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise HostError("No TCP port is free on 127.0.0.1.")


def _launch(program: Path, folder: Path, run: Path, logs: Path, port: int, behind_s: int) -> Child:
    log = logs / "anvil.log"
    before = log.stat().st_size if log.exists() else 0
    child = Child.start(
        "anvil",
        # --quiet, for it would print its accounts' private keys; --no-cors, for no web page may move its tokens.
        [
            *(program, "--quiet", "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID)),
            *("--no-mining", "--no-cors", "--state", folder / "state.json", "--state-interval", "2"),
            *(() if (folder / "state.json").exists() else ("--timestamp", str(int(time.time()) - behind_s))),
        ],
        log=log,
        pid_file=run / "anvil.pid",
        env={"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C"},
        cwd=folder,
    )
    until = time.monotonic() + READY_TIMEOUT_S
    while child.poll() is None:
        try:
            _call(f"http://127.0.0.1:{port}", "eth_chainId")
            if child.wait(5 * POLL_S) is None:  # else it was another's answer on a port that both wanted
                return child
        except OSError:
            if time.monotonic() > until:
                child.stop()
                raise HostError(f"anvil didn't answer within {READY_TIMEOUT_S:.0f} s (log: {log}).") from None
            time.sleep(POLL_S)
    child.stop()
    with log.open("rb") as file:
        file.seek(before)
        said = file.read().decode("utf-8", errors="replace").strip()
    if "--state <PATH>" in said:
        raise _BrokenState(said.splitlines()[0].rpartition("json file: ")[2])
    raise HostError(f"anvil doesn't start: {' '.join(said.split()) or 'it ended without a word'} (log: {log}).")


def _restore(folder: Path, reason: str, say: Callable[[str], None]) -> None:
    """Put the copy in the place of a state that can't be read. A kill during the first dump of all leaves no copy."""
    state, copy = folder / "state.json", folder / "state.copy.json"
    content = state.read_bytes()
    cut_off = content[:1] in (b"", b"{") and content[-1:] != b"}"
    if not copy.exists() and not cut_off:
        raise HostError(_sentence_on_state(folder, reason))
    state.replace(folder / "state.broken.json")
    if copy.exists():
        state.write_bytes(copy.read_bytes())
        say("The dev chain's state was cut off in the middle; it goes on from the copy of some seconds before.")
    else:
        say("The dev chain was killed before it had kept anything; it begins anew.")


def _sentence_on_state(folder: Path, reason: str) -> str:
    return (
        f"The dev chain's state {folder / 'state.json'} can't be read ({reason}); "
        "restore it from a backup, or start afresh with another --data."
    )
