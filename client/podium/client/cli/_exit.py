"""Exit codes, and errors as sentences on stderr.

| code | meaning |
|---|---|
| 0 | well; where a job was followed, it SUCCEEDED |
| 1 | the job FAILED, or something else went wrong |
| 2 | wrong usage, or a spec that cannot be accepted |
| 3 | the job was CANCELLED |
| 4 | no server answers |
| 5 | no such job, checkpoint or file |
| 130 | interrupted with Ctrl-C |
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podium.jobs.errors import PodiumError
    from podium.jobs.states import State

SUCCEEDED, FAILED, USAGE, CANCELLED, UNREACHABLE, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def run(command: click.Command, arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; an error of ours is said without a traceback."""
    from podium.jobs.errors import PodiumError

    try:
        code = command.main(arguments, prog_name="podium", standalone_mode=False)
        return code if isinstance(code, int) else SUCCEEDED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except PodiumError as error:
        for sentence in sentences(error):
            say(sentence)
        return code_of(error)
    except BrokenPipeError:
        # `podium ls | head` has seen enough; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        say(f"{error.filename or 'system'}: {error.strerror or error}")
        return USAGE if isinstance(error, (FileNotFoundError, IsADirectoryError)) else FAILED


def outcome(state: State) -> int:
    """The exit code of a job that has ended."""
    return {"SUCCEEDED": SUCCEEDED, "CANCELLED": CANCELLED}.get(state.name, FAILED)


def code_of(error: PodiumError) -> int:
    """The exit code of an error."""
    from podium.jobs.errors import DeadlineExceededError, InvalidSpecError, NotFoundError, UnavailableError

    if isinstance(error, NotFoundError):
        # A path that a spec names is the spec's fault.
        return USAGE if error.violations else NOT_FOUND
    if isinstance(error, InvalidSpecError):
        return USAGE
    return UNREACHABLE if isinstance(error, (UnavailableError, DeadlineExceededError)) else FAILED


def sentences(error: PodiumError) -> list[str]:
    """What went wrong and what to do, one sentence each."""
    from podium.jobs.errors import UnavailableError

    violations = getattr(error, "violations", ())
    if violations:
        return [f"{violation.field}: {violation.description}" for violation in violations]
    if isinstance(error, UnavailableError) and "target" in error.metadata:  # no server said this itself
        return [f"{error.message}; start one with `podium up --local`, or name yours with --server or PODIUM_SERVER"]
    return [error.message]


def say(sentence: str) -> None:
    """A red sentence on stderr."""
    from podium.client.cli._text import printable

    click.secho(printable(sentence), fg="red", err=True)
