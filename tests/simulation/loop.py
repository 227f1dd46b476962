"""An event loop without sockets, threads or real time: what runs next is drawn from the seed, and time passes only when nothing can run.

A loop of our own instead of a subclass of asyncio's: it needs none of its private parts, and a step costs a microsecond.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any

MOST_STEPS = 400_000  # a seed takes some thousands; more means that something turns in circles


class Stalled(AssertionError):
    """Everything waits for something that will never happen."""


class Handle:
    """A callback that is to run."""

    __slots__ = ("args", "callback", "context", "dropped", "when")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None, when: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context if context is not None else contextvars.copy_context()
        self.when = when
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class Task(asyncio.Task):  # type: ignore[type-arg]
    """A task whose place in a set does not depend on where it lies in memory: a seed must come out the same every time."""

    def __init__(self, coro: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Loop(asyncio.AbstractEventLoop):
    """Runs one ready callback at a time, any of them; `now` is virtual seconds."""

    def __init__(self, rng: random.Random) -> None:
        self.now = 0.0
        self.steps = 0
        self.mistakes: list[str] = []
        self._random = rng.random
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, float, int, Handle]] = []
        self._numbers = 0
        self._owner: Callable[[Task], None] | None = None

    def own(self, owner: Callable[[Task], None]) -> None:
        """Tell of every new task, in the context it was made in."""
        self._owner = owner

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, context, self.now)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, context, when)
        self._numbers += 1
        heapq.heappush(self._timers, (when, self._random(), self._numbers, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None, **_: Any) -> Any:
        self._numbers += 1
        task = Task(coro, self._numbers, loop=self, name=name or "task", context=context)
        if self._owner is not None:
            run = context.run if context is not None else lambda call, *args: call(*args)
            run(self._owner, task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.mistakes.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- running ---

    def step(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][3].dropped:
                heapq.heappop(timers)
            if not timers:
                raise Stalled("nothing is left to run, and somebody still waits")
            self.now = max(self.now, timers[0][0])
            while timers and timers[0][0] <= self.now:
                handle = heapq.heappop(timers)[3]
                if not handle.dropped:
                    ready.append(handle)
        at = int(self._random() * len(ready))
        handle = ready[at]
        ready[at] = ready[-1]
        ready.pop()
        if handle.dropped:
            return
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Stalled(f"still busy after {MOST_STEPS:,} steps")
        handle.context.run(handle.callback, *handle.args)

    def leap(self, seconds: float) -> None:
        """Time passes at once, as over a suspended machine: what was due meanwhile is late."""
        self.now += max(seconds, 0.0)

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run until `main` ends; what else runs then is dropped where it stands."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main, name="main")
            while not task.done() and not self.mistakes:
                self.step()
            if task.done():
                task.result()
        finally:
            self._drop()
            asyncio._set_running_loop(None)

    def _drop(self) -> None:
        tasks = sorted((task for task in asyncio.all_tasks(self) if isinstance(task, Task)), key=lambda task: task.number)
        steps, self.steps = self.steps, 0
        for _ in range(10):  # one that is broken off may still want to note that
            for task in tasks:
                task.cancel()
            while self._ready:
                self.step()
        self.steps = steps
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                self.mistakes.append(f"{task.get_name()}: {task.exception()!r}")
