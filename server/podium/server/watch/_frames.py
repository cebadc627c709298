"""Events as bytes that go out as they are: serialized once, however many watch."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from podium.api.v1.event_pb2 import JobEvent, Keepalive
from podium.api.v1.job_service_pb2 import WatchJobResponse
from podium.jobs import wire
from podium.jobs.job import Job
from podium.jobs.states import State
from podium.jobs.store import StoredEvent

#: The tag of `event` in a WatchJobResponse, which a frame begins with, and that of `more`.
_EVENT, _MORE = b"\x0a", b"\x12"
#: Bytes of a message of several events; clients take at least four megabytes.
_MOST_TOGETHER = 256 << 10
_TERMINAL = frozenset(state.value for state in State if state.terminal)


class Frame(NamedTuple):
    """One event of the history."""

    job_id: str
    sequence: int
    time: float
    """When it was recorded, in seconds since 1970."""
    data: bytes
    """A WatchJobResponse. A WatchJobsResponse of the same event has the same bytes, which a test holds."""
    ends: bool
    """Whether it ended the job."""
    log: bool = False
    """Whether it has lines of the log."""


class Page(tuple[Frame, ...]):
    """Some events, in order. All who watch a job have the same one, so what it takes to send it is done once."""

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return sum(len(frame.data) for frame in self)

    @cached_property
    def together(self) -> Sequence[bytes]:
        """As few messages as their size allows: of each the first event is `event`, the others are `more`."""
        return tuple(_together(self))

    def after(self, sequence: int) -> "Page":
        """Those above a sequence, where all are of one job."""
        if not self or self[0].sequence > sequence:
            return self
        return Page(frame for frame in self if frame.sequence > sequence)


def framed(job_id: str, events: Iterable[StoredEvent]) -> Page:
    """The events of a job, numbered."""
    return Page(_frame(job_id, stored) for stored in events)


def _together(frames: Iterable[Frame]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for data in (frame.data for frame in frames):
        if parts and size + len(data) > _MOST_TOGETHER:
            yield b"".join(parts)
            parts, size = [], 0
        parts += (_MORE, data[len(_EVENT) :]) if parts else (data,)
        size += len(data)
    if parts:
        yield b"".join(parts)


def snapshot(job: Job) -> bytes:
    """The job as it stands."""
    return _bytes(JobEvent(job_id=job.id, snapshot=wire.to_proto(job)))


def sign_of_life(job_id: str) -> bytes:
    """Nothing new of the job; of any of several, where it is empty."""
    return _bytes(JobEvent(job_id=job_id, keepalive=Keepalive()))


def _frame(job_id: str, stored: StoredEvent) -> Frame:
    response = WatchJobResponse()
    event = response.event
    event.MergeFromString(stored.data)
    event.sequence = stored.sequence
    ends = event.WhichOneof("payload") == "state" and event.state.to_state in _TERMINAL
    recorded = event.time.ToNanoseconds() / 1e9
    return Frame(job_id, stored.sequence, recorded, response.SerializeToString(), ends, event.HasField("log"))


def _bytes(event: JobEvent) -> bytes:
    return WatchJobResponse(event=event).SerializeToString()
