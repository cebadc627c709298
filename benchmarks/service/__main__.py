"""The front desk against its bar, in one run: python -m benchmarks.service [row ...].

Each module of benchmarks.service.rows is a part of the table: its function `measure(turns)` returns rows.
"""

import argparse
import importlib
import pkgutil
from functools import partial

from benchmarks import frame
from benchmarks.service import rows

#: What the figures depend on most.
_PACKAGES = ("grpcio", "protobuf", "redis", "hiredis")

HOW_TO_READ = """\
Server, Redis, peers and clients are processes of one machine, on the loopback device; clients call again as soon as
they are answered. Redis: append-only file, `appendfsync everysec`. Rates and times are medians of turns in which ours
and the peers take turns; `ratio` is of those medians, `turns` the smallest and the largest ratio of a turn. `us` is the
server's own CPU time a call, `clients` theirs, which a busy machine changes less than the time that passes. Compare
ratios, and only within a table."""


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    names = sorted(module.name for module in pkgutil.iter_modules(rows.__path__))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"{', '.join(names)}; without any all")
    parser.add_argument("--turns", type=int, default=5, help="turns that a median is of")
    arguments = parser.parse_args()
    parts = {
        name: partial(importlib.import_module(f"benchmarks.service.rows.{name}").measure, arguments.turns)
        for name in arguments.rows or names
    }
    whole = not arguments.rows
    frame.run("The front desk", "service", parts, whole=whole, packages=_PACKAGES, how_to_read=HOW_TO_READ)


if __name__ == "__main__":
    main()
