"""One line on a terminal that says what is being measured, how long the run has taken, and how long it still takes."""

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO


class Progress:
    """`expected_s` are the phases and how long each should take; what they really take corrects the rest."""

    def __init__(self, expected_s: Mapping[str, float], out: IO[str] = sys.stderr) -> None:
        self._expected_s = dict(expected_s)
        self._out = out
        self._live = out.isatty()
        self._began_s = time.monotonic()
        self._phase_began_s = self._began_s
        self._phase = ""
        self._doing = "starting"
        self._done_s = 0.0
        """Expected, of the phases that are over."""
        self._ended = threading.Event()
        self._lock = threading.Lock()
        if self._live:
            threading.Thread(target=self._go_on, daemon=True).start()

    def begin(self, phase: str) -> None:
        self._done_s += self._expected_s.pop(self._phase, 0.0)
        self._phase, self._phase_began_s = phase, time.monotonic()

    def doing(self, what: str) -> None:
        self._doing = what

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._lock:
            self._wipe()
            self._out.write(line + "\n")
            self._out.flush()

    def end(self) -> None:
        self._ended.set()
        with self._lock:
            self._wipe()

    def shown(self, now_s: float) -> str:
        gone_s = now_s - self._began_s
        total_s = self._done_s + sum(self._expected_s.values())
        of_phase_s = min(now_s - self._phase_began_s, self._expected_s.get(self._phase, 0.0))
        share = (self._done_s + of_phase_s) / total_s if total_s else 0.0
        left = f"about {_clock(gone_s / share - gone_s)} left" if share > 0.02 else "starting"
        return f"[{share:4.0%}] {self._phase} {self._doing} · {_clock(gone_s)} gone, {left}"

    def _go_on(self) -> None:
        while not self._ended.wait(0.5):
            with self._lock:
                width = shutil.get_terminal_size().columns - 1
                self._out.write("\r\x1b[K" + self.shown(time.monotonic())[:width])
                self._out.flush()

    def _wipe(self) -> None:
        if self._live:
            self._out.write("\r\x1b[K")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
