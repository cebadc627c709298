"""The frame of a benchmark with a bar for each row: its parts one after the other, one table, one Markdown file."""

import datetime
import os
import platform
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rows import HEAD, Row

#: Where the tables go that are committed.
RESULTS = Path(__file__).parent / "results"
#: Columns that a table has at the least, as `row | tee file` would have 80.
_WIDTH = 170


def run(
    title: str,
    name: str,
    parts: Mapping[str, Callable[[], list[Row]]],
    *,
    whole: bool,
    packages: tuple[str, ...] = (),
    how_to_read: str = "",
    device: str = "cpu",
) -> None:
    """Measure, print the table, and write it to results/NAME-DEVICE.md unless only a part was asked for.

    Args:
        title: the file's.
        name: of the benchmark, as in `make bench-NAME`.
        parts: what is to be measured, by what the terminal calls it meanwhile.
        whole: these are all parts.
        packages: those that the figures depend on most; their versions are told.
        how_to_read: what stands above the table in the file.
        device: "cpu" or "cuda".
    """
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(about := _about(device, packages), highlight=False)
    found: list[Row] = []
    for part, measure in parts.items():
        with console.status(f"{part} ..."):
            found += measure()
    table = Table(*HEAD)
    for row in found:
        table.add_row(*row.cells())
    console.print(table)
    if not whole:
        return
    lines = ("| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *(row.cells() for row in found)))
    path = file_of(name, device)
    path.write_text("\n\n".join(filter(None, (f"# {title}", about, how_to_read, "\n".join(lines)))) + "\n", "utf-8")
    console.print(f"Written: {path.name}", highlight=False)


def file_of(name: str, device: str = "cpu") -> Path:
    """Where the table of a benchmark on this machine goes."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    return RESULTS / f"{name}-{slug}.md"


def device_name(device: str = "cpu") -> str:
    """What the device, "cpu" or "cuda", is called by its maker."""
    if device == "cuda":
        import torch  # seconds, which a benchmark of the server has no use for

        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.machine()


def load() -> str:
    """How busy the machine is, as text."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def today() -> str:
    """The day, as in 2026-11-26."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _about(device: str, packages: tuple[str, ...]) -> str:
    versions = "".join(f", {package} {version(package)}" for package in packages)
    return f"{device_name(device)}, {os.cpu_count()} CPU cores{versions}, {today()}; load before: {load()}."
