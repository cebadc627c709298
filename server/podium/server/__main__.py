"""`python -m podium.server`: the gRPC service, the dispatcher and the reconciler in one process, or in several.

Settings come from the environment: PODIUM_REDIS_*, PODIUM_ARTIFACTS, PODIUM_DATA_ROOTS,
PODIUM_URI_PREFIXES, PODIUM_LEASE_*, PODIUM_GRACE, PODIUM_SHARES, PODIUM_QUOTAS, PODIUM_SHARE_HALF_LIFE,
PODIUM_TLS_*, PODIUM_ADMIN_TOKEN_FILE, PODIUM_CALLS_PER_SECOND, PODIUM_STREAMS_PER_CALLER, PODIUM_AUDIT_KEPT,
PODIUM_WEBHOOKS*, PODIUM_LOG_FORMAT and OTEL_*. docs/operations.md has them all.
"""

import asyncio
import logging
import os
import resource
import sys
from pathlib import Path
from typing import NoReturn

import click

_LOG = logging.getLogger(__name__)
#: Variables that name files which only the server should be able to read.
_SECRET_FILES = ("PODIUM_TLS_KEY", "PODIUM_REDIS_PASSWORD_FILE", "PODIUM_REDIS_TLS_KEY")
#: Connections, about, that a server holds; the limit that most systems begin with, 1,024, is one for select(2).
_MOST_FILES = 65_536
_MISSING = 'the server needs more than the client: pip install "podium[server]"'


def _address(_context: click.Context, _parameter: click.Parameter, listen: str) -> str:
    # gRPC takes a port above 65535 for another one, without a word.
    host, _, port = listen.rpartition(":")
    if listen.startswith("unix:") or (host and port.isascii() and port.isdecimal() and int(port) < 65_536):
        return listen
    raise click.BadParameter(f"{listen!r}: write HOST:PORT, such as 127.0.0.1:50051, or unix:PATH")


@click.command(help=__doc__)
@click.option(
    "--listen",
    default="127.0.0.1:50051",
    show_default=True,
    callback=_address,
    help="HOST:PORT; port 0 takes a free one.",
)
@click.option("--reflection/--no-reflection", default=True, show_default=True, help="Describe the contract to tools.")
@click.option("--port-file", type=click.Path(path_type=Path), help="Write the bound address there once serving.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option(
    "--keepalive", default=15.0, show_default=True, help="Seconds of silence before a watch gets a sign of life."
)
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    envvar="PODIUM_METRICS_LISTEN",
    help="Prometheus metrics and health over HTTP there: /metrics, /healthz, /readyz. Nowhere unless said.",
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(min=1, max=64),
    help="Server processes that share the port; the metrics of each next one are on the next port.",
)
@click.option("--sibling", is_flag=True, hidden=True)  # one of several: shares its port, and ends with its parent
def main(
    listen: str,
    reflection: bool,
    port_file: Path | None,
    log_level: str,
    keepalive: float,
    metrics_listen: str | None,
    processes: int,
    sibling: bool,
) -> None:
    """Serves until SIGTERM or SIGINT."""
    # Before gRPC is imported: of every handshake that fails it would write a line of its own, in no format of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if processes > 1:
        words = ["--reflection" if reflection else "--no-reflection", "--log-level", log_level]
        _serve_together(
            processes, listen, [*words, "--keepalive", str(keepalive)], log_level, port_file, metrics_listen or None
        )
    try:
        import uvloop

        from podium.jobs.secret_files import open_to_others
        from podium.jobs.settings import from_environment
        from podium.server import logs
        from podium.server.access import access_from_environment
        from podium.server.app import Options, serve
        from podium.server.dispatcher import sharing_from_environment
        from podium.server.tls import tls_from_environment
        from podium.server.webhooks import webhooks_from_environment
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{_MISSING} (there is no {error.name})") from error
    try:
        logs.configure(log_level)
        settings, sharing, tls = from_environment(), sharing_from_environment(), tls_from_environment()
        access, webhooks = access_from_environment(), webhooks_from_environment()
    except (ValueError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    _LOG.info("the ledger is %s", settings.ledger)
    secrets = {name: os.environ.get(name) for name in _SECRET_FILES}
    for problem in open_to_others(secrets | {f"webhook {each.name}": each.secret_file for each in webhooks.webhooks}):
        _LOG.warning(problem)
    _raise_file_limit()
    options = Options(
        listen=listen,
        with_reflection=reflection,
        port_file=port_file,
        keepalive=keepalive,
        sharing=sharing,
        access=access,
        tls=tls,
        metrics_listen=metrics_listen or None,
        webhooks=webhooks,
        sibling=sibling,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, options))
            _leave()
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _leave() -> NoReturn:
    """Ends this process, which has nothing left to do: Python would wait for threads whose disk hangs, for ever."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _raise_file_limit() -> None:
    """Lets this process open as many files as it may, up to `_MOST_FILES`: without any left it answers no probe."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _serve_together(
    processes: int,
    listen: str,
    options: list[str],
    log_level: str,
    port_file: Path | None,
    metrics_listen: str | None,
) -> NoReturn:
    from podium.server import logs
    from podium.server.siblings import Siblings

    async def serve() -> int:
        siblings = Siblings(
            processes, listen=listen, options=options, port_file=port_file, metrics_listen=metrics_listen
        )
        return await siblings.run()

    try:
        logs.configure(log_level)
        sys.exit(asyncio.run(serve()))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
