"""`podium ls` and `podium show`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podium.client._yaml import dump_spec
from podium.client.cli._text import ago, clock, count, duration, percent, printable
from podium.client.cli._view import STATE_STYLES, describe, headline, in_line, progress_view
from podium.jobs.job import Attempt, Cause, Checkpoint, Job, slots_in_words


def jobs_view(jobs: Sequence[Job], *, wide: bool) -> Table:
    """A line a job; not `wide`, without the backbones' names, which would leave everything else two words a line."""
    names = ("JOB", "STATE", "PROGRESS", "AGE", "WHAT", "BACKBONE")[: 6 if wide else 5]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=name in ("JOB", "STATE", "AGE"), min_width=12 if name == "WHAT" else None)
    for job in jobs:
        state = Text(job.state.name, style=STATE_STYLES.get(job.state.name, ""))
        row = (job.id, state, _standing(job), ago(job.create_time), describe(job.spec), job.spec.backbone)
        table.add_row(*row[: len(names)])
    return table


def _standing(job: Job) -> str:
    if job.queue:
        return in_line(job.queue)
    if job.error:
        return job.error.cause.name
    return f"{printable(job.progress.phase)} {job.progress.fraction:.0%}" if job.progress and not job.terminal else ""


def job_view(job: Job, checkpoints: Sequence[Checkpoint]) -> RenderableType:
    """Everything of a job, on one page."""
    parts: list[RenderableType] = [headline(job, job.queue)]
    if job.queue is not None:
        earliest = f", not before {clock(job.retry_time)}" if job.retry_time else ""
        parts.append(Text(in_line(job.queue) + earliest))
    if job.progress is not None and not job.terminal:
        parts.append(progress_view(job.progress, job.state))
    if job.error is not None:
        message = "" if job.error.message == job.state_reason else job.error.message  # which the headline has
        # Who is to mend his spec or his images is told what to do, and has no use for our code.
        traceback = "" if job.error.cause in (Cause.USER_CONFIG, Cause.DATA) else job.error.traceback
        told = ((message, "red"), (job.error.remedy, ""), (traceback, "dim"))
        parts += [Text(printable(text), style=style) for text, style in told if text]
    if job.create_time:
        parts.append(_times(job, job.create_time))
    if job.attempts:
        parts += [Text("\nattempts", style="dim"), attempts_view(job.attempts)]
    if checkpoints:
        parts += [Text("\ncheckpoints", style="dim"), _checkpoints(checkpoints)]
    parts += [Text("\nspec", style="dim"), Text(printable(dump_spec(job.spec)).rstrip())]
    return Group(*parts)


def _times(job: Job, created: datetime) -> Text:
    by = f" by {printable(job.created_by)}" if job.created_by else ""
    told = [f"created {ago(created)} ago{by}"]
    if job.start_time:
        told.append(f"began {ago(job.start_time)} ago")
    if job.start_time and job.end_time:
        told.append(f"ended after {duration((job.end_time - job.start_time).total_seconds())}")
    if job.stop_time:
        told.append(f"asked to stop {ago(job.stop_time)} ago")
    if job.classes:
        told.append(f"{len(job.classes)} classes")
    return Text(", ".join(told), style="dim")


def attempts_view(attempts: Sequence[Attempt]) -> Table:
    """Every attempt: where, when, from where to where, and why it ended."""
    table = Table.grid(padding=(0, 2))
    for attempt in attempts:
        places = " and ".join(f"{member.node} {slots_in_words(member.slots)}" for member in attempt.members)
        table.add_row(f"  {attempt.number}", Text(printable(places)))
        table.add_row("", Text(f"{_when(attempt)}, {_steps(attempt)}", style="dim"))
        if attempt.outcome or attempt.cause:
            cause = (f"{attempt.cause.name}  " if attempt.cause else "", "magenta")
            table.add_row("", Text.assemble(cause, printable(attempt.outcome)))
    return table


def _when(attempt: Attempt) -> str:
    begin, end = attempt.start_time, attempt.end_time
    if begin is None:
        return "not begun"
    if end is None:
        return f"since {clock(begin)}"
    return f"{clock(begin)} to {clock(end)} ({duration((end - begin).total_seconds())})"


def _steps(attempt: Attempt) -> str:
    began = f"from step {attempt.resumed_from_step}" if attempt.resumed_from_step else "from the start"
    saved = f"saved step {attempt.checkpoint_step} as {attempt.checkpoint_id}" if attempt.checkpoint_id else ""
    return f"{began}, {saved or ('saved nothing' if attempt.end_time else 'saved nothing yet')}"


def _checkpoints(checkpoints: Sequence[Checkpoint]) -> Table:
    table = Table.grid(padding=(0, 2))
    # A narrow terminal cuts no id: it is what `podium fetch --checkpoint` and a spec's weights name.
    table.add_column(min_width=max(len(checkpoint.id) for checkpoint in checkpoints) + 2)
    for checkpoint in checkpoints:
        tops = [
            f"top-{k} {percent(value)}" for k in (1, 5) if (value := checkpoint.metrics.get(f"val/top{k}")) is not None
        ]
        size = f"{count(sum(file.size for file in checkpoint.files))}B"
        table.add_row(
            f"  {checkpoint.id}", f"step {checkpoint.step}", size, ", ".join(tops), "best" if checkpoint.best else ""
        )
    return table
