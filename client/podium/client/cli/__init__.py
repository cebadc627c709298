"""The `podium` command. Its modules load when their command is called: `podium --help` loads click and nothing else."""

import os
import sys
from importlib import import_module

import click

#: Command -> (module in this package, what it does, in one line).
COMMANDS = {
    "submit": ("jobs", "Queue the job of a YAML file."),
    "ls": ("jobs", "List jobs, newest first."),
    "show": ("jobs", "Show one job."),
    "watch": ("watch", "Follow jobs until they end."),
    "logs": ("logs", "Print or follow a job's log."),
    "metrics": ("results", "Print a job's metrics."),
    "fetch": ("results", "Download a job's checkpoint."),
    "pause": ("control", "Have a job save its work and give up its slots."),
    "resume": ("control", "Let a paused job go on."),
    "update": ("control", "Change a queued job's priority or labels."),
    "cancel": ("control", "Ask a job to end."),
    "rm": ("rm", "Delete jobs that have ended."),
    "nodes": ("machines", "Show the machines and what they run."),
    "drain": ("machines", "Have a machine take no new jobs and give up its own."),
    "undrain": ("machines", "Let a machine take jobs again."),
    "sorters": ("catalogue", "List the sorters a spec may choose, or tell of one."),
    "backbones": ("catalogue", "List the backbones a spec may name."),
    "datasets": ("catalogue", "List what can be trained on, as lines of a job.yaml."),
    "info": ("catalogue", "Show the server's version and limits."),
    "schema": ("catalogue", "Print the JSON Schema of a job.yaml, for editors."),
    "token": ("tokens", "Make, list, rotate and revoke tokens."),
    "audit": ("audit", "Show who changed what, and who was refused."),
    "up": ("up", "Bring up Redis, a server and a worker on this machine."),
    "demo": ("demo", "Fine-tune twice and compare softmax with a top-k loss."),
}
_EARLIER_NAMES = {"pool": "nodes"}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = _EARLIER_NAMES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = import_module(f"podium.client.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    # \b keeps click from joining the lines that follow.
    help="Fine-tunes image classifiers for the ranks that matter.\n\n\b\n"
    "No server yet?      podium demo          or   podium up --local\n"
    "A first job:        podium submit examples/recipes/grocery-head.yaml --follow",
    epilog="The server is --server, or $PODIUM_SERVER, or the one that `podium up` runs here, or 127.0.0.1:50051. "
    "Exit codes: 0 well (the job SUCCEEDED), 1 failed (the job FAILED), 2 wrong usage or spec, 3 the job was "
    "CANCELLED, 4 no server answers, 5 not found, 130 interrupted.",
)
@click.version_option(package_name="podium", message="%(package)s %(version)s")
def cli() -> None:
    """Every command."""


def main() -> None:
    """The console script: runs the command, says errors as sentences, exits with the code of the table."""
    from podium.client.cli._exit import run

    # The core of gRPC notes every handshake that fails on stderr, five lines each; the errors say it in a sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(run(cli))
