"""Times every top-k loss against cross entropy, torch.topk and difftopk, in one run: python -m benchmarks.topk."""

import argparse
import re
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import frame
from benchmarks.topk import report
from benchmarks.topk.contenders import CROSS_ENTROPY, SIZES, TORCH_TOPK, Contender, Size, contenders
from benchmarks.topk.measure import THREADS, Probe, copy_bandwidth, interleave, prepare, probe, set_up_process

_TABLE_WIDTH = 140


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    set_up_process()
    bandwidth = copy_bandwidth(device) if device.type == "cuda" else None
    console = Console()
    console.width = max(console.width, _TABLE_WIDTH)
    head = _head(device)
    console.print(head, highlight=False)

    chosen = _chosen(arguments.only)
    tables = []
    for size in SIZES:
        if arguments.size in str(size):
            rows = _measure(size, chosen, device, arguments, console)
            lines = report.cells(size, rows, bandwidth)
            console.print(report.terminal(str(size), lines))
            tables.append(report.markdown(str(size), lines))

    if arguments.only or arguments.size:
        return
    path = arguments.results / frame.file_of("topk", device.type).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.document(head, tables, bandwidth))
    console.print(f"Written: {path.name}", highlight=False)


def _measure(
    size: Size, chosen: dict[str, Contender], device: torch.device, arguments: argparse.Namespace, console: Console
) -> dict[str, report.Row]:
    probes: dict[str, Probe] = {}
    with console.status("") as status:
        for name in chosen:
            status.update(f"{size}: memory of {name}")
            probes[name] = probe(name, size, device)
        status.update(f"{size}: time, {arguments.turns} turns")
        # Whoever ran out of memory or time in its own process is not tried here.
        runs = {name: prepare(chosen[name], size, device) for name in chosen if not probes[name].why_not}
        times = interleave(runs, device, arguments.turns, arguments.patience)
    return {
        name: report.Row(contender=chosen[name], probe=probes[name], seconds=times.get(name, [])) for name in chosen
    }


def _chosen(pattern: str) -> dict[str, Contender]:
    def wanted(row: Contender) -> bool:
        always = row.name in (CROSS_ENTROPY, TORCH_TOPK)
        return always or re.search(pattern, f"{row.name} {row.against}") is not None

    return {name: row for name, row in contenders().items() if wanted(row)}


def _head(device: torch.device) -> str:
    # With more work than cores, threads wait for one another and short calls take many times as long.
    load = f"; {THREADS} threads; load of the machine before: {frame.load()}" if device.type == "cpu" else ""
    return f"{frame.device_name(device.type)}{load}; PyTorch {torch.__version__}; {frame.today()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topk", description=__doc__)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--turns", type=int, default=15, help="how often each loss is timed (default: 15)")
    parser.add_argument(
        "--patience", type=float, default=6, help="seconds after which a slow loss sits out (default: 6)"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="only these rows; writes no file")
    parser.add_argument(
        "--size", default="", metavar="TEXT", help="only sizes with this in their title; writes no file"
    )
    parser.add_argument("--results", type=Path, default=frame.RESULTS, help="where the Markdown file goes")
    arguments = parser.parse_args()
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    return arguments


if __name__ == "__main__":
    main()
