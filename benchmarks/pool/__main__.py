"""The pool against its bar, in one run: python -m benchmarks.pool. Each row is a module with a function `measure`."""

import argparse
import datetime
import importlib
import os
import pkgutil
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import benchmarks.pool
from benchmarks.topk import report
from benchmarks.train.rows import HEAD, Row

_RESULTS = Path(__file__).parents[1] / "results"
_WIDTH = 150
_CPU = torch.device("cpu")


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    arguments = _arguments()
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(head_line := _head_line(), highlight=False)
    found: list[Row] = []
    for name in _parts():
        if arguments.only in name:
            with console.status(f"{name} ..."):
                found += importlib.import_module(f"benchmarks.pool.{name}").measure()
    console.print(_table(found))
    if arguments.only:
        return
    path = _RESULTS / f"pool-{report.slug(report.device_name(_CPU))}.md"
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *(row.cells() for row in found))]
    path.write_text("\n".join(["# The pool", "", head_line, "", *lines, ""]), encoding="utf-8")
    console.print(f"Written: {path.name}", highlight=False)


def _parts() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.pool.__path__) if module.name != "__main__")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=__doc__)
    parser.add_argument("--only", default="", help=f"a part: {', '.join(_parts())}")
    return parser.parse_args()


def _head_line() -> str:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{report.device_name(_CPU)}, {os.cpu_count()} cores, {today}; load before: {load}."


def _table(found: list[Row]) -> Table:
    table = Table(*HEAD)
    for row in found:
        table.add_row(*row.cells())
    return table


if __name__ == "__main__":
    main()
