"""The stacks of every rank of a stalled attempt, on all of its machines, as lines of its log.

    supervisor ── file "asked" ──▶ attempt ── line: stacks ──▶ follower, which collects those of its machine
    supervisor ◀── file "told-1" ── attempt ◀── line: stacks ── follower

The supervisor writes them into the ledger with the attempt's end, in one step and under its fence: an attempt that has
lost its job by then adds none. It waits a few seconds at most, and has a line for each rank that was not heard from.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from podium.jobs.events import Level, LogLine
from podium.jobs.job import Job
from podium.worker.stacks import collect

_ASKED = "asked"
#: How long the other machines have to answer, in seconds. Two of them are their processes'.
_PATIENCE = 5.0
_TICK = 0.05
#: At most so many lines of each process, and of all together, which share them; each of so many characters.
_LINES, _ALL_LINES, _CHARACTERS = 300, 2000, 300


def call_roll(folder: Path, job: Job) -> list[LogLine]:
    """Asks all ranks of a job where they are: the side of the supervisor, on the first machine.

    Args:
        folder: shared with the attempt.
        job: as its attempt runs.

    Returns:
        The lines of the attempt's own process, then at least one of each rank, in their order.
    """
    nodes, each = [member.node for member in job.attempts[-1].members], job.spec.resources.gpus
    until, several = time.monotonic() + _PATIENCE, len(nodes) > 1
    if several:
        (folder / _ASKED).touch()
    told = collect(folder, f" on {nodes[0]}" if several else "")
    if each * len(nodes) == 1:
        return _lines([(0, text) for text in told.values()])
    answers = [told, *(_answer(folder, index, until) for index in range(1, len(nodes)))]
    found = [(0, text) for name, text in told.items() if not name.startswith("rank ")]
    for rank in range(each * len(nodes)):
        answer, node = answers[rank // each], nodes[rank // each]
        name = f"rank {rank} on {node}" if several else f"rank {rank}"
        silence = "has not started" if answer is not None else f"was not heard from: no answer from {node}"
        found.append((rank, (answer or {}).get(f"rank {rank}", f"{name} {silence}")))
    return _lines(found)


def is_called(folder: Path) -> bool:
    """Whether the supervisor asks for the ranks of the other machines, which is so once: the side of the attempt."""
    try:
        (folder / _ASKED).unlink()
    except FileNotFoundError:
        return False
    return True


def hand_over(folder: Path, index: int, told: Mapping[str, Any]) -> None:
    """Hands the supervisor what another machine has said: the side of the attempt.

    Args:
        folder: shared with the supervisor.
        index: the machine's among those of the attempt.
        told: as it came.
    """
    beside = folder / f"told-{index}.tmp"
    with suppress(OSError):  # the supervisor does not wait for ever
        beside.write_text(json.dumps(told), encoding="utf-8")
        beside.replace(_file(folder, index))


def _file(folder: Path, index: int) -> Path:
    return folder / f"told-{index}"


def _answer(folder: Path, index: int, until: float) -> Mapping[str, str] | None:
    """What another machine says of its processes; None: nothing in time."""
    file = _file(folder, index)
    while not file.exists():
        if time.monotonic() > until:
            return None
        time.sleep(_TICK)
    told = json.loads(file.read_bytes())
    return {name: text for name, text in told.items() if isinstance(text, str)}


def _lines(found: Sequence[tuple[int, str]]) -> list[LogLine]:
    """The lines of the log, of texts with their ranks."""
    now, most = datetime.now(UTC), max(1, min(_LINES, _ALL_LINES // max(1, len(found))))
    return [
        # What comes from another machine need not be what UTF-8 can say.
        LogLine(text=line[:_CHARACTERS].encode(errors="replace").decode(), level=Level.ERROR, time=now, rank=rank)
        for rank, text in found
        for line in text.splitlines()[:most]
    ]
