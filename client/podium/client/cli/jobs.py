"""podium submit, ls, show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from podium.client.cli._options import (
    connect,
    console,
    job_argument,
    json_option,
    print_json,
    project_option,
    server_option,
)

if TYPE_CHECKING:
    from podium.jobs.errors import FieldViolation
    from podium.jobs.spec import JobSpec

_STATES = (
    *("queued", "starting", "running", "recovering", "pausing", "paused"),
    *("cancelling", "cancelled", "succeeded", "failed"),
)
#: Seconds that a question may take whose answer is not what was asked for.
_ASIDE = 5.0
#: Columns of a terminal that has room for everything of a list.
_WIDE = 100


@click.command()
@click.argument("file", metavar="JOB.YAML", type=click.Path(allow_dash=True))
@click.option("-f", "--follow", is_flag=True, help="Watch the job until it ends; exit with its outcome.")
@click.option("--validate-only", is_flag=True, help="Only check; print the spec with every default filled in.")
@project_option
@json_option
@server_option
def submit(file: str, follow: bool, validate_only: bool, project: str, as_json: bool, server: str | None) -> int | None:
    """Queue the job that JOB.YAML describes (- reads standard input), and print its id.

    Relative paths in it count from its own folder. Whatever is wrong with it is said at once, field by field.
    """
    from podium.client._wire import to_json
    from podium.client._yaml import dump_spec, read_spec, read_text
    from podium.client.cli._follow import follow as follow_job
    from podium.jobs.errors import InvalidSpecError

    spec, wrong = read_spec(read_text(sys.stdin.buffer, "standard input") + "\n" if file == "-" else file)
    if wrong or spec is None:
        raise InvalidSpecError([*wrong, *_found_in_the_rest(spec, wrong, project, server)])
    with connect(server, project=project) as client:
        if validate_only:
            resolved = client.validate(spec)
            print_json(to_json(resolved)) if as_json else click.echo(dump_spec(resolved), nl=False)
            return None
        handle = client.submit(spec)
        if follow:
            click.echo(f"Submitted {handle.id}.", err=True)
            return follow_job(handle, as_json=as_json)
        print_json(to_json(handle.job())) if as_json else click.echo(handle.id)
    return None


def _found_in_the_rest(
    spec: JobSpec | None, wrong: Sequence[FieldViolation], project: str, server: str | None
) -> Sequence[FieldViolation]:
    """What the server finds wrong with what could be read; nothing where it cannot be asked."""
    from podium.jobs.errors import InvalidSpecError, NotFoundError, PodiumError

    try:
        if spec is not None:
            with connect(server, project=project, timeout=_ASIDE) as client:
                client.validate(spec)
    except (InvalidSpecError, NotFoundError) as error:
        named = {violation.field for violation in wrong}
        return [violation for violation in error.violations if violation.field not in named]
    except (PodiumError, click.ClickException):
        pass
    return ()


@click.command()
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES, case_sensitive=False), help="Only these.")
@click.option("--filter", "only", default="", metavar="FILTER", help="Only jobs of which it is true.")
@click.option("--oldest-first", is_flag=True, help="The other way round.")
@project_option
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
@json_option
@server_option
def ls(
    states: tuple[str, ...],
    only: str,
    oldest_first: bool,
    project: str,
    limit: int,
    as_json: bool,
    server: str | None,
) -> None:
    """List jobs, newest first.

    FILTER asks what there is to know of a job, such as 'error.cause = OOM_DEVICE AND labels.team = vision'. OR binds
    tighter than AND. docs/listing.md has every field.
    """
    from itertools import islice

    from podium.client._wire import to_json
    from podium.client.cli._show import jobs_view
    from podium.jobs.states import State

    with connect(server, project=project) as client:
        chosen = [State[state.upper()] for state in states]
        found = client.list(chosen, filter=only, oldest_first=oldest_first)
        jobs = list(islice(found, limit))
        # Who named the limit knows of it.
        unasked = click.get_current_context().get_parameter_source("limit") is ParameterSource.DEFAULT
        more = unasked and len(jobs) == limit and next(found, None) is not None
    if as_json:
        print_json([to_json(job) for job in jobs])
    elif jobs:
        out = console()
        out.print(jobs_view(jobs, wide=out.width >= _WIDE))
    elif states or only:
        click.echo("No such jobs.", err=True)
    else:
        click.echo("No jobs. Queue one with: podium submit job.yaml", err=True)
    if more:
        click.echo(f"There are more than these {limit}; --limit says how many to list.", err=True)


@click.command()
@job_argument
@json_option
@server_option
def show(job: str, as_json: bool, server: str | None) -> None:
    """Show JOB: where it stands and why, when it may start, every attempt, its checkpoints, its spec."""
    from podium.client._wire import to_json
    from podium.client.cli._show import job_view

    with connect(server) as client:
        handle = client.job(job)
        found, checkpoints = handle.job(), handle.checkpoints()
    if as_json:
        print_json({**to_json(found), "checkpoints": [to_json(checkpoint) for checkpoint in checkpoints]})
    else:
        console().print(job_view(found, checkpoints))
