"""A watch that outlives its streams: every event once, in order, however often the connection breaks."""

from collections.abc import Callable, Iterator, Mapping

from podium.client._patience import Patience
from podium.jobs.errors import PodiumError, UnavailableError
from podium.jobs.events import JobEvent, Keepalive
from podium.jobs.job import Job

#: Opens one stream of the events of jobs, of each after its sequence.
OpenStream = Callable[[Mapping[str, int]], Iterator[JobEvent]]


def watch(open_stream: OpenStream, after: Mapping[str, int], patience: Patience) -> Iterator[JobEvent]:
    """Each job as it stands, once, and each event of it after its sequence; ends after those that ended the jobs.

    Raises:
        PodiumError: the stream ended with an error that will not pass, or that did not within the patience.
    """
    last, greeted = dict(after), set[str]()
    while True:
        try:
            for event in open_stream(last):
                patience.success()
                if isinstance(event.payload, Job):
                    if event.payload.id not in greeted:
                        greeted.add(event.payload.id)
                        yield event
                elif not isinstance(event.payload, Keepalive) and event.sequence > last[event.job_id]:
                    _refuse_gap(event, last[event.job_id])
                    last[event.job_id] = event.sequence
                    yield event
        except PodiumError as error:
            patience.wait(error)
        else:
            return


def _refuse_gap(event: JobEvent, last: int) -> None:
    if event.sequence != last + 1:
        raise UnavailableError(f"the stream of {event.job_id} left out what is between {last} and {event.sequence}")
