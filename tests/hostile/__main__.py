"""Hostile requests and connections in rounds, and a table of what came of them: `make test-hostile`.

The requests are made from PODIUM_HOSTILE_SEED, which is printed.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from benchmarks import frame
from tests.hostile.attacks import ATTACKS, Harm
from tests.hostile.calls import Fuzzer
from tests.hostile.site import Site

#: Rounds that fill caches and pools; afterwards nothing is to grow.
_WARM_UP = 2
#: MiB and descriptors by which later rounds may differ: an allocator keeps some, a pool opens a connection more.
_MEMORY_SLACK, _DESCRIPTOR_SLACK = 40.0, 10


def main() -> None:
    """Exits with 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="how often everything is tried (default 8, at least 4)")
    parser.add_argument("--calls", type=int, default=3200, help="requests a round (default 3200)")
    arguments = parser.parse_args()
    seed = int(os.environ.get("PODIUM_HOSTILE_SEED") or random.randrange(2**32))
    click.echo(f"PODIUM_HOSTILE_SEED={seed}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="podium-") as folder, Site(Path(folder)) as site:
        campaign = Campaign(site, seed)
        for number in range(max(arguments.rounds, 4)):
            campaign.round(arguments.calls)
            click.echo(f"round {number + 1}: {campaign.figures[-1]}, found: {campaign.found()}")
        found = campaign.found()
        minutes = (time.monotonic() - began) / 60
        device = f"{frame.device_name()}, {os.cpu_count()} CPU cores"
        text = campaign.markdown(f"{device}, {frame.today()}, {minutes:.0f} minutes, seed {seed}.")
    click.echo(text)
    frame.file_of("hostile").write_text(text, encoding="utf-8")
    sys.exit(bool(found))


class Campaign:
    """Rounds of everything against one server.

    Args:
        site: what is attacked.
        seed: of the requests.
    """

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._fuzzer = Fuzzer(site, seed)
        self._harm: list[str] = []
        self._said: dict[str, str] = {}
        self.figures: list[tuple[int, int]] = []
        """Of each round: the fewest MiB that the server held between two inputs, and descriptors open at its end.

        The fewest, as an allocator gives back what thousands of connections took only when it comes to it.
        """

    def round(self, calls: int) -> None:
        """Everything once."""
        self._fuzzer.batch(calls)
        held = [self._site.memory]
        for attack in ATTACKS:
            try:
                self._said[attack.__doc__ or ""] = attack(self._site)
            except Harm as harm:
                self._harm.append(f"{attack.__name__}: {harm}")
            if not self._site.serves():
                self._harm.append(f"{attack.__name__}: afterwards nobody is served")
            held.append(self._site.memory)
        self.figures.append((round(min(held)), self._at_rest()))

    def _at_rest(self) -> int:
        """The descriptors that stay open: a server takes a moment to notice that thousands have hung up."""
        end, usual = time.monotonic() + 30, self.figures[0][1] if self.figures else 0
        while self._site.descriptors > usual + _DESCRIPTOR_SLACK and time.monotonic() < end:
            time.sleep(0.2)
        return self._site.descriptors

    def found(self) -> list[str]:
        """Everything that is not as it should be."""
        outcome, site = self._fuzzer.outcome, self._site
        found = [*outcome.violations, *self._harm, *site.faults()]
        found += [f"{job_id} is in Redis, and nobody was told so" for job_id in site.strangers(outcome.created)]
        if len(self.figures) > _WARM_UP + 1:
            (memory, descriptors), (later, open_later) = self.figures[_WARM_UP], self.figures[-1]
            if later > memory + _MEMORY_SLACK:
                found.append(f"the server grew from {memory} to {later} MiB")
            if open_later > descriptors + _DESCRIPTOR_SLACK:
                found.append(f"the server has {open_later} descriptors open, not {descriptors}")
        return found

    def markdown(self, head: str) -> str:
        """The tables."""
        outcome, found = self._fuzzer.outcome, self.found()
        total: Counter[str] = sum(outcome.statuses.values(), Counter())
        lines = ["# Hostile input", "", head, ""]
        lines += [f"{outcome.calls} requests in {len(self.figures)} rounds: **{len(found)} found**.", ""]
        lines += [f"* {sentence}" for sentence in found]
        lines += ["| status | all | rpcs |", "|---|---|---|"]
        for status, count in total.most_common():
            lines.append(f"| {status} | {count} | {sum(status in one for one in outcome.statuses.values())} |")
        lines += ["", "| connections | what the server did, in the last round |", "|---|---|"]
        lines += [f"| {what.rstrip('.')} | {said} |" for what, said in self._said.items()]
        lines += ["", "| round | fewest MiB held | descriptors |", "|---|---|---|"]
        lines += [f"| {at} | {memory} | {files} |" for at, (memory, files) in enumerate(self.figures, 1)]
        return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
