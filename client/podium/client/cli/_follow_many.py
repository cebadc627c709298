"""Following many jobs on one stream: a board of all on a terminal, lines that name their job elsewhere, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from podium.client._client import Client
from podium.client._wire import to_json
from podium.client.cli._board import Board
from podium.client.cli._exit import INTERRUPTED, SUCCEEDED, outcome, say
from podium.client.cli._home import Cursors, state_dir
from podium.client.cli._interrupts import Interrupts
from podium.client.cli._options import console, print_json
from podium.jobs.errors import OutOfRangeError
from podium.jobs.events import JobEvent

Boards = Mapping[str, Board]


def follow_many(client: Client, job_ids: Sequence[str], *, as_json: bool) -> int:
    """Shows the jobs' events until all have ended; returns the exit code of the first that did not go well.

    Ctrl-C leaves the jobs running and remembers how far the watch of each has come.
    """
    live = console().is_terminal and not as_json
    cursors = Cursors(state_dir() / "watches")
    boards = {job_id: Board() for job_id in job_ids}
    for job_id, board in boards.items():
        # A live view shows the present and needs the whole past for it.
        board.sequence = 0 if live else cursors.get(job_id)
    show = _live if live else _json_lines if as_json else _plain_lines
    try:
        with Interrupts() as interrupts:
            show(client, boards, interrupts)
    except KeyboardInterrupt:
        for job_id, board in boards.items():
            cursors.put(job_id, board.sequence)
        click.echo(f"\nThe jobs go on. `podium watch {' '.join(boards)}` continues here.", err=True)
        return INTERRUPTED
    for job_id in boards:
        cursors.forget(job_id)
    return _conclude(boards, quiet=as_json)


def _events(client: Client, boards: Boards) -> Iterator[JobEvent]:
    """A watch that begins with the oldest events that are kept, where those asked for no longer are."""
    while True:
        try:
            yield from client.watch(boards, after={job_id: board.sequence for job_id, board in boards.items()})
        except OutOfRangeError as error:
            board, oldest = boards.get(error.metadata.get("job_id", "")), int(error.metadata.get("oldest_sequence", 0))
            if board is None or oldest <= board.sequence + 1:
                raise
            kept = f"events {board.sequence + 1} to {oldest - 1} are no longer kept; the watch begins with {oldest}"
            say(f"{error.metadata['job_id']}: {kept}")
            board.sequence = oldest - 1
        else:
            return


def _live(client: Client, boards: Boards, interrupts: Interrupts) -> None:
    from rich.live import Live

    from podium.client.cli._view import boards_view

    shown = Live(get_renderable=lambda: boards_view(boards.values()), console=console(), refresh_per_second=4)
    with shown:
        for event in _events(client, boards):
            with interrupts.held():
                boards[event.job_id].apply(event)


def _plain_lines(client: Client, boards: Boards, interrupts: Interrupts) -> None:
    from podium.client.cli._lines import Lines

    lines = {job_id: Lines() for job_id in boards}
    for event in _events(client, boards):
        with interrupts.held():
            for line in lines[event.job_id].of(event):
                click.echo(f"{event.job_id} {line}")
            boards[event.job_id].apply(event)


def _json_lines(client: Client, boards: Boards, interrupts: Interrupts) -> None:
    for event in _events(client, boards):
        with interrupts.held():
            print_json(to_json(event), line=True)
            boards[event.job_id].apply(event)


def _conclude(boards: Boards, *, quiet: bool) -> int:
    jobs = [board.job for board in boards.values() if board.job is not None]
    for job in jobs if not quiet else ():
        error = f": {job.error.message}" if job.error is not None else ""
        click.echo(f"{job.id} {job.state.name}{error}")
    return next((code for job in jobs if (code := outcome(job.state)) != SUCCEEDED), SUCCEEDED)
