"""The server at rest: what it holds in memory, and its share of a core, after it has served."""

import time

from benchmarks.rows import Row
from benchmarks.service import site
from benchmarks.service.rows.create import create

_SECONDS = 20.0
_SETTLED = 2.0
_MIB, _CORE = 150, 0.01


def measure(count: int) -> list[Row]:
    """The rows; one look of 20 seconds, however many turns are asked for."""
    with site.podium() as ours:
        create(ours, seconds=2.0)
        time.sleep(_SETTLED)
        before, began = ours.server.cpu_seconds(), time.monotonic()
        time.sleep(_SECONDS)
        share = (ours.server.cpu_seconds() - before) / (time.monotonic() - began)
        resident = ours.server.resident_bytes() / 2**20
    return [
        Row(
            what="the server at rest, after some thousand calls: resident memory",
            ours=f"{resident:.0f} MiB",
            peer=f"{_MIB} MiB",
            ratio=resident / _MIB,
            bar="<= 1",
        ),
        Row(
            what="the server at rest: share of a core",
            ours=f"{share:.2%}",
            peer=f"{_CORE:.0%}",
            ratio=share / _CORE,
            bar="<= 1",
        ),
    ]
