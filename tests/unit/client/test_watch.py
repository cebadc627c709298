from collections.abc import Iterator, Mapping

import pytest

from podium.client import (
    AbortedError,
    ImageFolder,
    InternalError,
    Job,
    JobEvent,
    JobSpec,
    LinearHead,
    OutOfRangeError,
    PodiumError,
    Progress,
    Softmax,
    State,
    UnavailableError,
)
from podium.client._patience import Patience
from podium.client._watch import watch
from podium.jobs.events import Keepalive

SPEC = JobSpec(backbone="x", tuning=LinearHead(), dataset=ImageFolder(train="/x"), sorter=Softmax())


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patience(self, seconds: float = 300.0) -> Patience:
        return Patience(seconds, clock=lambda: self.now, sleep=self.sleep)


def event(sequence: int, job_id: str = "job-1") -> JobEvent:
    return JobEvent(payload=Progress(phase="training", step=sequence), job_id=job_id, sequence=sequence)


def snapshot(sequence: int, job_id: str = "job-1") -> JobEvent:
    return JobEvent(payload=Job(id=job_id, project="default", spec=SPEC, state=State.RUNNING, sequence=sequence))


class Server:
    """Events 1 to `last`, with what happens after so many of them on each stream."""

    def __init__(self, last: int, breaks: list[tuple[int, PodiumError]], skip: int = 0, repeat: bool = False) -> None:
        self.last, self.breaks, self.skip, self.repeat = last, list(breaks), skip, repeat
        self.asked: list[int] = []

    def open(self, places: Mapping[str, int]) -> Iterator[JobEvent]:
        ((_, after),) = places.items()
        self.asked.append(after)
        count, error = self.breaks.pop(0) if self.breaks else (self.last, None)
        yield snapshot(self.last)
        yield JobEvent(payload=Keepalive())
        for number, sequence in enumerate(range(after if self.repeat and after else after + 1, self.last + 1)):
            if error is not None and number == count:
                raise error
            if sequence == self.skip:
                self.skip = 0
                continue
            yield event(sequence)
        if error is not None:
            raise error


def sequences(server: Server, after: int = 0) -> list[int]:
    return [found.sequence for found in watch(server.open, {"job-1": after}, Time().patience())]


def test_a_watch_greets_once_and_tells_every_event_once_however_often_it_breaks():
    server = Server(9, [(3, UnavailableError("gone")), (0, AbortedError("too slow")), (4, UnavailableError("gone"))])

    assert [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] == sequences(server)
    assert [0, 3, 3, 7] == server.asked


def test_a_watch_that_begins_later_tells_only_what_is_later():
    assert [0, 6, 7] == sequences(Server(7, []), after=5)


def test_an_event_that_a_server_repeats_is_told_once():
    server = Server(5, [(2, UnavailableError("gone"))], repeat=True)

    assert [0, 1, 2, 3, 4, 5] == sequences(server)


def test_a_gap_is_never_passed_over():
    server = Server(5, [], skip=3)

    assert [0, 1, 2, 3, 4, 5] == sequences(server)
    assert [0, 2] == server.asked


def test_each_of_many_jobs_is_greeted_once_and_resumed_from_its_own_place():
    asked: list[dict[str, int]] = []

    def both(places: Mapping[str, int]) -> Iterator[JobEvent]:
        asked.append(dict(places))
        for name in places:
            yield snapshot(4, name)
        for sequence in range(1, 5):
            for name, after in asked[-1].items():
                if len(asked) == 1 and (name, sequence) == ("job-2", 3):
                    raise UnavailableError("gone")
                if sequence > after:
                    yield event(sequence, name)

    told = list(watch(both, {"job-1": 0, "job-2": 0}, Time().patience()))

    assert [{"job-1": 0, "job-2": 0}, {"job-1": 3, "job-2": 2}] == asked
    assert ["job-1", "job-2"] == [found.payload.id for found in told if isinstance(found.payload, Job)]
    assert [[1, 2, 3, 4]] * 2 == [
        [found.sequence for found in told if found.sequence and found.job_id == name] for name in ("job-1", "job-2")
    ]


@pytest.mark.parametrize("error", [OutOfRangeError("too old"), InternalError("fault r1")])
def test_what_will_not_pass_is_raised_at_once(error):
    server = Server(5, [(2, error)])

    with pytest.raises(type(error)):
        sequences(server)
    assert 1 == len(server.asked)


def test_patience_ends_when_nothing_has_come_for_so_long():
    time, tries = Time(), []

    def never(places: Mapping[str, int]) -> Iterator[JobEvent]:
        tries.append(time.now)
        raise UnavailableError("nobody there")
        yield

    with pytest.raises(UnavailableError, match="nobody there"):
        list(watch(never, {"job-1": 0}, time.patience(seconds=60)))
    assert 60 <= time.now < 70
    # First quickly, then at a pace that a server on its feet again can bear.
    assert 3 <= len([now for now in tries if now < 1]) <= 6
    assert len(tries) < 40


def test_patience_is_whole_again_after_every_event():
    # Each stream brings one event, and each break costs pauses; together they are longer than the patience.
    time, server = Time(), Server(200, [(1, UnavailableError("gone"))] * 199)

    told = [found.sequence for found in watch(server.open, {"job-1": 0}, time.patience(seconds=1))]

    assert list(range(201)) == told
    assert time.now > 1
