"""Values as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime


def printable(text: str) -> str:
    """The text without what would steer the terminal: it may come from a log, a file's name, a server."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def percent(value: float) -> str:
    """An accuracy: 0.672 -> "67.2"."""
    return f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """A time span: 75 -> "1:15"."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ago(time: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in one unit: "3 min"."""
    if time is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(0.0, seconds))} s"


def until(time: datetime, now: datetime | None = None) -> str:
    """How far ahead, in one unit: "in about 12 min"."""
    seconds = (time - (now or datetime.now(UTC))).total_seconds()
    if seconds < 60:
        return "within a minute"
    size, unit = next(one for one in ((86400, "d"), (3600, "h"), (60, "min")) if seconds >= one[0])
    return f"in about {round(seconds / size)} {unit}"


def clock(time: datetime, now: datetime | None = None) -> str:
    """A time of day here: "14:02:11"; of another day with its date: "Nov 24 14:02:11"."""
    local, today = time.astimezone(), (now or datetime.now(UTC)).astimezone()
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%b} {local.day} {local:%H:%M:%S}"


def standing(job_id: str, state: str, reason: str) -> str:
    """Why a job is in its state, and what comes next where that is not plain; may be empty.

    >>> standing("job-1", "PAUSED", "lunch")
    'lunch; `podium resume job-1` lets it go on'
    """
    saving = "it saves its work first"
    paused = f"`podium resume {job_id}` lets it go on"
    hint = {"PAUSING": saving, "CANCELLING": saving, "PAUSED": paused}.get(state, "")
    return "; ".join(part for part in (reason, hint) if part)


def count(number: float) -> str:
    """A large number: 5288548 -> "5.3 M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def k_distribution(k: Mapping[int, float]) -> str:
    """P_K: {1: 0.5, 5: 0.5} -> "½ top-1 + ½ top-5"."""
    halves = {0.5: "½ ", 1.0: "", 0.25: "¼ ", 0.75: "¾ "}
    return " + ".join(f"{halves.get(weight, f'{weight:g} ')}top-{rank}" for rank, weight in sorted(k.items()) if weight)


def evaluated_splits(names: Iterable[str]) -> list[str]:
    """The splits that metrics are of, such as "val" and "test_untouched", validation first; "train" is none of them."""
    found = {name.partition("/")[0] for name in names}
    wanted = [split for split in found if split.partition("_")[0] in ("val", "test")]
    return sorted(wanted, key=lambda split: (split.partition("_")[0] == "test", split))
