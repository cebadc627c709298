"""Blocking code on an event loop, without a thread for each call.

A function that blocks runs in a greenlet: where it would wait, it calls `wait_for` with something awaitable, and the
loop goes on until that is there. So one ledger serves threads and the loop alike (docs/decisions/0018). What waits for
a disk, or computes for long, still goes to a thread, by `in_thread`.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class _Call(greenlet):
    """A function on a loop; it shares the context variables of the task that waits for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        driver = getcurrent()
        super().__init__(function, driver)
        self.gr_context = driver.gr_context


async def on_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a function that blocks by `wait_for` alone, holds no lock meanwhile, and does not compute for long."""
    call = _Call(function)
    given = call.switch(*args, **kwargs)
    while not call.dead:
        try:
            answer = await cast(Awaitable[Any], given)
        except BaseException:  # its own to handle: a cancellation as well
            given = call.throw(*sys.exc_info())
        else:
            given = call.switch(answer)
    return cast(T, given)


def wait_for(awaitable: Awaitable[T]) -> T:
    """What the awaitable gives; only within `on_loop`.

    Raises:
        RuntimeError: not within `on_loop`.
    """
    current = getcurrent()
    if not isinstance(current, _Call) or current.parent is None:
        raise RuntimeError("wait_for needs on_loop around it")
    return cast(T, current.parent.switch(awaitable))


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives, called in a thread where the caller is within `on_loop`, else where it is."""
    if isinstance(getcurrent(), _Call):
        return wait_for(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)
