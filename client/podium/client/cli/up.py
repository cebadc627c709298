"""podium up."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click

from podium.client.cli._home import endpoints

_FOLDER = click.Path(file_okay=False, path_type=Path)


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    host, _, port = value.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16):
        raise click.BadParameter(f"{value!r} is no HOST:PORT; write one such as 127.0.0.1:50051")
    return value


@click.command()
@click.option("--local", is_flag=True, required=True, help="On this machine (the only way so far).")
@click.option("--data-dir", type=_FOLDER, help="What is kept: jobs, checkpoints, logs. Default: ~/.local/share/podium.")
@click.option(
    "--listen",
    default="127.0.0.1:50051",
    show_default=True,
    callback=_address,
    help="The server's address, HOST:PORT; port 0: any.",
)
@click.option("--slots", default=0, type=click.IntRange(0), help="CPU slots. Default: the GPUs, or one CPU slot.")
@click.option(
    "--data-root",
    "data_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where jobs may read images; may be repeated. Default: home and here.",
)
def up(local: bool, data_dir: Path | None, listen: str, slots: int, data_roots: tuple[Path, ...]) -> None:
    """Bring up Redis, a server and a worker on this machine, and look after them.

    Ctrl-C stops them in good order: a running job writes a checkpoint and goes back to the queue. A second start
    carries on.
    """
    from podium.client.cli._home import data_dir as default_dir
    from podium.client.local import Stack, StackConfig

    signals = _Signals()
    config = StackConfig(
        directory=(data_dir or default_dir()).absolute(),
        listen=listen,
        slots=slots,
        data_roots=tuple(root.absolute() for root in data_roots) or (Path.home(), Path.cwd()),
        endpoints=endpoints(),
    )
    stack = Stack(config, click.echo, signals.hurry)
    stack.start()
    signals.up = True
    click.echo(f"Podium is up at {stack.target}; what it keeps is in {config.directory}.")
    click.echo("Ctrl-C stops it. In another terminal: podium submit job.yaml --follow")
    try:
        stack.run(signals.stopped)
    finally:
        click.echo("Stopping: a running job writes a checkpoint first (Ctrl-C again to hurry) ...")
        stack.stop()
    click.echo("Stopped. The next `podium up --local` carries on.")


class _Signals:
    """SIGINT and SIGTERM: the first one stops, the second one hurries."""

    def __init__(self) -> None:
        self._received = 0
        self.up = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def stopped(self) -> bool:
        return self._received > 0

    def hurry(self) -> bool:
        return self._received > 1

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received += 1
        if not self.up and self._received == 1:
            # Nothing looks at the count yet; the start stops what it has started.
            raise KeyboardInterrupt
