"""A new job, as every store writes it: the bytes of what it says, and the few facts that say where it stands.

A Record has the job as dataclasses. To make these of a spec, and bytes of them again, costs more than all else that a
submission asks of a server, and nobody needs them before the job is changed.
"""

import re
from datetime import datetime
from typing import Any, NamedTuple

from podium.api.v1 import event_pb2, job_pb2, spec_pb2
from podium.jobs import wire
from podium.jobs.job import Job
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store._record import Record
from podium.jobs.store._terms import NewJob

#: Numbers are enum values to protobuf, but not to its stubs.
_QUEUED: Any = State.QUEUED.value
#: What changes of a job, as it begins.
_NOW = job_pb2.Job(state=_QUEUED, sequence=1).SerializeToString()


class Birth(NamedTuple):
    """A job in QUEUED with its one event, before it has a number."""

    job_id: str
    project: str
    pool: str
    priority: Priority
    starts_from: str
    """As `Record.starts_from`."""
    request_id: str
    digest: str
    """Of the spec as it was asked for: what a request_id may be used for again."""
    born: bytes
    """The message of what is never written again."""
    event: bytes

    @property
    def stamp(self) -> str:
        """The first one: letters and digits that are the job's alone, as its id is."""
        return re.sub(r"\W", "", self.job_id)

    @property
    def now(self) -> bytes:
        """The message of all else."""
        return _NOW

    @property
    def message(self) -> bytes:
        """The job's message."""
        # Two messages of one type, one after the other, are their union.
        return self.born + _NOW

    def record(self, number: int) -> Record:
        """The record of the job with this number."""
        return Record(job=wire.from_bytes(Job, self.message), number=number, stamp=self.stamp)


def birth_of(new: NewJob, job_id: str, now: datetime) -> Birth:
    """What to write of a new job."""
    spec = new.spec if isinstance(new.spec, spec_pb2.JobSpec) else wire.to_proto(new.spec)
    time = wire.stamp(now)
    job = job_pb2.Job(
        id=job_id,
        project=new.project,
        spec=spec,
        classes=new.classes,
        create_time=time,
        created_by=new.created_by,
        trace_parent=new.trace_parent,
    )
    event = event_pb2.JobEvent(job_id=job_id, time=time, state=event_pb2.StateChange(to_state=_QUEUED))
    return Birth(
        job_id=job_id,
        project=new.project,
        pool=spec.resources.pool,
        priority=Priority(spec.priority),
        starts_from=spec.weights.checkpoint,
        request_id=new.request_id,
        digest=new.asked or wire.digest(spec),
        born=job.SerializeToString(),
        event=event.SerializeToString(),
    )
