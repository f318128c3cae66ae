"""An event loop that a seed drives: it owns time, and chooses which ready callback runs next.

Virtual time passes only when nothing is ready. A process that was killed never runs again, and one that is stopped
(SIGSTOP) runs nothing until it is continued: callbacks know their process by their context.
"""

import asyncio
import heapq
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any

PROCESS: ContextVar[int] = ContextVar("process", default=0)
"""Whose callback it is; 0 is the world's own, which nothing kills."""


class Stuck(Exception):
    """Nothing can ever happen any more, and somebody waits."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs one ready callback at a time. `orderly`: first come, first served, as asyncio does; else the seed's choice."""

    def __init__(self, random: Random, *, orderly: bool) -> None:
        super().__init__()
        self._random = random
        self._orderly = orderly
        self._now_s = 0.0
        self._dead: set[int] = set()
        self._stopped: dict[int, list[asyncio.Handle]] = {}
        self._due: dict[int, list[Callable[[], object]]] = {}
        self.steps = 0
        """Callbacks run so far: the finest time there is here."""
        self.faults: list[dict[str, Any]] = []
        """What escaped every task, which nothing should."""
        self.set_exception_handler(lambda _, context: self._hear(context))

    def _hear(self, context: dict[str, Any]) -> None:
        if self._dead and context.get("message") == "Task was destroyed but it is pending!":
            return  # so end the tasks of killed processes
        self.faults.append(context)

    def time(self) -> float:
        return self._now_s

    def kill(self, process: int) -> None:
        self._dead.add(process)
        self._stopped.pop(process, None)

    def stop_process(self, process: int) -> None:
        if process not in self._dead:
            self._stopped.setdefault(process, [])

    def continue_process(self, process: int) -> None:
        self._ready.extend(self._stopped.pop(process, []))

    def after_steps(self, steps: int, act: Callable[[], object]) -> None:
        """Do it between two callbacks, `steps` callbacks from now."""
        self._due.setdefault(self.steps + max(1, steps), []).append(act)

    def _run_once(self) -> None:
        for act in self._due.pop(self.steps, ()):
            act()
        self.steps += 1
        while not self._ready:
            if not self._scheduled:
                raise Stuck(f"after {self.steps} steps")
            self._now_s = max(self._now_s, self._scheduled[0]._when)
            self._wake()
        self._wake()
        handle = self._choose()
        process = handle._context.get(PROCESS, 0)
        if handle._cancelled or process in self._dead:
            return
        if process in self._stopped:
            self._stopped[process].append(handle)
            return
        handle._run()

    def _choose(self) -> asyncio.Handle:
        if self._orderly or len(self._ready) == 1:
            return self._ready.popleft()
        at = self._random.randrange(len(self._ready))
        handle = self._ready[at]
        del self._ready[at]
        return handle

    def _wake(self) -> None:
        while self._scheduled and (self._scheduled[0]._cancelled or self._scheduled[0]._when <= self._now_s):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._ready.append(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers leave the heap when their time comes."""

    def _write_to_self(self) -> None:
        """Nothing waits in a selector, so nothing is to be woken."""

    def bury(self) -> None:
        """Close what killed processes left behind, quietly: a process that is gone tidies nothing up."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
            try:
                task.get_coro().close()
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever it would have said, it is dead
                continue
        self._ready.clear()
        self._scheduled.clear()
        self.close()
