"""ReadLogs at a real server: by offset, filtered, followed, and whole whoever dies."""

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from podium.api.v1 import log_service_pb2 as api
from podium.api.v1.log_pb2 import LogLine as LogLineMessage
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.events import Level, LogBatch, LogLine, MetricBatch
from podium.jobs.states import State
from podium.jobs.store import Archive, Assignment
from podium.jobs.store.redis import RedisStore


def write(
    store: RedisStore, mine: Assignment, batch: int, *texts: str, level: Level = Level.INFO, rank: int = 0
) -> None:
    lines = tuple(LogLine(text=text, level=level, rank=rank) for text in texts)
    store.append(mine, batch, [LogBatch(lines=lines)])


def read(server: Any, job_id: str, **asked: Any) -> list[LogLineMessage]:
    request = api.ReadLogsRequest(job_id=job_id, **asked)
    return [line for response in server.logs.ReadLogs(request, timeout=30) for line in response.lines]


def texts(server: Any, job_id: str, **asked: Any) -> list[str]:
    return [line.text for line in read(server, job_id, **asked)]


class Follower(threading.Thread):
    """Follows a log; knows the offset after what it has."""

    def __init__(self, server: Any, job_id: str, offset: int = 0) -> None:
        super().__init__(daemon=True)
        self.texts: list[str] = []
        self.offset = offset
        self.signs = 0
        self.code: grpc.StatusCode | None = None
        self._call = server.logs.ReadLogs(api.ReadLogsRequest(job_id=job_id, follow=True, offset=offset), timeout=60)
        self.start()

    def run(self) -> None:
        try:
            for response in self._call:
                self.texts += [line.text for line in response.lines]
                self.signs += not response.lines
                self.offset = response.next_offset
        except grpc.RpcError as error:
            self.code = error.code()


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ["a", "b", "c", "d", "e"]),
        ({"offset": 3}, ["d", "e"]),
        ({"offset": 5}, []),
        ({"attempt": 1}, ["a", "b", "c", "d"]),
        ({"attempt": 2, "offset": 1}, ["e"]),
        ({"min_level": "LEVEL_WARNING"}, ["c", "d"]),
        ({"rank": 1}, ["b", "d"]),
        ({"rank": 0, "offset": 1}, ["c", "e"]),
        ({"rank": 1, "min_level": "LEVEL_ERROR", "attempt": 1}, ["d"]),
        ({"attempt": 3}, []),
    ],
)
def test_a_log_is_read_from_an_offset_with_what_is_asked_for(server, store, running, asked, wanted) -> None:
    mine = running()
    write(store, mine, 1, "a")
    write(store, mine, 2, "b", rank=1)
    write(store, mine, 3, "c", level=Level.WARNING)
    write(store, mine, 4, "d", level=Level.ERROR, rank=1)
    store.recover(mine, "its machine is gone")
    again = store.dispatch(mine.job_id, "played", 0)
    store.begin(again)
    write(store, again, 1, "e")

    responses = list(server.logs.ReadLogs(api.ReadLogsRequest(job_id=mine.job_id, **asked), timeout=20))
    lines = [line for response in responses for line in response.lines]
    assert wanted == [line.text for line in lines]
    assert 5 == responses[-1].next_offset
    assert [2 if text == "e" else 1 for text in wanted] == [line.attempt for line in lines]


def test_who_follows_gets_new_lines_and_ends_with_the_job(server, store, running, eventually) -> None:
    mine = running()
    write(store, mine, 1, "before")
    followers = [Follower(server, mine.job_id) for _ in range(3)]
    eventually(lambda: all(follower.texts == ["before"] and follower.signs for follower in followers))
    for batch in range(2, 12):
        write(store, mine, batch, f"{batch}a", f"{batch}b")
    eventually(lambda: all(len(follower.texts) == 21 for follower in followers))
    store.finish(mine, State.SUCCEEDED, reason="done")
    for follower in followers:
        follower.join(30)

    assert not any(follower.is_alive() for follower in followers)
    assert {None} == {follower.code for follower in followers}
    assert 3 * [texts(server, mine.job_id)] == [follower.texts for follower in followers]
    assert texts(server, mine.job_id) == texts(server, mine.job_id, follow=True)


def test_offsets_resume_without_gap_or_double_across_a_killed_server(
    new_server, store, request_for, eventually
) -> None:
    server = new_server("--keepalive", "0.3")
    job_id = server.jobs.CreateJob(request_for(), timeout=20).job.id
    mine = store.dispatch(job_id, "played", 0)
    store.begin(mine)
    got: list[str] = []
    offset = 0
    for batch in range(1, 3):
        follower = Follower(server, job_id, offset)
        write(store, mine, 3 * batch, *(f"{batch}-{at}" for at in range(5)))
        eventually(lambda: len(follower.texts) >= 3)  # noqa: B023  # waited for at once
        server.kill()
        follower.join(30)
        assert grpc.StatusCode.UNAVAILABLE is follower.code
        write(store, mine, 3 * batch + 1, f"while it was away, {batch}")
        got += follower.texts
        offset = follower.offset
        server.start()
    store.finish(mine, State.SUCCEEDED, reason="done")
    got += texts(server, job_id, offset=offset, follow=True)

    wanted = [[*(f"{batch}-{at}" for at in range(5)), f"while it was away, {batch}"] for batch in range(1, 3)]
    assert [text for texts_of_one in wanted for text in texts_of_one] == got


def test_a_log_outlives_its_machine_and_moves_into_the_archive(server, store, running, artifacts_root: Path) -> None:
    mine = running()
    write(store, mine, 1, *map(str, range(300)), level=Level.ERROR, rank=2)
    for batch in range(2, 5):
        store.append(mine, batch, [MetricBatch.at(step, {"loss": 1.0}) for step in range(50)])
    store.cancel(mine.job_id, "its machine is gone", force=True)
    before = read(server, mine.job_id, offset=7)
    store._archive = Archive(ArtifactStore(str(artifacts_root)))
    store.archive(mine.job_id)

    assert 293 == len(before)
    assert before == read(server, mine.job_id, offset=7)
    assert {(1, 2, LogLineMessage.LEVEL_ERROR)} == {(line.attempt, line.rank, line.level) for line in before}


def test_what_is_not_kept_is_out_of_range_and_the_oldest_offset_is_told(server, store, running, refused) -> None:
    store._log_kept = 1000
    mine = running()
    for batch in range(1, 30):
        write(store, mine, batch, f"{batch}".ljust(100))
    status = refused(server.logs.ReadLogs, api.ReadLogsRequest(job_id=mine.job_id, offset=0))

    assert (grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE") == (status.code, status.reason)
    oldest = int(status.metadata["oldest_offset"])
    assert [str(batch) for batch in range(oldest + 1, 30)] == [
        text.strip() for text in texts(server, mine.job_id, offset=oldest)
    ]
    assert texts(server, mine.job_id) == texts(server, mine.job_id, offset=oldest)
    future = refused(server.logs.ReadLogs, api.ReadLogsRequest(job_id=mine.job_id, offset=30))
    assert grpc.StatusCode.OUT_OF_RANGE is future.code


def test_no_job_has_no_log(server, refused) -> None:
    status = refused(server.logs.ReadLogs, api.ReadLogsRequest(job_id="job-none"))
    assert (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND") == (status.code, status.reason)
