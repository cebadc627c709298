"""The ledger on an event loop: one connection that everybody shares."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from podium.jobs import wire
from podium.jobs.blocking import on_loop
from podium.jobs.errors import NotFoundError, UnavailableError
from podium.jobs.job import Job
from podium.jobs.settings import Settings
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State
from podium.jobs.store import Leases, NewJob
from podium.jobs.store._redis_async import AsyncLink
from podium.jobs.store.redis import RedisStore
from podium.jobs.store.redis_loop import connect_on_loop

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
NEW = NewJob(project="default", spec=SPEC, classes=("cat", "dog"))


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, redis_password=None, artifacts="", data_roots=(), leases=Leases())


@pytest.fixture
def in_threads(redis_client: redis.Redis) -> RedisStore:
    """The same ledger as everybody else sees it."""
    return RedisStore(redis_client)


def run(settings: Settings, what: Callable[[RedisStore], Awaitable[Any]]) -> Any:
    """Runs something on a loop that has a ledger."""

    async def main() -> Any:
        client = connect_on_loop(settings)
        try:
            return await what(RedisStore(client))
        finally:
            await on_loop(client.close)

    return asyncio.run(main())


def test_of_many_calls_at_once_each_gets_its_own_answer(settings, in_threads):
    async def main(store: RedisStore) -> Any:
        made = await asyncio.gather(*(on_loop(store.create, NEW) for _ in range(50)))
        return made, await asyncio.gather(*(on_loop(store.get, job.id) for job, _ in made))

    made, found = run(settings, main)

    assert [job for job, _ in made] == list(found) == [in_threads.get(job.id) for job, _ in made]
    assert list(range(1, 51)) == sorted(job.queue.position for job in found)


def test_one_request_id_at_once_makes_one_job(settings, in_threads):
    new = NewJob(project="default", spec=SPEC, classes=("cat", "dog"), request_id="r")
    made = run(settings, lambda store: asyncio.gather(*(on_loop(store.create, new) for _ in range(20))))

    assert 1 == len({job.id for job, _ in made}) == len(in_threads.pending("default"))
    assert 1 == sum(is_new for _, is_new in made)


def test_a_call_outlives_a_restart_of_redis(settings, redis_server, in_threads):
    async def main(store: RedisStore) -> Any:
        await on_loop(store.create, NEW)
        redis_server.kill()
        # Under way while nobody answers.
        calls = [asyncio.create_task(on_loop(store.create, NEW)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(redis_server.start)
        return await asyncio.gather(*calls)

    run(settings, main)

    assert 6 == len(in_threads.pending("default"))


def test_a_redis_that_hangs_is_unavailable_and_then_is_again(settings, redis_server):
    async def main() -> list[Any]:
        link = AsyncLink(settings, patience=0.2)
        process = redis_server.pid
        await link.run(("PING",))
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(redis.TimeoutError):
                await link.run(("PING",))
        finally:
            os.kill(process, signal.SIGCONT)
        try:
            return await link.run(("PING",))
        finally:
            await link.close()

    assert [b"PONG"] == asyncio.run(main())


def test_a_caller_that_leaves_takes_nobody_elses_answer_along(settings):
    async def main() -> list[Any]:
        link = AsyncLink(settings)
        await link.run(("PING",))
        leaves = asyncio.create_task(link.run(("ECHO", "first")))
        stays = asyncio.create_task(link.run(("ECHO", "second"), ("ECHO", "third")))
        await asyncio.sleep(0)
        leaves.cancel()
        try:
            return await stays
        finally:
            await link.close()

    assert [b"second", b"third"] == asyncio.run(main())


def test_however_callers_leave_and_connections_break_each_gets_its_own_answer(settings, redis_client):
    """A slice of what was tried with 100,000 calls."""
    dice = random.Random(7)

    async def asks(link: AsyncLink, number: int) -> None:
        words = [f"{number}-{at}" for at in range(dice.randint(1, 4))]
        assert [word.encode() for word in words] == await link.run(*(("ECHO", word) for word in words))

    async def main() -> list[Any]:
        link, calls = AsyncLink(settings), []
        for number in range(600):
            calls.append(asyncio.create_task(asks(link, number)))
            if dice.random() < 0.3:
                await asyncio.sleep(0)
            if dice.random() < 0.3:
                dice.choice(calls).cancel()
            if number % 100 == 50:
                await asyncio.to_thread(redis_client.client_kill_filter, _type="normal", skipme=True)
        try:
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await link.close()

    answers = asyncio.run(main())
    assert 400 < answers.count(None) < 600
    assert all(answer is None or isinstance(answer, asyncio.CancelledError) for answer in answers)


def test_a_command_that_cannot_be_sent_is_its_own_callers_fault_alone(settings):
    async def main() -> list[Any]:
        link = AsyncLink(settings)
        await link.run(("PING",))
        broken = asyncio.create_task(link.run(("MULTI",), ("GET", "a"), ("ECHO", "\ud800"), ("EXEC",)))
        others = [asyncio.create_task(link.run(("ECHO", word))) for word in ("first", "second")]
        with pytest.raises(UnicodeEncodeError):
            await broken
        try:
            async with asyncio.timeout(2):
                return list(await asyncio.gather(*others))
        finally:
            await link.close()

    assert [[b"first"], [b"second"]] == asyncio.run(main())


def test_who_connects_and_leaves_or_waits_in_vain_keeps_nobody_else_waiting(settings, tmp_path: Path):
    async def main() -> None:
        async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        path = tmp_path / "s"
        server = await asyncio.start_unix_server(says_nothing, path)
        # With a password a connection is one when Redis has answered.
        link = AsyncLink(replace(settings, redis_url=f"unix://{path}", redis_password="p"), patience=0.3)
        began = time.monotonic()
        calls = [asyncio.create_task(link.run(("PING",))) for _ in range(10)]
        await asyncio.sleep(0)
        calls.pop(0).cancel()
        async with server, asyncio.timeout(10):
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await link.close()
        assert [redis.TimeoutError] * 9 == [type(answer) for answer in answers]
        assert time.monotonic() - began < 1.5

    asyncio.run(main())


def test_a_redis_that_is_full_still_says_how_a_job_is(settings, in_threads, redis_client):
    job, _ = in_threads.create(NEW)

    async def main(store: RedisStore) -> Any:
        redis_client.config_set("maxmemory", 1)
        # Several in one step, and one alone.
        return await on_loop(store.known, [job.id] * 2), await on_loop(store.get, job.id)

    try:
        assert ([replace(job, queue=None)] * 2, job) == run(settings, main)
    finally:
        redis_client.config_set("maxmemory", 0)


def test_a_redis_that_asks_for_a_password_by_now_is_unavailable_and_says_so(settings, redis_client):
    redis_client.config_set("requirepass", "p")
    try:
        with pytest.raises(UnavailableError, match="PODIUM_REDIS_PASSWORD_FILE"):
            run(settings, lambda store: on_loop(store.serialized, "job-x"))
    finally:
        redis_client.config_set("requirepass", "")


def test_a_call_outlives_a_redis_that_has_no_room_for_its_connection(settings, tmp_path: Path):
    """Played, as Redis says so to whoever connects, and nobody could tell whether before or after the question."""
    refusal, faults = b"-ERR max number of clients reached\r\n", []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        words = iter([refusal, b"+PONG\r\n" + refusal, b"+PONG\r\n"])

        async def redis_of_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"PING\r\n")
            writer.write(next(words))
            writer.close()

        path = tmp_path / "s"
        link = AsyncLink(replace(settings, redis_url=f"unix://{path}"))
        async with await asyncio.start_unix_server(redis_of_one, path), asyncio.timeout(10):
            answers = [await link.run(("PING",)) for _ in range(2)]
            await link.close()
        return answers

    assert ([[b"PONG"], [b"PONG"]], []) == (asyncio.run(main()), faults)


def test_scripts_that_redis_has_forgotten_are_sent_again(settings, redis_client):
    async def main(store: RedisStore) -> Any:
        await on_loop(store.create, NEW)
        redis_client.script_flush()
        return await on_loop(store.create, NEW)

    assert run(settings, main)[1]


def test_what_redis_refuses_is_said_in_the_same_classes_as_elsewhere(settings):
    async def main() -> None:
        link = AsyncLink(settings)
        try:
            with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                await link.run(("SET", "a", "b"), ("HGET", "a", "b"), ("PING",))
            # The answers of the others have been read all the same.
            assert [b"b"] == await link.run(("GET", "a"))
        finally:
            await link.close()

    asyncio.run(main())


def test_a_redis_that_is_not_there_is_unavailable(tmp_path):
    nowhere = Settings(
        redis_url=f"unix://{tmp_path}/none.sock", redis_password=None, artifacts="", data_roots=(), leases=Leases()
    )
    with pytest.raises(UnavailableError):
        run(nowhere, lambda store: on_loop(store.get, "job-x"))


def test_a_job_that_is_only_passed_on_is_the_one_that_is_read(settings, in_threads):
    job, _ = in_threads.create(NEW)
    assignment = in_threads.dispatch(job.id, "n1", 0)
    in_threads.begin(assignment)
    in_threads.recover(assignment, "lost")
    in_threads.begin(in_threads.dispatch(job.id, "n1", 0))
    waiting, _ = in_threads.create(NEW)

    async def main(store: RedisStore) -> Any:
        return [await on_loop(store.serialized, it.id) for it in (job, waiting)]

    started, queued = run(settings, main)
    assert (State.RUNNING, in_threads.get(job.id)) == (started[0], wire.from_bytes(Job, started[1]))
    assert (State.QUEUED, replace(waiting, queue=None)) == (queued[0], wire.from_bytes(Job, queued[1]))
    with pytest.raises(NotFoundError):
        run(settings, lambda store: on_loop(store.serialized, "job-x"))


def test_what_is_asked_while_others_wait_for_their_answers_goes_together(settings, redis_client):
    async def main() -> None:
        link = AsyncLink(settings)
        await link.run(("PING",))
        waits = asyncio.create_task(link.run(("BLPOP", "door", 0)))
        others = []
        for _ in range(200):
            others.append(asyncio.create_task(link.run(("GET", "x"))))
            await asyncio.sleep(0)
        await asyncio.to_thread(redis_client.rpush, "door", "open")
        await asyncio.gather(waits, *others)
        await link.close()

    def reads() -> int:
        return int(redis_client.info("stats")["total_reads_processed"])

    before = reads()
    asyncio.run(main())
    # One for each, had each been sent when it was asked.
    assert reads() - before < 20
