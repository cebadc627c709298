"""The log of a job, in both ledgers: apart from its events, by offset, bounded."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import redis

from podium.jobs import wire
from podium.jobs.artifacts import ArtifactStore
from podium.jobs.errors import NotFoundError, OutOfRangeError
from podium.jobs.events import JobEvent, Level, LogBatch, LogLine, MetricBatch
from podium.jobs.states import State
from podium.jobs.store import Archive, Assignment, JobStore, MemoryStore, StoredEvent
from podium.jobs.store.redis import RedisStore
from tests.contract.plays import history, lines_of, start, submit


def batch(*texts: str) -> LogBatch:
    return LogBatch(lines=tuple(LogLine(text=text) for text in texts))


def texts(store: JobStore, job_id: str, offset: int | None = None) -> list[str]:
    return [text for _, _, text in lines_of(store, job_id, offset, limit=2)]


def numbered(store: JobStore, mine: Assignment, lines: int, *, size: int = 10) -> None:
    """Writes lines "0", "1", ... padded to a size, three in a row."""
    for first in range(0, lines, 3):
        row = batch(*(f"{at}".ljust(size) for at in range(first, min(first + 3, lines))))
        store.append(mine, first + 1, [row, MetricBatch.at(first, {"loss": 1.0})])


@pytest.fixture(params=["memory", "redis"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> JobStore:
    """A ledger that keeps 8 KiB of log a job."""
    archive = Archive(ArtifactStore(str(tmp_path)))
    if request.param == "memory":
        return MemoryStore(log_kept=8 << 10, archive=archive)
    return RedisStore(request.getfixturevalue("redis_client"), log_kept=8 << 10, archive=archive)


def test_every_line_has_its_offset_from_wherever_it_is_read(store: JobStore) -> None:
    mine = start(store)
    numbered(store, mine, 20)
    store.recover(mine, "lost", lines=[LogLine(text="last"), LogLine(text="words")])
    again = store.dispatch(mine.job_id, "n1", 0)
    store.begin(again)
    store.append(again, 1, [batch("new")])

    whole = [*(str(at) for at in range(20)), "last", "words", "new"]
    found = lines_of(store, mine.job_id)
    assert list(range(23)) == [offset for offset, _, _ in found]
    assert [1] * 22 + [2] == [attempt for _, attempt, _ in found]
    for offset in range(24):
        assert whole[offset:] == [text.rstrip() for text in texts(store, mine.job_id, offset)]


def test_a_log_without_lines_is_an_empty_page(store: JobStore) -> None:
    job = submit(store)
    page = store.log(job.id)

    assert ((), 0, 0, job.sequence) == (page.rows, page.oldest_offset, page.end_offset, page.last_sequence)
    assert page == store.log(job.id, offset=0)
    with pytest.raises(NotFoundError):
        store.log("job-none")


@pytest.mark.parametrize("archived", [False, True])
def test_what_lies_in_the_future_is_out_of_range(store: JobStore, archived: bool) -> None:
    mine = start(store)
    numbered(store, mine, 4)
    store.finish(mine, State.SUCCEEDED, reason="done")
    if archived:
        store.archive(mine.job_id)

    assert () == store.log(mine.job_id, offset=4).rows
    for offset in (5, 2**64 - 1):
        with pytest.raises(OutOfRangeError, match="kept are 0 to 4") as caught:
            store.log(mine.job_id, offset=offset)
        assert {"oldest_offset": "0", "end_offset": "4"} == caught.value.metadata


def test_metrics_push_no_lines_out(world) -> None:
    store = world.trimming
    mine = start(store)
    store.append(mine, 1, [batch("one", "two")])
    for at in range(2, 30):
        store.append(mine, at, [MetricBatch.at(at, {"loss": 1.0})])

    assert store.events(mine.job_id, after=store.get(mine.job_id).sequence).oldest_sequence > 20
    assert ["one", "two"] == texts(store, mine.job_id)
    store.finish(mine, State.SUCCEEDED, reason="done")
    store.archive(mine.job_id)
    assert ["one", "two"] == texts(store, mine.job_id)
    assert 28 == len(list(store.metrics(mine.job_id)))


@pytest.mark.parametrize("archived", [False, True])
def test_of_a_long_log_the_newest_lines_are_kept_and_the_oldest_offset_is_told(small: JobStore, archived: bool) -> None:
    mine = start(small)
    numbered(small, mine, 600, size=100)
    small.finish(mine, State.SUCCEEDED, reason="done")
    if archived:
        small.archive(mine.job_id)

    oldest = small.log(mine.job_id, limit=1).oldest_offset
    kept = [int(text) for text in texts(small, mine.job_id)]
    assert list(range(oldest, 600)) == kept
    assert 6 << 10 < len(kept) * 132 <= 8 << 10
    assert ["599"] == [text.rstrip() for text in texts(small, mine.job_id, 599)]
    with pytest.raises(OutOfRangeError) as caught:
        small.log(mine.job_id, offset=oldest - 1)
    assert str(oldest) == caught.value.metadata["oldest_offset"]


def test_a_watch_has_every_line_or_is_told_where_it_can_begin(small: JobStore) -> None:
    mine = start(small)
    numbered(small, mine, 600, size=100)

    with pytest.raises(OutOfRangeError) as caught:
        small.events(mine.job_id, after=0)
    after = int(caught.value.metadata["oldest_sequence"]) - 1
    page = small.events(mine.job_id, after=after)
    payloads = [wire.from_bytes(JobEvent, event.data).payload for event in page.events]
    watched = [line.text for payload in payloads if isinstance(payload, LogBatch) for line in payload.lines]
    assert watched == texts(small, mine.job_id)
    assert 200 == len(list(small.metrics(mine.job_id)))


def test_news_bring_lines_page_by_page(store: JobStore) -> None:
    mine = start(store)
    first = store.get(mine.job_id).sequence
    for at in range(1, 6):
        store.append(mine, at, [batch(f"{at}", f"{at}")])

    for after in range(first, first + 5):
        news = store.news({mine.job_id: after}, limit=2)[mine.job_id]
        assert list(store.events(mine.job_id, after=after, limit=2).events) == list(news)


def test_a_line_keeps_what_it_is(store: JobStore) -> None:
    mine = start(store)
    lines = (LogLine(text="möp\u2028", level=Level.ERROR, rank=3), LogLine(text="", level=Level.DEBUG))
    store.append(mine, 1, [LogBatch(lines=lines)])

    (row,) = store.log(mine.job_id).rows
    event = wire.from_bytes(JobEvent, row.data)
    assert (1, LogBatch(lines=lines)) == (event.attempt, event.payload)
    assert event.payload == history(store, mine.job_id)[-1].payload


class TestOfAnOlderVersion:
    """Which wrote lines among the events, and counted none."""

    @pytest.fixture
    def store(self, redis_client: redis.Redis, tmp_path: Path) -> RedisStore:
        return RedisStore(redis_client, archive=Archive(ArtifactStore(str(tmp_path))))

    def as_it_was(self, client: redis.Redis, store: RedisStore, job_id: str) -> None:
        """Writes a job's rows again as that version did, and drops what it did not know of the record."""
        events = store.events(job_id, after=0).events
        client.delete(f"podium:job:{job_id}:events", f"podium:job:{job_id}:log")
        for event in events:
            client.xadd(f"podium:job:{job_id}:events", {"d": event.data}, id=f"{event.sequence}-0")
        ledger = json.loads(client.hget(f"podium:job:{job_id}", "ledger") or b"")
        known = {name: value for name, value in ledger.items() if name not in ("lines", "log_parts")}
        client.hset(f"podium:job:{job_id}", "ledger", json.dumps(known))

    def test_lines_are_read_and_go_on_behind(self, store: RedisStore, redis_client: redis.Redis) -> None:
        mine = start(store)
        numbered(store, mine, 5)
        self.as_it_was(redis_client, store, mine.job_id)
        assert list("01234") == [text.rstrip() for text in texts(store, mine.job_id)]
        store.append(mine, 90, [batch("5", "6")])
        self_written = store.get(mine.job_id).sequence
        store.append(mine, 91, [batch("7")])

        for offset in range(9):
            assert list("01234567")[offset:] == [text.rstrip() for text in texts(store, mine.job_id, offset)]
        assert self_written == store.log(mine.job_id).last_sequence - 1
        assert 8 == store.log(mine.job_id).end_offset
        store.finish(mine, State.SUCCEEDED, reason="done")
        store.archive(mine.job_id)
        assert list("01234567") == [text.rstrip() for text in texts(store, mine.job_id)]
        assert ["6", "7"] == texts(store, mine.job_id, 6)

    def test_an_archive_without_counts_is_read(self, tmp_path: Path) -> None:
        artifacts = ArtifactStore(str(tmp_path))
        rows = [
            StoredEvent(sequence=at, data=wire.to_bytes(JobEvent(payload=batch(f"{at}a", f"{at}b"))))
            for at in range(1, 5)
        ]
        digest = Archive(artifacts).write("job-a", oldest=1, last=4, rows=rows)
        with zipfile.ZipFile(artifacts.history_path("job-a", digest)) as now:
            members = {name: now.read(name) for name in now.namelist()}
        index = json.loads(members["index.json"])
        blocks = [{name: value for name, value in block.items() if name != "lines"} for block in index["blocks"]]
        first = {"format": 1, "job_id": "job-a", "oldest": 1, "last": 4, "blocks": blocks}
        members["index.json"] = json.dumps(first).encode()
        digest = hashlib.sha256(members["index.json"]).hexdigest()
        with zipfile.ZipFile(artifacts.history_path("job-a", digest), "w") as then:
            for name, data in members.items():
                then.writestr(name, data)
        page = Archive(artifacts).log("job-a", digest, offset=3, limit=2)

        assert (0, 8, 4) == (page.oldest_offset, page.end_offset, page.last_sequence)
        assert [(2, rows[1].data), (4, rows[2].data)] == [(row.offset, row.data) for row in page.rows]
