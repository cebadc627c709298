"""podium demo."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from podium.client.cli._exit import FAILED, SUCCEEDED


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="A folder of class folders, or a .tar. Default: glyphs.",
)
@click.option(
    "--keep", default=".demo", show_default=True, type=click.Path(file_okay=False, path_type=Path), help="The folder."
)
def demo(data: Path | None, keep: Path) -> int:
    """Fine-tune twice on this machine, for real, and compare softmax cross-entropy with a top-k loss.

    Without --data it renders a set of easily confused glyphs. A second run reuses what the first one made.
    """
    from podium.client.demo import run_demo

    # SIGTERM stops what was started in good order too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return SUCCEEDED if run_demo(data, keep) else FAILED
