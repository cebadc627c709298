"""The pool against its bar, in one run: python -m benchmarks.pool. Each row is a module with a function `measure`."""

import argparse
import importlib
import pkgutil

import benchmarks.pool
from benchmarks import frame


def main() -> None:
    """Measure, print, and write the Markdown file unless only a part was asked for."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.pool.__path__))
    names.remove("__main__")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool", description=__doc__)
    parser.add_argument("--only", default="", help=f"a part: {', '.join(names)}")
    only = parser.parse_args().only
    parts = {name: importlib.import_module(f"benchmarks.pool.{name}").measure for name in names if only in name}
    frame.run("The pool", "pool", parts, whole=not only)


if __name__ == "__main__":
    main()
