"""Jobs: accept, look, change, stop, delete."""

import logging
from collections.abc import Mapping

from podium.api.v1 import job_pb2
from podium.api.v1.job_service_pb2 import CreateJobRequest, ListJobsRequest
from podium.jobs import wire
from podium.jobs.errors import FieldViolation, InvalidSpecError, NotFoundError, OutOfRangeError
from podium.jobs.job import Job
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store import JobStore, NewJob, new_job_id
from podium.server.access import DEFAULT_PROJECT, facts
from podium.server.admission import Admission
from podium.server.context import in_hand
from podium.server.dispatcher import Outlook
from podium.server.services._paging import bad_token, make_token, read_token
from podium.server.services.filters import compile_filter

_LOG = logging.getLogger(__name__)
DEFAULT_PAGE = 50
LARGEST_PAGE = 1000
#: Jobs on one WatchJobs, as the contract's own rule has it.
MOST_WATCHED = 1000
#: Bytes of a spec's fields that this release does not know. It keeps them, so there is an end to it.
_MOST_UNKNOWN = 64 << 10
#: As many labels as the contract lets a spec have.
_MOST_LABELS = 64
#: The words of an order -> whether it begins with the oldest job.
_ORDERS: Mapping[tuple[str, ...], bool] = {(): False, ("create_time", "desc"): False, ("create_time",): True}


class Jobs:
    """The jobs in the ledger.

    Args:
        store: the ledger.
        admission: says whether a spec will do.
        outlook: says what a queued job waits for.
    """

    def __init__(self, store: JobStore, admission: Admission, outlook: Outlook) -> None:
        self._store = store
        self._admission = admission
        self._outlook = outlook

    def create(self, request: CreateJobRequest) -> bytes:
        """Accepts a job, or says everything that is wrong with it; with validate_only the job has no id. Its message.

        Raises:
            InvalidSpecError: the spec is not valid.
            NotFoundError: it names something that does not exist.
            AlreadyExistsError: the request_id was used with another spec.
        """
        project = request.project or DEFAULT_PROJECT
        asked = wire.digest(request.spec)
        try:
            admitted = self._admission.admit(request)
        except (InvalidSpecError, NotFoundError):
            # The data may have changed since the job was accepted.
            earlier = self._earlier(request, project, asked)
            if earlier is None:
                raise
            return earlier
        _check_unknown(request)
        if request.validate_only:
            return job_pb2.Job(
                project=project,
                spec=admitted.spec,
                state=job_pb2.Job.STATE_QUEUED,
                classes=admitted.classes,
                created_by=_creator(),
            ).SerializeToString()
        new_job = NewJob(
            project=project,
            spec=admitted.spec,
            classes=admitted.classes,
            request_id=request.request_id,
            asked=asked,
            created_by=_creator(),
            trace_parent=in_hand().trace_parent,
            id=new_job_id(),
        )
        # Before the ledger is asked: whoever called may go away, and the job be there all the same.
        facts().target = new_job.id
        try:
            made = self._store.submit(new_job)
        except NotFoundError:
            # The checkpoint that it starts from was deleted since it was admitted: now the field is named.
            self._admission.admit(request)
            raise
        in_hand().job_id = made.id
        facts().target = made.id
        if not made.new:
            _LOG.info("repeated the request for %s", made.id)
        return self._explained(made.state, made.message, made.place)

    def _earlier(self, request: CreateJobRequest, project: str, asked: str) -> bytes | None:
        """The job that the same request made before, when its spec was still good."""
        if not request.request_id or request.validate_only:
            return None
        earlier = self._store.replayed(project, request.request_id, asked)
        if earlier is None:
            return None
        facts().target = earlier.id
        _LOG.info("repeated the request for %s", earlier.id)
        return self.serialized(earlier.id)

    def serialized(self, job_id: str) -> bytes:
        """The job as it stands, with what it waits for: its message."""
        return self._explained(*self._store.serialized(job_id))

    def _explained(self, state: State, data: bytes, place: int | None = None) -> bytes:
        if state is not State.QUEUED:
            return data
        # Two messages of one type, one after the other, are their union.
        return data + self._outlook.of_serialized(data, self._store.place if place is None else lambda *_: place)

    def page(self, request: ListJobsRequest) -> tuple[list[Job], str]:
        """A page of jobs in the order asked for, and the token of the next page.

        Raises:
            InvalidSpecError: the filter or the order cannot be read, or the token is not of this list.
        """
        project, oldest_first = request.project or DEFAULT_PROJECT, _oldest_first(request.order_by)
        asked = frozenset(State(value) for value in request.states if value)
        list_of = (project, sorted(state.value for state in asked), request.filter, oldest_first)
        cursor = read_token(request.page_token, list_of)
        only = compile_filter(request.filter)
        states = asked or frozenset(State)
        if only is not None:
            states &= only.states
        if not states:
            return [], ""
        try:
            jobs, cursor = self._store.list(
                project=project,
                # All of them are none to the store, which then need not look.
                states=states if len(states) < len(State) else frozenset(),
                wanted=only.matches if only else None,
                oldest_first=oldest_first,
                cursor=cursor,
                limit=min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE),
            )
        except OutOfRangeError:
            raise bad_token("is not a token of this server") from None
        return self._outlook.explained(jobs), make_token(cursor, list_of)

    def update(self, job_id: str, *, priority: Priority | None, labels: Mapping[str, str]) -> Job:
        """Changes a queued job.

        Args:
            job_id: the job.
            priority: the new one; None leaves it.
            labels: to add or change; one with an empty value is removed.

        Raises:
            InvalidSpecError: nothing is given, or the job would have too many labels.
            FailedPreconditionError: it is not QUEUED.
        """
        if priority is None and not labels:
            raise _wrong("priority", "nothing is to be changed; set priority, labels or both")
        merged = {**self._store.get(job_id).spec.labels, **labels}
        if (count := len([value for value in merged.values() if value])) > _MOST_LABELS:
            raise _wrong(
                "labels",
                f"would be {count} with those that the job has, and {_MOST_LABELS} are the most; "
                "remove some by giving them an empty value",
            )
        return self._outlook.explained([self._store.update(job_id, priority=priority, labels=labels)])[0]

    def cancel(self, job_id: str, reason: str, *, force: bool) -> Job:
        """Asks the job to end; with `force` it has ended.

        Raises:
            FailedPreconditionError: it ended already, and not by a cancel.
        """
        return self._store.cancel(job_id, reason, force=force)

    def pause(self, job_id: str, reason: str) -> Job:
        """Asks the job to save its work and give up its slots.

        Raises:
            FailedPreconditionError: it ended, or is being cancelled.
        """
        return self._store.pause(job_id, reason)

    def resume(self, job_id: str) -> Job:
        """Queues a paused job again.

        Raises:
            FailedPreconditionError: it ended, is being cancelled, or still saves its work.
        """
        return self._outlook.explained([self._store.resume(job_id)])[0]

    def delete(self, job_id: str) -> None:
        """Takes an ended job away; its bytes go soon after.

        Raises:
            NotFoundError: no such job, or it was deleted before.
            FailedPreconditionError: it has not ended, or another one starts from one of its checkpoints.
        """
        self._store.delete(job_id)
        _LOG.info("deleted %s", job_id)


def _oldest_first(order_by: str) -> bool:
    words = tuple(order_by.split())
    if words not in _ORDERS:
        known = " or ".join(f'"{" ".join(order)}"' for order in _ORDERS if order)
        raise _wrong("order_by", f"{order_by[:60]!a} is no order of jobs; write {known}, or leave it empty")
    return _ORDERS[words]


def _creator() -> str:
    token = facts().caller.token
    return token.name if token else ""


def _wrong(field: str, description: str) -> InvalidSpecError:
    return InvalidSpecError([FieldViolation(field=field, description=description)])


def _check_unknown(request: CreateJobRequest) -> None:
    # What is unknown is a part of all, and to tell it apart takes as long as all else.
    if request.spec.ByteSize() > _MOST_UNKNOWN and (size := wire.unknown_in(request.spec).ByteSize()) > _MOST_UNKNOWN:
        raise _wrong("spec", f"{size} bytes of it are fields that this server does not know")
