"""Children: recognised, stopped, never orphaned."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.host.process import Child, HostError, Identity, end_leftover, identity, read_pid_file, runs, write_private


def start(tmp_path: Path, program: str) -> Child:
    return Child.start(
        "sleeper",
        [sys.executable, "-c", program],
        log=tmp_path / "log",
        pid_file=tmp_path / "pid",
        env=dict(os.environ),
    )


STAY = "import signal; signal.pause()"


def test_a_child_is_noted_with_when_it_started(tmp_path: Path) -> None:
    child = start(tmp_path, STAY)
    assert read_pid_file(tmp_path / "pid") == identity(child.pid)
    child.stop()
    assert identity(child.pid) is None
    assert not (tmp_path / "pid").exists()


def test_another_process_under_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    child = start(tmp_path, STAY)
    write_private(tmp_path / "pid", f'{{"pid": {child.pid}, "started": "another life"}}')
    assert end_leftover(tmp_path / "pid") is False
    assert child.poll() is None
    assert not runs(Identity(child.pid, "another life"))
    child.stop()


def test_a_leftover_is_ended(tmp_path: Path) -> None:
    child = start(tmp_path, STAY)
    assert end_leftover(tmp_path / "pid", grace_s=10) is True
    assert child.poll() == -signal.SIGTERM


def test_a_child_that_ignores_the_gentle_signal_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = start(
        tmp_path,
        "import pathlib, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); signal.pause()\nsignal.pause()",
    )
    while not ready.exists():
        assert child.poll() is None
    child.stop(grace_s=0.2)
    assert child.poll() == -signal.SIGKILL


def test_a_child_is_in_a_process_group_of_its_own(tmp_path: Path) -> None:
    child = start(tmp_path, STAY)
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    child.stop()


def test_a_missing_program_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"^sleeper can't be started: No such file or directory: /nowhere/at-all\.$"):
        Child.start("sleeper", ["/nowhere/at-all"], log=tmp_path / "log", pid_file=tmp_path / "pid", env={})


def test_its_last_words_are_what_it_wrote_last(tmp_path: Path) -> None:
    child = start(tmp_path, "print('first'); print('last')")
    assert child.wait(30) == 0
    assert child.last_words(1) == "last"


def test_remains_that_nobody_has_reaped_are_no_process() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout is not None
    ended.stdout.read()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert identity(ended.pid) is None
    ended.wait()
