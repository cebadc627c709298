"""Following a job to its end: live on a terminal, as lines elsewhere, as JSON where asked for."""

from __future__ import annotations

from collections.abc import Iterator

import click

from podium.client._job_handle import JobHandle
from podium.client._wire import to_json
from podium.client.cli._board import Board
from podium.client.cli._exit import INTERRUPTED, outcome, say
from podium.client.cli._home import Cursors, state_dir
from podium.client.cli._interrupts import Interrupts
from podium.client.cli._options import console, print_json
from podium.client.cli._waiting import Waiting
from podium.jobs.errors import OutOfRangeError
from podium.jobs.events import JobEvent
from podium.jobs.job import Job


def follow(handle: JobHandle, *, as_json: bool = False, after: int | None = None) -> int:
    """Shows the job's events until it has ended; returns the exit code of its outcome.

    Ctrl-C leaves the job running and remembers how far the watch has come; `after` None goes on from there.
    """
    terminal = console()
    live = terminal.is_terminal and not as_json
    cursors = Cursors(state_dir() / "watches")
    # A live view shows the present and needs the whole past for it.
    board = Board()
    board.sequence = after if after is not None else 0 if live else cursors.get(handle.id)
    try:
        show = _live if live else _json_lines if as_json else _plain_lines
        with Interrupts() as interrupts:
            show(handle, board, interrupts)
    except KeyboardInterrupt:
        cursors.put(handle.id, board.sequence)
        click.echo(f"\nThe job goes on. `podium watch {handle.id}` continues here.", err=True)
        return INTERRUPTED
    cursors.forget(handle.id)
    return _conclude(board.job or handle.job(), quiet=as_json)


def _events(handle: JobHandle, board: Board) -> Iterator[JobEvent]:
    """A watch that goes on with the oldest event that is kept, as often as those asked for no longer are."""
    while True:
        try:
            yield from handle.watch(board.sequence)
        except OutOfRangeError as error:
            oldest = int(error.metadata.get("oldest_sequence", 0))
            if oldest <= board.sequence + 1:
                raise
            say(f"events {board.sequence + 1} to {oldest - 1} are no longer kept; the watch begins with {oldest}")
            board.sequence = oldest - 1
        else:
            return


def _live(handle: JobHandle, board: Board, interrupts: Interrupts) -> None:
    from rich.live import Live

    from podium.client.cli._view import board_view

    shown = Live(get_renderable=lambda: board_view(board), console=console(), refresh_per_second=4)
    with Waiting(handle, board), shown:
        for event in _events(handle, board):
            with interrupts.held():
                board.apply(event)


def _plain_lines(handle: JobHandle, board: Board, interrupts: Interrupts) -> None:
    from podium.client.cli._lines import Lines

    lines = Lines()
    for event in _events(handle, board):
        with interrupts.held():
            for line in lines.of(event):
                click.echo(line)
            board.apply(event)


def _json_lines(handle: JobHandle, board: Board, interrupts: Interrupts) -> None:
    for event in _events(handle, board):
        with interrupts.held():
            print_json(to_json(event), line=True)
            board.apply(event)


def _conclude(job: Job, *, quiet: bool) -> int:
    if not quiet and job.error is not None:
        say(f"{job.error.message}{'; ' if job.error.remedy else ''}{job.error.remedy}")
    if not quiet and job.state.name == "SUCCEEDED":
        click.echo(f"{job.id} SUCCEEDED. Its best checkpoint: podium fetch {job.id}")
    elif not quiet:
        click.echo(f"{job.id} {job.state.name}.")
    return outcome(job.state)
