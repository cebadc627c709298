"""A job on a terminal: its state, a bar, the top-k numbers, the last lines of its log."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from podium.client.cli._board import Board
from podium.client.cli._text import (
    count,
    duration,
    evaluated_splits,
    k_distribution,
    percent,
    printable,
    standing,
    until,
)
from podium.jobs.events import Level
from podium.jobs.job import Job, Progress, QueueInfo
from podium.jobs.spec import JobSpec
from podium.jobs.states import State

STATE_STYLES = {
    "QUEUED": "yellow",
    "STARTING": "cyan",
    "RUNNING": "bold cyan",
    "RECOVERING": "bold magenta",
    "PAUSING": "yellow",
    "PAUSED": "yellow",
    "CANCELLING": "yellow",
    "CANCELLED": "bold yellow",
    "SUCCEEDED": "bold green",
    "FAILED": "bold red",
}
_LEVEL_STYLES = {Level.WARNING: "yellow", Level.ERROR: "red"}
_RANKS = (1, 2, 3, 4, 5, 10)


def board_view(board: Board, *, lines: bool = True) -> RenderableType:
    """Everything that a watcher wants to see at once."""
    if board.job is None:
        return Text("connecting ...", style="dim")
    parts: list[RenderableType] = [headline(board.job, board.queue)]
    if board.job.state is State.QUEUED and board.queue is not None:
        parts.append(Text(in_line(board.queue), style="dim"))
    if board.job.progress is not None and not board.job.terminal:
        parts.append(progress_view(board.job.progress, board.job.state))
    if evaluated_splits(board.numbers):
        parts.append(numbers_view(board))
    if lines:
        parts += [
            Text(printable(line.text), style=_LEVEL_STYLES.get(line.level, "dim"), no_wrap=True, overflow="ellipsis")
            for line in board.lines
        ]
    return Group(*parts)


def boards_view(boards: Iterable[Board]) -> RenderableType:
    """Many jobs, one below the other, without their logs; those that have ended at the end."""
    ordered = sorted(boards, key=lambda board: board.job is not None and board.job.terminal)
    return Group(*(part for board in ordered for part in (board_view(board, lines=False), Text(""))))


def headline(job: Job, queue: QueueInfo | None) -> Text:
    """One line: the job, what it is, where it stands and why."""
    state = job.state.name
    text = Text.assemble((job.id, "bold"), "  ", describe(job.spec), "  ", (state, STATE_STYLES.get(state, "")))
    if job.attempt > 1:
        text.append(f"  attempt {job.attempt}", style="magenta")
    if queue is not None and job.state is State.QUEUED:
        reason = queue.wait_reason
    else:
        reason = standing(job.id, state, job.state_reason)
    if reason:
        text.append(f"  {printable(reason)}", style="dim")
    return text


def in_line(queue: QueueInfo) -> str:
    """A queued job's place and when it may start: "number 3 in line, starts in about 12 min"."""
    start = f", starts {until(queue.estimated_start_time)}" if queue.estimated_start_time else ""
    return f"number {queue.position} in line{start}"


def describe(spec: JobSpec) -> str:
    """A spec in a few words: its name, or its sorter and k-distribution."""
    return printable(spec.display_name) or f"{type(spec.sorter).__name__} {k_distribution(spec.k)}"


def progress_view(progress: Progress, state: State) -> Table:
    """One line: phase, bar, steps, and where it is moving speed and time left."""
    grid = Table.grid(padding=(0, 2))
    for column in range(6):
        # In a narrow terminal the bar gives way, and no number is broken in two.
        grid.add_column(no_wrap=column != 1)
    steps = f"{progress.step} / {progress.total_steps}" if progress.total_steps else ""
    moving = state in (State.RUNNING, State.PAUSING, State.CANCELLING)
    speed = f"{count(progress.images_per_second)} images/s" if moving and progress.images_per_second else ""
    left = f"{duration(progress.eta_seconds)} left" if moving and progress.eta_seconds is not None else ""
    bar = ProgressBar(total=1.0, completed=min(1.0, progress.fraction), width=32, complete_style="cyan")
    grid.add_row(printable(progress.phase), bar, f"{progress.fraction:4.0%}", steps, speed, left)
    return grid


def numbers_view(board: Board) -> Table:
    """The newest accuracies of each split, in percent, and its loss."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    splits = evaluated_splits(board.numbers)
    ranks = [rank for rank in _RANKS if any(f"{split}/top{rank}" in board.numbers for split in splits)]
    for rank in ranks:
        table.add_column(f"top-{rank}", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("step", justify="right", style="dim")
    for split in splits:
        table.add_row(*_row(board, split, ranks))
    return table


def _row(board: Board, split: str, ranks: list[int]) -> list[str]:
    accuracies = [board.numbers.get(f"{split}/top{rank}") for rank in ranks]
    loss = board.numbers.get(f"{split}/loss")
    step = max(step for name, step in board.steps.items() if name.startswith(f"{split}/"))
    cells = ["" if value is None else percent(value) for value in accuracies]
    return [split, *cells, "" if loss is None else f"{loss:.3f}", str(step)]
