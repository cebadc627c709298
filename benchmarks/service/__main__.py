"""The front desk against its bar, in one run: python -m benchmarks.service [row ...].

Each module of benchmarks.service.rows is a part of the table: its function `measure(turns)` returns rows.
"""

import argparse
import datetime
import importlib
import os
import pkgutil
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.service import rows
from benchmarks.topk import report
from benchmarks.train.rows import HEAD, Row

_RESULTS = Path(__file__).parents[1] / "results"
_WIDTH = 170
_CPU = torch.device("cpu")
#: What the figures depend on most.
_PACKAGES = ("grpcio", "protobuf", "redis", "hiredis")

HOW_TO_READ = """\
Server, Redis, peers and clients are processes of one machine, on the loopback device; clients call again as soon as
they are answered. Redis: append-only file, `appendfsync everysec`. Rates and times are medians of turns in which ours
and the peers take turns; `ratio` is of those medians, `turns` the smallest and the largest ratio of a turn. `us` is the
server's own CPU time a call, which a busy machine changes less than the time that passes. Compare ratios, and only
within a table."""


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    arguments = _arguments()
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(head_line := _head_line(), highlight=False)
    found: list[Row] = []
    for name in arguments.rows or _parts():
        with console.status(f"{name} ..."):
            found += importlib.import_module(f"benchmarks.service.rows.{name}").measure(arguments.turns)
    console.print(_table(found))
    if arguments.rows:
        return
    path = _RESULTS / f"service-{report.slug(report.device_name(_CPU))}.md"
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *(row.cells() for row in found))]
    path.write_text("\n".join(["# The front desk", "", head_line, "", HOW_TO_READ, "", *lines, ""]), encoding="utf-8")
    console.print(f"Written: {path.name}", highlight=False)


def _parts() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(rows.__path__))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"{', '.join(_parts())}; without any all")
    parser.add_argument("--turns", type=int, default=5, help="turns that a median is of")
    return parser.parse_args()


def _head_line() -> str:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return f"{report.device_name(_CPU)}, {os.cpu_count()} cores, {packages}, {today}; load before: {load}."


def _table(found: list[Row]) -> Table:
    table = Table(*HEAD)
    for row in found:
        table.add_row(*row.cells())
    return table


if __name__ == "__main__":
    main()
