"""How an attempt got to its first step, told as spans of the trace that its job belongs to."""

import threading
from collections.abc import Callable
from datetime import datetime

from podium.jobs.job import Job
from podium.jobs.tracing import Spell, tracer, wanted

#: Seconds that an attempt which ends waits for its spans to be sent.
_SENDING = 2.0


class Journey:
    """Notes when each part began, and tells all of it at the first step. Does nothing where the job is not traced.

    Args:
        job: as its present attempt began.
        start: the step that the attempt goes on from.
        clock: the time, aware.
        tell: sends a span that is over, as a part of the trace of a traceparent.
    """

    def __init__(
        self,
        job: Job,
        start: int,
        *,
        clock: Callable[[], datetime],
        tell: Callable[[Spell, str], None] | None = None,
    ) -> None:
        self._job = job
        self._start = start
        self._clock = clock
        self._tell = tell or _send
        self._over = not (job.trace_parent and (tell or wanted()))
        self._parts = [("beginning", clock())]
        self._thread: threading.Thread | None = None

    def at(self, step: int, phase: str = "") -> None:
        """What the attempt is at: a step, and where it is known the phase, in words that are few."""
        if self._over:
            return
        if step > self._start:
            self._over = True
            # Beside the work: OpenTelemetry is imported and speaks to the network.
            spell, parent = self._spell(self._clock()), self._job.trace_parent
            self._thread = threading.Thread(target=self._tell, args=(spell, parent), name="journey", daemon=True)
            self._thread.start()
        elif phase and phase != self._parts[-1][0]:
            self._parts.append((phase, self._clock()))

    def close(self) -> None:
        """Lets what is told be sent, for a moment."""
        if self._thread is not None:
            self._thread.join(_SENDING)

    def _spell(self, arrived: datetime) -> Spell:
        *earlier, attempt = self._job.attempts
        began = self._parts[0][1]
        dispatched = attempt.start_time or began
        queued = (earlier[-1].end_time if earlier else self._job.create_time) or dispatched
        ends = [*(start for _, start in self._parts[1:]), arrived]
        parts = (
            _spell("queued", queued, dispatched),
            _spell("starting", dispatched, began),
            *(_spell(name, start, end) for (name, start), end in zip(self._parts, ends, strict=True)),
        )
        facts: dict[str, str | int] = {
            "podium.job_id": self._job.id,
            "podium.attempt": attempt.number,
            "podium.node": attempt.node,
        }
        return Spell(name="first step", start=queued, end=max(arrived, queued), within=parts, facts=facts)


def _spell(name: str, start: datetime, end: datetime) -> Spell:
    # The clocks of server and worker may differ.
    return Spell(name=name, start=start, end=max(start, end))


def _send(spell: Spell, trace_parent: str) -> None:
    if (sender := tracer("podium-worker")) is not None:
        sender.tell(spell, trace_parent)
        sender.close()
