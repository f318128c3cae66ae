"""A time limit for what is awaited: `asyncio.timeout` in a third of its time, for what every call passes through."""

import asyncio
from types import TracebackType


class Limit:
    """`with Limit(seconds):` raises TimeoutError when what is awaited within takes longer."""

    __slots__ = ("_cancelling", "_seconds", "_task", "_timer", "expired")

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._seconds = seconds
        self._task: asyncio.Task[object]
        self._timer: asyncio.TimerHandle

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - whoever awaits is a task
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = loop.call_later(self._seconds, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # As asyncio.timeout does: whoever else has cancelled the task meanwhile is heard, and not taken for this limit.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def at_most(self, seconds: float) -> None:
        """From now on, no longer than this."""
        if not self.expired:
            loop = self._task.get_loop()
            if loop.time() + seconds < self._timer.when():
                self._timer.cancel()
                self._timer = loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()
