"""podium watch."""

import click

from podium.client.cli._options import connect, json_option, server_option


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.option("--after", type=click.IntRange(0), metavar="SEQUENCE", help="Begin after this event; 0: with the first.")
@json_option
@server_option
def watch(jobs: tuple[str, ...], after: int | None, as_json: bool, server: str | None) -> int:
    """Follow a JOB, or several at once, until they end: state, progress, numbers, log.

    Ctrl-C leaves the jobs running, and `podium watch JOB` goes on where you stopped. The exit code is the job's
    outcome; of several, that of the first one named which did not succeed. --json prints one event a line.
    """
    from podium.client.cli._follow import follow
    from podium.client.cli._follow_many import follow_many

    if len(set(jobs)) > 1 and after is not None:
        raise click.UsageError("--after is a place in one job's events; leave it out, or name one job")
    with connect(server) as client:
        if len(set(jobs)) > 1:
            return follow_many(client, jobs, as_json=as_json)
        return follow(client.job(jobs[0]), as_json=as_json, after=after)
