"""podium watch."""

import click

from podium.client.cli._options import connect, job_argument, json_option, server_option


@click.command()
@job_argument
@click.option("--after", type=click.IntRange(0), metavar="SEQUENCE", help="Begin after this event; 0: with the first.")
@json_option
@server_option
def watch(job: str, after: int | None, as_json: bool, server: str | None) -> int:
    """Follow JOB until it ends: state, progress, numbers, log.

    Ctrl-C leaves the job running, and `podium watch JOB` goes on where you stopped. The exit code is the job's outcome.
    --json prints one event a line.
    """
    from podium.client.cli._follow import follow

    with connect(server) as client:
        return follow(client.job(job), as_json=as_json, after=after)
