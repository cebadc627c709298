"""The log of a worker's processes: each works for one attempt at most, which every line of its log then names."""

from podium.jobs import logs

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_about: dict[str, object] = {}


def configure() -> None:
    """Sends the log of this process to stderr.

    Raises:
        ValueError: PODIUM_LOG_FORMAT is neither text nor json.
    """
    logs.configure(_TEXT, _about.copy)


def about(**facts: object) -> None:
    """What this process works for, from now on: job_id, attempt, rank, trace_id."""
    _about.update(facts)
