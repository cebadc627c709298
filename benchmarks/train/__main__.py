"""Training against bare loops, torchvision's recipes and its own limits, in one run: python -m benchmarks.train."""

import argparse
import datetime
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.topk import report
from benchmarks.train import first_step, head, job, loss, pipeline
from benchmarks.train.rows import HEAD, Row

_RESULTS = Path(__file__).parents[1] / "results"
_WIDTH = 150


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(pipeline.THREADS)
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(head_line := _head_line(device), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        parts = _parts(device, Path(folder), arguments)
        found = [
            row for name, part in parts.items() if arguments.only in name for row in _measured(name, part, console)
        ]
    console.print(_table(found))
    if arguments.only:
        return
    path = _RESULTS / f"train-{report.slug(report.device_name(device))}.md"
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *(row.cells() for row in found))]
    path.write_text("\n".join(["# Training", "", head_line, "", *lines, ""]), encoding="utf-8")
    console.print(f"Written: {path.name}", highlight=False)


def _parts(device: torch.device, folder: Path, arguments: argparse.Namespace) -> dict[str, Callable[[], list[Row]]]:
    count, photos = arguments.turns, arguments.photos
    return {
        "job": lambda: job.rows(folder / "job", count),
        "pipeline": lambda: pipeline.rows(folder / "pipeline", count, photos),
        "head": lambda: head.rows(device, count),
        "loss": lambda: loss.rows(device, count),
        "first step": lambda: first_step.rows(folder / "first", count),
    }


def _measured(name: str, part: Callable[[], list[Row]], console: Console) -> list[Row]:
    with console.status(f"{name} ..."):
        return part()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", help="the name of a part: job, pipeline, head, loss, first step")
    parser.add_argument("--photos", type=Path, help="a .tar of class folders to time the data pipeline on, too")
    return parser.parse_args()


def _head_line(device: torch.device) -> str:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return (
        f"{report.device_name(device)}, {os.cpu_count()} CPU cores, torch {torch.__version__}, {today}; "
        f'load before: {load}. Medians of turns, in which the sides of a comparison alternate; under "turns" the '
        "smallest and the largest ratio of one turn."
    )


def _table(found: list[Row]) -> Table:
    table = Table(*HEAD)
    for row in found:
        table.add_row(*row.cells())
    return table


if __name__ == "__main__":
    main()
