"""What many commands share: how the server is named, how JSON is asked for, how a client is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from podium.client.cli._home import find_target

if TYPE_CHECKING:
    from rich.console import Console

    from podium.client._client import Client

F = TypeVar("F", bound=Callable[..., Any])

_TLS = "podium.tls"
#: Variables that name files which only who calls should be able to read.
_SECRET_FILES = ("PODIUM_TOKEN_FILE", "PODIUM_TLS_CLIENT_KEY")

job_argument = click.argument("job", metavar="JOB")


def server_option(function: F) -> F:
    """--server and --tls."""
    server = click.option(
        "--server", envvar="PODIUM_SERVER", metavar="ADDRESS", help="The server. Default: the local one."
    )
    tls = click.option(
        "--tls",
        is_flag=True,
        expose_value=False,
        callback=lambda context, _, value: context.meta.update({_TLS: value}),
        help="With TLS and the system's authorities. PODIUM_TLS_CA, where it is set, names yours and says --tls too.",
    )
    return server(tls(function))


def project_option(function: F) -> F:
    """--project."""
    option = click.option(
        "--project", envvar="PODIUM_PROJECT", default="default", show_default=True, help="The project."
    )
    return option(function)


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def connect(server: str | None, **options: Any) -> Client:
    """A client of the server that the user means."""
    from podium.client._client import Client
    from podium.client._tls import Tls
    from podium.client._token import token_from_environment
    from podium.jobs.secret_files import open_to_others

    for problem in open_to_others({name: os.environ.get(name) for name in _SECRET_FILES}):
        click.echo(f"Warning: {problem}", err=True)
    try:
        tls = Tls.from_environment() or (Tls() if click.get_current_context().meta.get(_TLS) else None)
        return Client(find_target(server), tls=tls, token=token_from_environment(), **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def print_json(value: Any, *, line: bool = False) -> None:
    """Prints a JSON document; `line`: on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=None if line else 2))


def console() -> Console:
    """A console on stdout; lines are not broken where stdout is no terminal."""
    from rich.console import Console

    # No markup: what a server or a user wrote is text, whatever brackets it has.
    terminal = Console(markup=False, emoji=False, highlight=False)
    return terminal if terminal.is_terminal else Console(markup=False, emoji=False, highlight=False, width=1000)
