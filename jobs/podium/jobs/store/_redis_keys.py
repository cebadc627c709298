"""Where things stand in Redis, and a job's record as the fields of its hash."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from urllib.parse import quote

from podium.api.v1 import job_pb2
from podium.jobs import wire
from podium.jobs.job import Attempt, Job
from podium.jobs.states import State
from podium.jobs.store._record import BORN, Change, Record
from podium.jobs.store._terms import Wish

_NOW = frozenset(field.name for field in fields(Job)) - BORN
#: What a record has beside the job and the stamp, and how it begins.
_LEDGER = {field.name: field.default for field in fields(Record) if field.name not in ("job", "stamp")}
_UNBORN = {name: value for name, value in _LEDGER.items() if name != "number"} | {"wish": Wish.CONTINUE.value}
#: `ledger` of a new job, as far as its number.
UNNUMBERED = f'{json.dumps(_UNBORN)[:-1]}, "number": '
#: What `from_fields` reads. `past` has the ended attempts, which may be a thousand, and is written when one more ends.
#: `stamp` and `state`, which is state, fence and stamp, are written by lua/enter.lua and lua/commit.lua alone.
FIELDS = ("born", "past", "now", "ledger", "stamp", "state")


#: What `quote` leaves as it is. It takes ten times as long to find that out.
_ordinary = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch


def _word(text: str) -> str:
    """Without colons, so that nobody's words become another key. Ordinary ids stay as they are."""
    return text if _ordinary(text) else quote(text, safe="")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The names of keys."""

    prefix: str

    def job(self, job_id: str) -> str:
        """Hash: FIELDS, and `archive`, the digest of the history once it is in the archive."""
        return f"{self.prefix}job:{_word(job_id)}"

    def events(self, job_id: str) -> str:
        """Stream, ids `<sequence>-0`: d, the event's bytes; t where it has metrics or lines, only those of its time."""
        return f"{self.prefix}job:{_word(job_id)}:events"

    def metrics(self, job_id: str) -> str:
        """Stream, ids `<sequence>-0`: m, an event's bytes with attempt and metrics alone. Never trimmed.

        An older version wrote a, the attempt, and d, the MetricBatch's bytes.
        """
        return f"{self.prefix}job:{_word(job_id)}:metrics"

    def log(self, job_id: str) -> str:
        """Stream, ids `<sequence>-<lines before it>`: l, an event's bytes with attempt and log alone.

        An older version wrote the whole event into `events`.
        """
        return f"{self.prefix}job:{_word(job_id)}:log"

    def checkpoints(self, job_id: str) -> str:
        """Hash: checkpoint id -> bytes."""
        return f"{self.prefix}job:{_word(job_id)}:checkpoints"

    def lease(self, job_id: str) -> str:
        """String with a time to live: the fence of the attempt that lives."""
        return f"{self.prefix}job:{_word(job_id)}:lease"

    def checkpoint(self, checkpoint_id: str) -> str:
        """String: the job's id."""
        return f"{self.prefix}checkpoint:{_word(checkpoint_id)}"

    def starters(self, checkpoint_id: str) -> str:
        """Set of jobs that start from it and have not ended: they protect it."""
        return f"{self.prefix}checkpoint:{_word(checkpoint_id)}:starters"

    def all_of(self, job_id: str) -> tuple[str, ...]:
        """The keys that are a job's own."""
        kinds = (self.job, self.events, self.metrics, self.log, self.checkpoints, self.lease)
        return tuple(kind(job_id) for kind in kinds)

    def pending(self, pool: str) -> str:
        """Sorted set of QUEUED jobs; the score orders them by dispatch."""
        return f"{self.prefix}pending:{pool}"

    def jobs(self, project: str) -> str:
        """Sorted set of a project's jobs by number."""
        return f"{self.prefix}jobs:{project}"

    def request(self, project: str, request_id: str) -> str:
        """String with a time to live: job id, space, digest of the spec."""
        return f"{self.prefix}request:{_word(project)}:{_word(request_id)}"

    def node(self, node_id: str) -> str:
        """String with a time to live: the node's bytes."""
        return f"{self.prefix}node:{_word(node_id)}"

    def node_lease(self, node_id: str) -> str:
        """String with a time to live."""
        return f"{self.prefix}node:{_word(node_id)}:lease"

    def slots(self, node_id: str) -> str:
        """Hash: slot -> job id."""
        return f"{self.prefix}node:{_word(node_id)}:slots"

    def drain(self, node_id: str) -> str:
        """String: what is asked of the node."""
        return f"{self.prefix}node:{_word(node_id)}:drain"

    def failures(self, node_id: str) -> str:
        """Sorted set of attempts that failed there for its hardware, by time in seconds."""
        return f"{self.prefix}node:{_word(node_id)}:failures"

    @property
    def tokens(self) -> str:
        """Hash: token id -> its record; "version", "writer"."""
        return f"{self.prefix}tokens"

    @property
    def audit(self) -> str:
        """Stream of audit events: e, the event's bytes without its id."""
        return f"{self.prefix}audit"

    def audit_writer(self, writer: str) -> str:
        """String with a time to live: the number of the last batch that a server added to the audit trail."""
        return f"{self.prefix}audit:{_word(writer)}"

    @property
    def usage(self) -> str:
        """Hash: "time", and the JSON of [pool, project] -> slot-seconds."""
        return f"{self.prefix}usage"

    @property
    def nodes(self) -> str:
        """Sorted set of node ids by the time of their last heartbeat, in seconds."""
        return f"{self.prefix}nodes"

    @property
    def holding(self) -> str:
        """Sorted set of jobs that hold slots, by number."""
        return f"{self.prefix}holding"

    @property
    def ended(self) -> str:
        """Sorted set of ended jobs whose history is still here, by the time of their end, in seconds."""
        return f"{self.prefix}ended"

    @property
    def tally(self) -> str:
        """Hash: "attempt:" and a cause or "NONE", "job:" and a state -> how many ever ended so."""
        return f"{self.prefix}tally"

    @property
    def pools(self) -> str:
        """Set of the pools that jobs ever asked for."""
        return f"{self.prefix}pools"

    @property
    def deletions(self) -> str:
        """Hash: JSON of [job id, checkpoint id] -> the time in seconds, space, a token of who deleted it."""
        return f"{self.prefix}deletions"

    @property
    def notices(self) -> str:
        """Stream: d, the JSON of a notice. Trimmed."""
        return f"{self.prefix}notices"

    def bookmark(self, reader: str) -> str:
        """String: the JSON of how far a reader of notices is."""
        return f"{self.prefix}bookmark:{_word(reader)}"

    @property
    def created(self) -> str:
        """Counter: the number of the last job."""
        return f"{self.prefix}created"

    @property
    def leader(self) -> str:
        """String with a time to live: the leader's name."""
        return f"{self.prefix}leader"

    @property
    def bell(self) -> str:
        """Channel: ids of jobs with new events."""
        return f"{self.prefix}bell"


def to_fields(change: Change) -> Mapping[str, bytes | str]:
    """The fields to write: what a job was born with never, ended attempts only when one more has ended."""
    record = change.record
    attempts = record.job.attempts
    ended = sum(attempt.end_time is not None for attempt in attempts)
    job = replace(record.job, attempts=attempts[ended:]) if ended else record.job
    now = wire.to_proto(job, only=_NOW)
    ledger = {name: getattr(record, name) for name in _LEDGER} | {"wish": record.wish.value, "past": ended}
    values: dict[str, bytes | str] = {"now": now.SerializeToString(), "ledger": json.dumps(ledger)}
    if ended != record.past:
        past = job_pb2.Job(attempts=map(wire.to_proto, attempts[:ended]))
        values["past"] = past.SerializeToString()
    return values


def amended(born: bytes, record: Record) -> bytes:
    """What a job was born with, with the record's priority and labels, and everything that we do not know of."""
    message = wire.to_proto(record.job)
    priority, labels = message.spec.priority, dict(message.spec.labels)
    message.Clear()
    message.ParseFromString(born)
    message.spec.priority = priority
    message.spec.labels.clear()
    message.spec.labels.update(labels)
    data: bytes = message.SerializeToString()
    return data


def message_of(values: list[bytes | None]) -> job_pb2.Job | None:
    """The job of FIELDS as a message, without ended attempts; None: no such job. Far cheaper than `from_fields`."""
    born, _, now, _, stamp, guarded = values
    if born is None or now is None or stamp is None:
        return None
    # Two messages of one type, one after the other, are their union.
    job = job_pb2.Job.FromString(born + now)
    name, _, of_stamp = (guarded or b"  ").split(b" ")
    if of_stamp == stamp:
        state = State[name.decode()]
        job.state = state.value  # type: ignore[assignment]  # numbers are enum values
        job.terminal = state.terminal
    return job


def serialized(values: list[bytes | None]) -> tuple[State, bytes] | None:
    """As `message_of`, with ended attempts, as bytes beside its state: most jobs need not be taken apart for that."""
    born, past, now, _, stamp, guarded = values
    name, _, of_stamp = (guarded or b"  ").split(b" ")
    if born is not None and past is None and now is not None and of_stamp == stamp:
        state, its = _STATES[name]
        return state, born + now + its
    if (whole := _whole_message_of(values)) is None:
        return None
    return State(whole.state), whole.SerializeToString()


def _stating(state: State) -> bytes:
    """What, after a job's message, says that the job is in this state; that it is not terminal, too."""
    ended = job_pb2.Job(terminal=True).SerializeToString()
    return job_pb2.Job(state=state.value).SerializeToString() + ended[:-1] + bytes([state.terminal])  # type: ignore[arg-type]  # numbers are enum values


#: State, as lua/commit.lua writes it -> what it is, and what says so in a message.
_STATES = {state.name.encode(): (state, _stating(state)) for state in State}


def _whole_message_of(values: list[bytes | None]) -> job_pb2.Job | None:
    job, past = message_of(values), values[FIELDS.index("past")]
    if job is None or past is None:
        return job
    # By number: an older version, which knows no `past`, may have written them all into `now`.
    present = {attempt.number: attempt for attempt in (*job_pb2.Job.FromString(past).attempts, *job.attempts)}
    whole = job_pb2.Job(attempts=present.values())
    job.ClearField("attempts")
    job.MergeFrom(whole)
    return job


def from_fields(values: list[bytes | None]) -> Record | None:
    """The record of FIELDS; None where there is no such job."""
    born, past, now, ledger, stamp, guarded = values
    if born is None or now is None or ledger is None or stamp is None:
        return None
    # What a newer version put there as well is not ours to understand.
    known = {name: value for name, value in json.loads(ledger).items() if name in _LEDGER}
    # An older version leaves these out.
    known["lines"] = known.get("lines")
    known["log_parts"] = tuple(map(tuple, known.get("log_parts", ())))
    # Two messages of one type, one after the other, are their union.
    job = wire.from_bytes(Job, born + now)
    if past:
        # By number: an older version, which knows no `past`, may have written them all into `now`.
        attempts = {attempt.number: attempt for attempt in (*_ended(past), *job.attempts)}
        job = replace(job, attempts=tuple(attempts.values()))
    record = Record(job=job, stamp=stamp.decode(), **{**known, "wish": Wish(known["wish"])})
    return _guarded(record, guarded.decode() if guarded else "")


@lru_cache(maxsize=8)  # an attempt reads its job twice a second
def _ended(past: bytes) -> tuple[Attempt, ...]:
    return tuple(wire.from_proto(Attempt, message) for message in job_pb2.Job.FromString(past).attempts)


def _guarded(record: Record, state: str) -> Record:
    """The record with the state and fence that the script let through, unless an older version has written since."""
    name, fence, stamp = state.split() if state else ("", "", "")
    if stamp != record.stamp:
        return record
    now = State[name]
    job = record.job if record.job.state is now else replace(record.job, state=now, terminal=now.terminal)
    return replace(record, job=job, fence=int(fence))
