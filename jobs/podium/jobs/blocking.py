"""Blocking code on an event loop, without a thread for each call.

A function that blocks runs in a greenlet: where it would wait, it calls `wait_for` with something awaitable, and the
loop goes on until that is there. So one ledger serves threads and the loop alike (docs/decisions/0018). What waits for
a disk, or computes for long, still goes to a thread, by `in_thread`.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class _Worker(greenlet):
    """Carries out one call on a loop after the other. A new one for each would cost as much as the call."""

    def __init__(self) -> None:
        super().__init__()
        self.done = False
        self.failure: BaseException | None = None

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        # Nobody who holds a worker lacks a parent: whoever drives it.
        back = cast(greenlet, self.parent).switch
        while True:
            answer = None
            try:
                answer = function(*args, **kwargs)
            except BaseException as error:  # its caller's to handle
                self.failure = error
            self.done = True
            # What it was called with is nobody's while it waits.
            del function, args, kwargs
            function, args, kwargs = back(answer)


class _Idle(threading.local):
    """The workers of one thread's loop that have nothing to do."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []


_IDLE = _Idle()
#: So many are kept; each holds some 20 KiB.
_MOST_IDLE = 64


async def on_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a function that blocks by `wait_for` alone, holds no lock meanwhile, and does not compute for long.

    It shares the context variables of the task that waits for it.
    """
    idle = _IDLE.workers
    worker = idle.pop() if idle else _Worker()
    worker.gr_context, worker.done = getcurrent().gr_context, False
    given: Any = worker.switch(function, args, kwargs)  # what to wait for, or what the function gives
    while not worker.done:
        try:
            answer = await given
        except BaseException:  # its own to handle: a cancellation as well
            given = worker.throw(*sys.exc_info())
        else:
            given = worker.switch(answer)
    failure, worker.failure, worker.gr_context = worker.failure, None, None
    if len(idle) < _MOST_IDLE:
        idle.append(worker)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # which holds this frame
    found: T = given
    return found


def wait_for(awaitable: Awaitable[T]) -> T:
    """What the awaitable gives; only within `on_loop`.

    Raises:
        RuntimeError: not within `on_loop`.
    """
    current = getcurrent()
    if not isinstance(current, _Worker) or current.parent is None:
        raise RuntimeError("wait_for needs on_loop around it")
    answer: T = current.parent.switch(awaitable)
    return answer


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives, called in a thread where the caller is within `on_loop`, else where it is."""
    if isinstance(getcurrent(), _Worker):
        return wait_for(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)


def outcome(future: "Future[T]") -> T:
    """What a thread is to give; within `on_loop` no other thread waits for it.

    Whoever no longer waits cancels the future, unless it says that it runs.
    """
    if isinstance(getcurrent(), _Worker):
        return wait_for(asyncio.wrap_future(future))
    return future.result()
