"""A time limit for what is awaited: `asyncio.timeout` in a fifth of its time, for what every call passes through."""

import asyncio
from types import TracebackType


class Limit:
    """`with Limit(seconds):` raises TimeoutError when what is awaited within takes longer."""

    __slots__ = ("_cancelling", "_running", "_seconds", "_task", "due_s", "expired")

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self.due_s = 0.0
        """When it ends, by its loop's clock."""
        self._seconds = seconds
        self._task: asyncio.Task[object]
        self._running: _Running

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - whoever awaits is a task
        self._task = task
        self._cancelling = task.cancelling()
        self._running = running = _running_on(loop)
        self.due_s = due_s = loop.time() + self._seconds
        running.limits[self] = None
        if due_s < running.next_s:
            running.wake_at(due_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.limits.pop(self, None)
        # As asyncio.timeout does: whoever else has cancelled the task meanwhile is heard, and not taken for this limit.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def at_most(self, seconds: float) -> None:
        """From now on, no longer than this."""
        if not self.expired:
            self.due_s = min(self.due_s, self._running.loop.time() + seconds)
            if self.due_s < self._running.next_s:
                self._running.wake_at(self.due_s)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


class _Running:
    """The limits that run on one event loop, under one timer: nearly all end long before they are due."""

    __slots__ = ("_timer", "limits", "loop", "next_s")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.limits: dict[Limit, None] = {}
        self.next_s = float("inf")
        """When the timer rings."""
        self._timer: asyncio.TimerHandle | None = None

    def wake_at(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.next_s = due_s
        self._timer = self.loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        self._timer, self.next_s = None, float("inf")
        now_s = self.loop.time()
        over = [limit for limit in self.limits if limit.due_s <= now_s]
        for limit in sorted(over, key=lambda limit: limit.due_s):
            del self.limits[limit]
            limit._expire()
        if self.limits:
            self.wake_at(min(limit.due_s for limit in self.limits))


_last: _Running | None = None


def _running_on(loop: asyncio.AbstractEventLoop) -> _Running:
    """Those of this loop. A process has one loop; where there are more, each limit keeps to the one it began with."""
    global _last
    if _last is None or _last.loop is not loop:
        _last = _Running(loop)
    return _last
