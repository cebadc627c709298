"""A watch that outlives its streams: every event once, in order, however often the connection breaks."""

from collections.abc import Callable, Iterator

from podium.client._patience import Patience
from podium.jobs.errors import PodiumError, UnavailableError
from podium.jobs.events import JobEvent, Keepalive
from podium.jobs.job import Job

#: Opens one stream of a job's events after a sequence.
OpenStream = Callable[[int], Iterator[JobEvent]]


def watch(open_stream: OpenStream, after: int, patience: Patience) -> Iterator[JobEvent]:
    """The job as it stands, once, then each event after `after`; ends after the event that made the job terminal.

    Raises:
        PodiumError: the stream ended with an error that will not pass, or that did not within the patience.
    """
    last, greeted = after, False
    while True:
        try:
            for event in open_stream(last):
                patience.success()
                if isinstance(event.payload, Job):
                    if not greeted:
                        greeted = True
                        yield event
                elif not isinstance(event.payload, Keepalive) and event.sequence > last:
                    _refuse_gap(event, last)
                    last = event.sequence
                    yield event
        except PodiumError as error:
            patience.wait(error)
        else:
            return


def _refuse_gap(event: JobEvent, last: int) -> None:
    if event.sequence != last + 1:
        raise UnavailableError(f"the stream of {event.job_id} left out what is between {last} and {event.sequence}")
