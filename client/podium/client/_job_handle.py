"""A job in the user's hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from podium.client._download import OnBytes, download
from podium.client._logs import Log
from podium.client._patience import Patience
from podium.client._watch import watch
from podium.client._wire import Wire
from podium.jobs.errors import DeadlineExceededError, NotFoundError, OutOfRangeError
from podium.jobs.events import JobEvent, Level, LogLine, MetricSeries
from podium.jobs.job import Checkpoint, Job
from podium.jobs.spec import Priority


class JobHandle:
    """One job on a server. Made by `Client.submit` and `Client.job`; cheap, and usable from several threads.

    Every method may raise `UnavailableError` (no server answers), `DeadlineExceededError` (none in time) and
    `NotFoundError` (no such job).
    """

    def __init__(self, wire: Wire, job_id: str, patience: float) -> None:
        self._wire = wire
        self._patience = patience
        self.id = job_id
        """The job's id, such as "job-0123456789abcdef"."""

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def job(self) -> Job:
        """The job as it stands; its failure, if it failed, is in `error`. Near instant.

        >>> job.job().spec.backbone
        'tf_efficientnet_lite0'
        """
        return self._wire.get_job(self.id)

    def watch(self, after: int = 0) -> Iterator[JobEvent]:
        """First the job as it stands (`payload` is a `Job`), then every event after `after`, in order, each once.

        A connection that breaks is taken up again where it broke. Ends when the job has ended.

        >>> for event in job.watch():                                   # doctest: +SKIP
        ...     print(event.sequence, event.payload)

        Args:
            after: the last sequence that you have; 0 for the whole history.

        Raises:
            OutOfRangeError: events after `after` are no longer kept; `metadata["oldest_sequence"]` names the oldest.
            UnavailableError: no server answered for the client's patience; the job goes on without you.
        """
        return watch(
            lambda last: self._wire.watch_job(self.id, last[self.id]), {self.id: after}, Patience(self._patience)
        )

    def wait(self, timeout: float | None = None, on_event: Callable[[JobEvent], object] | None = None) -> Job:
        """Waits until the job has ended and returns it. Does not raise when the job failed: look at `state`.

        A paused job has not ended: somebody has to resume or to cancel it.

        Args:
            timeout: seconds; None waits however long it takes.
            on_event: called with every event, as `watch` yields them.

        Raises:
            DeadlineExceededError: the job has not ended within `timeout`; it goes on.
            OutOfRangeError: with `on_event` only: the job's first events are no longer kept.
        """
        stop = None if timeout is None else time.monotonic() + timeout
        after = 0 if on_event else self.job().sequence

        def open_stream(last: Mapping[str, int]) -> Iterator[JobEvent]:
            left = None if stop is None else max(0.0, stop - time.monotonic())
            return self._wire.watch_job(self.id, last[self.id], timeout=left)

        try:
            for event in watch(open_stream, {self.id: after}, Patience(self._patience)):
                if on_event is not None:
                    on_event(event)
        except OutOfRangeError:
            if on_event is not None:
                raise
            # Too much happened while the connection was down; only the end matters here.
            return self.wait(None if stop is None else max(0.0, stop - time.monotonic()))
        except DeadlineExceededError:
            sentence = f"{self.id} has not ended within {timeout:g} s; it goes on: wait again, or cancel it"
            raise DeadlineExceededError(sentence) from None
        return self.job()

    def logs(
        self,
        *,
        follow: bool = False,
        attempt: int = 0,
        rank: int | None = None,
        min_level: Level | None = None,
        offset: int | None = None,
    ) -> Log:
        """The job's log, of all attempts and ranks, in the order written; iterate over it. It outlives its machine.

        A connection that breaks is taken up again where it broke.

        >>> for line in job.logs(min_level=Level.WARNING):
        ...     print(line.attempt, line.rank, line.text)

        Args:
            follow: go on with new lines until the job has ended.
            attempt: only this attempt's lines; 0 for all.
            rank: only this rank's; None for all. 0 also speaks for the whole attempt.
            min_level: only lines of this level or worse; None for all.
            offset: lines of the job's log to leave out, asked for or not, such as an earlier `Log.offset`; None for
                those that are no longer kept.

        Raises:
            OutOfRangeError: while iterating: lines from the offset on are no longer kept;
                `metadata["oldest_offset"]` names the oldest.
            UnavailableError: while iterating: no server answered for the client's patience.
        """

        def open_stream(start: int | None) -> Iterator[tuple[tuple[LogLine, ...], int]]:
            return self._wire.read_logs(
                self.id, offset=start, follow=follow, attempt=attempt, rank=rank, min_level=min_level
            )

        return Log(open_stream, offset, Patience(self._patience))

    def metrics(
        self, names: str | Sequence[str] = (), *, first_step: int = 0, last_step: int | None = None, max_points: int = 0
    ) -> dict[str, MetricSeries]:
        """The metrics by name, steps ascending, each step once. Near instant.

        >>> sorted(job.metrics(["val/top1", "val/top5"]))
        ['val/top1', 'val/top5']

        Args:
            names: such as "val/top5", or several; empty for all. One that the job does not have is left out.
            first_step: from this step on.
            last_step: up to this step, inclusive; None for all.
            max_points: points a series at most, the first and last always among them; 0 for the server's limit.
        """
        wanted = [names] if isinstance(names, str) else names
        return self._wire.query_metrics(
            self.id, names=wanted, first_step=first_step, last_step=last_step, max_points=max_points
        )

    def update(self, *, priority: Priority | None = None, labels: Mapping[str, str] | None = None) -> Job:
        """Changes the priority or the labels of a queued job and returns it.

        >>> client.submit(spec).update(labels={"team": "vision"}).spec.labels
        {'team': 'vision'}

        Args:
            priority: the new one; None leaves it.
            labels: to add or to change, the others stay; one with an empty value is removed.

        Raises:
            InvalidSpecError: neither is given, a label is not valid, or the job would have more than 64.
            FailedPreconditionError: it is not queued any more.
        """
        return self._wire.update_job(self.id, priority=priority, labels=labels or {})

    def pause(self, reason: str = "") -> Job:
        """Asks the job to save its work and give up its slots, and returns it; a queued one is paused at once.

        It is PAUSED when its work is saved; look at `state`. Pausing twice changes nothing.

        Raises:
            FailedPreconditionError: it has ended, or is being cancelled.
        """
        return self._wire.pause_job(self.id, reason)

    def resume(self) -> Job:
        """Queues a paused job again, in its old place in line, and returns it. Resuming twice changes nothing.

        Raises:
            FailedPreconditionError: it has ended, is being cancelled, or is still saving its work.
        """
        return self._wire.resume_job(self.id)

    def cancel(self, reason: str = "", *, force: bool = False) -> Job:
        """Asks the job to end and returns it; it writes a checkpoint first. Cancelling twice changes nothing.

        Args:
            reason: for the record.
            force: now: it is CANCELLED at once, without a last checkpoint.

        Raises:
            FailedPreconditionError: it has already ended otherwise.
        """
        return self._wire.cancel_job(self.id, reason, force=force)

    def delete(self) -> None:
        """Deletes the job, which must have ended: nobody sees it any more, and its files go soon after.

        >>> ended = client.submit(spec)
        >>> _ = ended.cancel()
        >>> ended.delete()

        Raises:
            NotFoundError: no such job, or it was deleted before.
            FailedPreconditionError: it has not ended; or a job that has not ended starts from one of its checkpoints
                (reason IN_USE, `metadata["job_id"]`).
        """
        self._wire.delete_job(self.id)

    def delete_checkpoint(self, checkpoint: str) -> None:
        """Deletes one of the job's checkpoints; the job must have ended.

        Args:
            checkpoint: an id, "best" or "last".

        Raises:
            NotFoundError: no such checkpoint, or it was deleted before.
            FailedPreconditionError: the job has not ended; or one that has not ended starts from the checkpoint (reason
                IN_USE, `metadata["job_id"]`).
        """
        self._wire.delete_checkpoint(self._choose(checkpoint).id)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The committed checkpoints, oldest first."""
        return self._wire.list_checkpoints(self.id)

    def download(
        self, directory: str | Path, checkpoint: str | None = None, *, on_bytes: OnBytes = lambda there, total: None
    ) -> Path:
        """Fetches a checkpoint into a folder of its id within `directory`, and returns that folder.

        The folder appears when every file is there and has its SHA-256. What breaks, the next call carries on with.

        Args:
            directory: made if need be.
            checkpoint: an id, "best" or "last"; None for the best, or the last where none is marked.
            on_bytes: called with the bytes that are there and the bytes in all.

        Raises:
            NotFoundError: there is no such checkpoint.
            DataLossError: the bytes do not have their digest.
        """
        chosen = self._choose(checkpoint)

        def open_file(name: str, offset: int) -> Iterator[bytes]:
            return (data for data, _ in self._wire.read_checkpoint(chosen.id, name, offset))

        return download(chosen, Path(directory), open_file, Patience(self._patience), on_bytes)

    def _choose(self, wanted: str | None) -> Checkpoint:
        checkpoints = self.checkpoints()
        best = [checkpoint for checkpoint in checkpoints if checkpoint.best]
        if wanted in (None, "best") and best:
            return best[-1]
        if wanted in (None, "last") and checkpoints:
            return checkpoints[-1]
        for checkpoint in checkpoints:
            if checkpoint.id == wanted:
                return checkpoint
        known = ", ".join(checkpoint.id for checkpoint in checkpoints) or "none yet"
        raise NotFoundError(f"{self.id} has no checkpoint {wanted or 'yet'}; it has: {known}")
