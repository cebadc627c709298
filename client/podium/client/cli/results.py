"""podium metrics, fetch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from podium.client.cli._options import connect, console, job_argument, json_option, print_json, server_option

if TYPE_CHECKING:
    from podium.client._job_handle import JobHandle
    from podium.jobs.events import MetricSeries


@click.command()
@job_argument
@click.option("--name", "names", multiple=True, metavar="NAME", help="Such as val/top5; may be repeated. Default: all.")
@click.option("--max-points", default=0, type=click.IntRange(0, 10_000), help="At most so many of each series.")
@click.option("--csv", "as_csv", is_flag=True, help="Print name,step,value lines.")
@json_option
@server_option
def metrics(job: str, names: tuple[str, ...], max_points: int, as_csv: bool, as_json: bool, server: str | None) -> None:
    """Print JOB's metrics: the first, best and last value of each, or with --csv or --json every point."""
    from podium.client._wire import to_json

    with connect(server) as client:
        handle = client.job(job)
        series = handle.metrics(names, max_points=max_points)
        missing = [name for name in names if name not in series]
        known = list(handle.metrics(max_points=1)) if missing else []
    if as_json:
        print_json({name: to_json(one) for name, one in series.items()})
    elif as_csv:
        _print_csv(series)
    elif series:
        _print_summary(series)
    elif not known:
        click.echo("No metrics yet.", err=True)
    for name in missing if known else ():
        click.echo(f"{job} has no metric {name}; it has: {', '.join(known)}", err=True)


@click.command()
@job_argument
@click.option("--checkpoint", metavar="best|last|ID", help="Which one. Default: the best.")
@click.option("-o", "--output", default=".", type=click.Path(file_okay=False, path_type=Path), help="The folder.")
@json_option
@server_option
def fetch(job: str, checkpoint: str | None, output: Path, as_json: bool, server: str | None) -> None:
    """Download JOB's checkpoint into a folder of its own within the output folder, and print where it is.

    A download that breaks goes on where it broke; every file's SHA-256 is verified.
    """
    with connect(server) as client:
        path = _download(client.job(job), output, checkpoint)
    print_json({"path": str(path), "files": sorted(file.name for file in path.iterdir())}) if as_json else click.echo(
        path
    )


def _download(handle: JobHandle, output: Path, checkpoint: str | None) -> Path:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    # Where nobody sees it move, a bar would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return handle.download(
            output, checkpoint, on_bytes=lambda there, total: bar.update(task, completed=there, total=total)
        )


def _print_csv(series: Mapping[str, MetricSeries]) -> None:
    click.echo("name,step,value")
    for name, one in series.items():
        for step, value in zip(one.steps, one.values, strict=True):
            click.echo(f"{name},{step},{value!r}")


def _print_summary(series: Mapping[str, MetricSeries]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("METRIC")
    for name in ("FIRST", "LOWEST", "HIGHEST", "LAST", "AT STEP", "POINTS"):
        table.add_column(name, justify="right")
    for name, one in series.items():
        if one.values:
            shown = (one.values[0], min(one.values), max(one.values), one.values[-1])
            table.add_row(name, *(f"{value:.4g}" for value in shown), str(one.steps[-1]), str(len(one.steps)))
    console().print(table)
