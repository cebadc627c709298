"""podium token create, ls, rotate, revoke, whoami."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from podium.client.cli._options import connect, console, json_option, print_json, project_option, server_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podium.client._access import NewToken
    from podium.jobs.tokens import Token

ROLES = ("viewer", "submitter", "admin")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _span(context: click.Context, parameter: click.Parameter, text: str | None) -> timedelta | None:
    """A span of time, such as 30m, 12h, 90d."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if not found:
        raise click.BadParameter(f"{text!r} is no span of time; write a number and s, m, h or d, such as 90d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


token_argument = click.argument("token", metavar="TOKEN")
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the secret into this new file, which only you may read, instead of printing it.",
)


@click.group()
def token() -> None:
    """Who may call the server, and what for. TOKEN is an id, such as tok-0123456789abcdef.

    A server without tokens takes every call. The first one must be an admin of all projects:

    podium token create root --role admin --project '*' --output ~/.podium-token
    """


@token.command()
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="Look; submit and stop jobs; manage tokens.")
@project_option
@click.option("--ttl", metavar="TIME", callback=_span, help="How long it is good for. Default: until it is revoked.")
@output_option
@json_option
@server_option
def create(
    name: str, role: str, project: str, ttl: timedelta | None, output: Path | None, as_json: bool, server: str | None
) -> None:
    """Make a token called NAME. Its secret is printed once, and kept nowhere."""
    from podium.jobs.tokens import Role

    with _place(output) as place, connect(server, project=project) as client:
        made = client.create_token(name, role=Role[role.upper()], time_to_live=ttl)
        _hand_over(made, place, output, as_json)


@token.command()
@click.option("--project", default="", help="Only of this project.")
@json_option
@server_option
def ls(project: str, as_json: bool, server: str | None) -> None:
    """List the tokens that you may manage."""
    from rich.table import Table

    from podium.client._wire import to_json
    from podium.client.cli._text import ago, printable

    with connect(server) as client:
        found = client.tokens(project)
    if as_json:
        print_json([to_json(token) for token in found])
        return
    if not found:
        click.echo("No tokens. `podium token create --help` says how to make one.", err=True)
        return
    table = Table(box=None, pad_edge=False)
    for head in ("TOKEN", "NAME", "PROJECT", "ROLE", "AGE", "GOOD", "BY"):
        table.add_column(head, no_wrap=head in ("TOKEN", "ROLE", "AGE"))
    for one in found:
        made_by = printable(one.created_by)
        role = one.role.name.lower()
        table.add_row(one.id, printable(one.display_name), one.project, role, ago(one.create_time), _good(one), made_by)
    console().print(table)


@token.command()
@token_argument
@click.option("--overlap", metavar="TIME", callback=_span, help="How long the former secret is taken for. Default: 1d.")
@output_option
@json_option
@server_option
def rotate(token: str, overlap: timedelta | None, output: Path | None, as_json: bool, server: str | None) -> None:
    """Give TOKEN another secret.

    The former one is taken for a while longer.
    """
    with _place(output) as place, connect(server) as client:
        _hand_over(client.rotate_token(token, overlap=overlap), place, output, as_json)


@token.command()
@token_argument
@json_option
@server_option
def revoke(token: str, as_json: bool, server: str | None) -> None:
    """End TOKEN.

    Within 5 seconds no server takes it any more.
    """
    with connect(server) as client:
        _tell(client.revoke_token(token), as_json)


@token.command()
@json_option
@server_option
def whoami(as_json: bool, server: str | None) -> None:
    """Show who you are to the server.

    That is the token in $PODIUM_TOKEN, or in the file that $PODIUM_TOKEN_FILE names.
    """
    with connect(server) as client:
        found = client.whoami()
    if found is not None:
        _tell(found, as_json)
    elif as_json:
        print_json(None)
    else:
        click.echo("anonymous: this server asks for no tokens")


@contextmanager
def _place(output: Path | None) -> Iterator[IO[str] | None]:
    """Where the secret goes: made before there is one, so that none is lost for a folder that is not there."""
    if output is None:
        yield None
        return
    try:
        # A link is no new file either, so nobody who laid one chooses what is written over, or who may read it.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(f"--output: {output} is there already, and is left as it is; name a new file") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _hand_over(made: NewToken, place: IO[str] | None, output: Path | None, as_json: bool) -> None:
    from podium.client._wire import to_json
    from podium.client.cli._text import printable

    if place is not None:
        place.write(f"{made.secret}\n")
    if as_json:
        print_json({"token": to_json(made.token), **({} if output else {"secret": made.secret})})
        return
    if output is None:
        click.echo(made.secret)
    where = f"its secret is in {output}; use it with PODIUM_TOKEN_FILE={output}" if output else "keep the secret"
    hint = where if output or not sys.stdout.isatty() else f"{where}: it is not shown again"
    click.echo(printable(f"{_told(made.token)}; {hint}"), err=True)


def _tell(token: Token, as_json: bool) -> None:
    from podium.client._wire import to_json
    from podium.client.cli._text import printable

    if as_json:
        print_json(to_json(token))
    else:
        click.echo(printable(f"{_told(token)}, {_good(token)}"))


def _told(token: Token) -> str:
    where = "all projects" if token.project == "*" else token.project
    return f"{token.name}, {token.role.name.lower()} of {where}"


def _good(token: Token) -> str:
    """How long it is good for, in words."""
    from datetime import UTC, datetime

    if token.revoke_time is not None:
        return f"revoked {token.revoke_time.astimezone():%Y-%m-%d %H:%M}"
    if token.expire_time is None:
        return "until revoked"
    word = "until" if token.expire_time > datetime.now(UTC) else "expired"
    return f"{word} {token.expire_time.astimezone():%Y-%m-%d %H:%M}"
