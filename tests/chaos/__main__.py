"""Runs the kill matrix, the weather and the depth cases, and prints their table: `make test-chaos`.

`python -m tests.chaos WORD …` runs the cases whose name has all the words, such as `attempt SIGKILL mid-save`.
The order is random: by PODIUM_CHAOS_SEED, which is printed.
"""

import argparse
import os
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import frame
from tests.chaos import table
from tests.chaos.depth import DEPTH
from tests.chaos.matrix import Case, cases
from tests.chaos.rest import litter
from tests.chaos.run import run
from tests.chaos.site import Site
from tests.chaos.table import Result
from tests.chaos.weather import WEATHER


@dataclass(frozen=True)
class _Alone:
    """A case that makes a site of its own."""

    name: str
    function: Callable[[Path], list[str]]

    def __str__(self) -> str:
        return self.name


def main() -> None:
    """Exits with 1 where a promise was broken."""
    arguments = _arguments()
    seed = int(os.environ.get("PODIUM_CHAOS_SEED") or random.randrange(2**32))
    console = Console()
    console.print(f"PODIUM_CHAOS_SEED={seed}", highlight=False)
    alone = [_Alone(name, function) for name, function in {**DEPTH, **WEATHER}.items()]
    # The long ones first, so that no site waits for another's last case.
    todo: list[Case | _Alone] = [*alone, *random.Random(seed).sample(list(cases()), len(list(cases())))]
    chosen = [case for case in todo if all(word in str(case) for word in arguments.words)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        results = _run(chosen, Path(folder), arguments.sites, console)
        if any(result.violations for result in results):
            kept = Path(tempfile.gettempdir()) / f"podium-chaos-{seed}"
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True)
            console.print(f"What the processes said is kept in {kept}", highlight=False)
    minutes = (time.monotonic() - began) / 60
    head = f"{frame.device_name()}, {os.cpu_count()} CPU cores, {frame.today()}, {minutes:.0f} minutes, seed {seed}."
    text = table.markdown(results, head)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    if not arguments.words:
        path = frame.file_of("chaos")
        path.write_text(text, encoding="utf-8")
        console.print(f"Written: {path.name}", highlight=False)
    sys.exit(any(result.violations for result in results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose name has all of these")
    parser.add_argument("--sites", type=int, default=3, help="how many sites at the same time")
    return parser.parse_args()


def _run(todo: list[Case | _Alone], folder: Path, sites: int, console: Console) -> list[Result]:
    waiting: queue.SimpleQueue[Case | _Alone] = queue.SimpleQueue()
    for case in todo:
        waiting.put(case)
    results: list[Result] = []
    guard = threading.Lock()

    def note(result: Result) -> None:
        with guard:
            results.append(result)
            console.print(f"{len(results)}. {result.line}", highlight=False, markup=False, soft_wrap=True)

    threads = [
        threading.Thread(target=_work, args=(waiting, folder / str(number), note))
        for number in range(min(sites, len(todo)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _work(waiting: "queue.SimpleQueue[Case | _Alone]", folder: Path, note: Callable[[Result], None]) -> None:
    """Takes cases until there are none; a site in which something was violated is replaced."""
    site: Site | None = None
    lives = 0
    while True:
        try:
            case = waiting.get_nowait()
        except queue.Empty:
            break
        began = time.monotonic()
        lives += 1
        try:
            if isinstance(case, _Alone):
                found = case.function(folder / str(lives))
            else:
                site = site or Site(folder / str(lives)).__enter__()
                found = run(site, case)
        except Exception:
            # A case that broke down is one that has not passed.
            found = [f"broken: {traceback.format_exc()}"]
        if found and site is not None:
            site.__exit__()
            site = None
        note(
            Result(
                case=case if isinstance(case, Case) else str(case), violations=found, seconds=time.monotonic() - began
            )
        )
    if site is not None:
        began = time.monotonic()
        found = litter(site)
        note(Result(case="what jobs leave behind", violations=found, seconds=time.monotonic() - began))
        site.__exit__()


if __name__ == "__main__":
    main()
