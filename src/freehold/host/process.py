"""A supervised child process: its own process group, a log, a pid file that recognises it, no orphan.

A pid alone says nothing, for another process may have it by now. A pid file therefore holds the pid *and* when that
process started; only when both fit is it the one that was meant.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02
_PR_SET_PDEATHSIG = 1


class HostError(Exception):
    """Something on this machine is not as it must be. The text is one sentence for the person who started it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One life of one process: a pid is reused, a pid with its start time is not."""

    pid: int
    started: str


def identity(pid: int) -> Identity | None:
    """The process that has `pid` now; None when there is none, or only its unreaped remains."""
    if pid <= 0:
        return None
    if sys.platform == "linux":
        try:
            # The command in parentheses may hold spaces and parentheses itself.
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else Identity(pid, f"{boot}/{fields[19]}")
    shown = subprocess.run(  # noqa: S603 - a fixed program and a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = shown.stdout.strip().partition(" ")
    return Identity(pid, started.strip()) if started and not state.startswith("Z") else None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


def read_pid_file(path: Path) -> Identity | None:
    """The identity that a pid file names, whether or not it still runs; None when it's missing or unreadable."""
    try:
        noted = json.loads(path.read_text("utf-8"))
        return Identity(int(noted["pid"]), str(noted["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runs(noted: Identity | None) -> bool:
    """Whether exactly this process still runs."""
    return noted is not None and identity(noted.pid) == noted


def await_end(noted: Identity, timeout_s: float) -> bool:
    """Wait until a process, which needn't be a child, is gone. False when it still runs after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while runs(noted):
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
    return True


def end(noted: Identity, *, gently: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> None:
    """Stop a process by its pid: `gently`, and after `grace_s` with SIGKILL. Does nothing when it's gone already."""
    for how, patience_s in ((gently, grace_s), (signal.SIGKILL, 10.0)):
        if not runs(noted):
            return
        try:
            os.kill(noted.pid, how)
        except ProcessLookupError:
            return
        if await_end(noted, patience_s):
            return
    raise HostError(f"Process {noted.pid} doesn't end, not even killed; restart the machine or end it by hand.")


def end_leftover(pid_file: Path, *, gently: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> bool:
    """End what an earlier, killed supervisor left running under `pid_file`. True when there was something."""
    noted = read_pid_file(pid_file)
    left = noted is not None and runs(noted)
    if noted is not None and left:
        end(noted, gently=gently, grace_s=grace_s)
    pid_file.unlink(missing_ok=True)
    return left


def _die_with_parent(parent: int, how: signal.Signals) -> Callable[[], None] | None:
    """What a child does before its program starts: ask the kernel for `how` when its parent ends (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # found before the fork: the child must not load anything

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the parent ended before the question was put

    return ask


class Child:
    """A running child. Start it from the main thread: Linux ends it together with the *thread* that started it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], noted: Identity, pid_file: Path, log: Path) -> None:
        self.name = name
        self.identity = noted
        self.log = log
        self._process = process
        self._pid_file = pid_file

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        pid_file: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: bytes = b"",
        user: str | None = None,
        pass_fds: Sequence[int] = (),
        when_orphaned: signal.Signals = signal.SIGTERM,
    ) -> "Child":
        """Start `argv` in a process group of its own, as `user` if named; its output is appended to `log`.

        Raises HostError when the program is missing or may not be run.
        """
        with log.open("ab") as out:
            try:
                process = subprocess.Popen(  # noqa: S603 - the callers' programs are fixed
                    [str(part) for part in argv],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=out,
                    env=dict(env),
                    cwd=cwd,
                    process_group=0,
                    user=user,
                    group=user,
                    extra_groups=[] if user else None,
                    pass_fds=pass_fds,
                    preexec_fn=_die_with_parent(os.getpid(), when_orphaned),
                )
            except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
                raise HostError(f"{name} can't be started: {error.strerror}: {error.filename or argv[0]}.") from error
        noted = identity(process.pid) or Identity(process.pid, "ended at once")
        write_private(pid_file, json.dumps({"pid": noted.pid, "started": noted.started}))
        assert process.stdin is not None  # noqa: S101 - asked for above
        try:
            process.stdin.write(stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended before reading: poll() tells
        return cls(name, process, noted, pid_file, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code (negative: a signal), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def send(self, how: signal.Signals) -> None:
        if self.poll() is None:
            self._process.send_signal(how)

    def stop(self, *, gently: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> None:
        """End it: `gently`, and after `grace_s` with SIGKILL. Safe to call twice."""
        self.send(gently)
        if self.wait(grace_s) is None:
            self.send(signal.SIGKILL)
            self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, on one line, for a sentence that says why it ended."""
        return last_lines(self.log, lines)


def last_lines(log: Path, lines: int = 3) -> str:
    """The last lines of a log that say something, joined on one line; empty when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
