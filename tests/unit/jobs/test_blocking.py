"""Code that blocks, run on an event loop."""

import asyncio
import gc
import threading
import weakref
from contextvars import ContextVar

import pytest
from greenlet import getcurrent

from podium.jobs.blocking import in_thread, on_loop, wait_for

WORD: ContextVar[str] = ContextVar("word", default="none")


async def later(value: str) -> str:
    await asyncio.sleep(0)
    return value


def test_the_loop_goes_on_while_a_function_waits():
    async def main() -> list[str]:
        order: list[str] = []
        gate = asyncio.Event()

        def waits() -> None:
            order.append("waits")
            wait_for(gate.wait())
            order.append("goes on")

        task = asyncio.create_task(on_loop(waits))
        await asyncio.sleep(0)
        order.append("the loop")
        gate.set()
        await task
        return order

    assert ["waits", "the loop", "goes on"] == asyncio.run(main())


def test_a_function_gets_what_it_waits_for_and_returns_what_it_likes():
    assert "a b" == asyncio.run(on_loop(lambda: f"{wait_for(later('a'))} {wait_for(later('b'))}"))


def test_what_is_raised_on_either_side_reaches_the_other():
    async def broken() -> None:
        raise ValueError("there")

    def caught() -> str:
        with pytest.raises(ValueError, match="there"):
            wait_for(broken())
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        asyncio.run(on_loop(caught))


def test_a_cancelled_call_cleans_up_where_it_waits():
    cleaned = []

    def waits() -> None:
        try:
            wait_for(asyncio.sleep(60))
        finally:
            cleaned.append(True)

    async def main() -> None:
        task = asyncio.create_task(on_loop(waits))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [True] == cleaned


def test_context_variables_are_those_of_the_call():
    def notes() -> str:
        WORD.set("set within")
        wait_for(later(""))
        return in_thread(WORD.get)

    async def main() -> tuple[str, str]:
        return await on_loop(notes), WORD.get()

    assert ("set within", "set within") == asyncio.run(main())
    assert "none" == WORD.get()


def test_a_thread_is_used_on_a_loop_alone():
    here = threading.get_ident()

    assert here == in_thread(threading.get_ident)
    assert here != asyncio.run(on_loop(in_thread, threading.get_ident))


def test_waiting_outside_of_a_loop_is_an_error():
    awaitable = later("never")
    with pytest.raises(RuntimeError, match="on_loop"):
        wait_for(awaitable)
    awaitable.close()


def test_calls_one_after_the_other_share_no_more_than_their_worker():
    """Starting a greenlet for each would cost as much as a call; whatever became of the one before is forgotten."""
    workers, kept = [], []

    class Thing:
        """What nobody is to hold when its call is over."""

    def called(given: Thing) -> str:
        workers.append(getcurrent())
        kept.append(weakref.ref(given))
        before, word = WORD.get(), wait_for(later("word"))
        WORD.set(word)
        if len(workers) == 1:
            raise ValueError("of the first call alone")
        return before

    async def call() -> str:
        return await on_loop(called, Thing())

    async def main() -> str:
        with pytest.raises(ValueError, match="of the first"):
            await asyncio.create_task(call())
        return await asyncio.create_task(call())

    assert "none" == asyncio.run(main())
    assert workers[0] is workers[1]
    gc.collect()
    assert [None, None] == [reference() for reference in kept]
