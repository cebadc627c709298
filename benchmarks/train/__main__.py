"""Training against bare loops, torchvision's recipes and its own limits, in one run: python -m benchmarks.train."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import frame
from benchmarks.rows import Row
from benchmarks.train import first_step, head, job, loss, pipeline

_HOW_TO_READ = (
    'Medians of turns, in which the sides of a comparison alternate; under "turns" the smallest and the largest ratio '
    "of one turn."
)


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(pipeline.THREADS)
    with tempfile.TemporaryDirectory() as folder:
        parts = _parts(device, Path(folder), arguments)
        chosen = {name: part for name, part in parts.items() if arguments.only in name}
        frame.run(
            "Training",
            "train",
            chosen,
            whole=not arguments.only,
            packages=("torch",),
            how_to_read=_HOW_TO_READ,
            device=device.type,
        )


def _parts(device: torch.device, folder: Path, arguments: argparse.Namespace) -> dict[str, Callable[[], list[Row]]]:
    count, photos = arguments.turns, arguments.photos
    return {
        "job": lambda: job.rows(folder / "job", count),
        "pipeline": lambda: pipeline.rows(folder / "pipeline", count, photos),
        "head": lambda: head.rows(device, count),
        "loss": lambda: loss.rows(device, count),
        "first step": lambda: first_step.rows(folder / "first", count),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", help="the name of a part: job, pipeline, head, loss, first step")
    parser.add_argument("--photos", type=Path, help="a .tar of class folders to time the data pipeline on, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
