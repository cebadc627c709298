"""Which module does a job's work: podium.worker.fit, unless the operator names another in PODIUM_TRAINER.

Another one is for tests of the service, which have no time for training. The name comes from the environment of the
node agent alone, never from a job, and the module is imported when the work begins, as it may be heavy.
"""

import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Protocol, cast

from podium.jobs.job import Job, JobError
from podium.worker.job_context import JobContext

#: The variable of the agent's environment.
TRAINER = "PODIUM_TRAINER"
_DEFAULT = "podium.worker.fit"


class Trainer(Protocol):
    """What such a module has. See podium.worker.fit."""

    def run(self, job: Job, context: JobContext, *, threads: int) -> None:
        """Does a job in this process alone.

        Raises:
            Stopped: the attempt is to end before the job does; the work is saved.
        """

    def run_as_rank(self, job: Job, context: JobContext, *, threads: int) -> None:
        """The same as one of the ranks that torchrun started: RANK and the like are in the environment."""

    def describe(self, error: BaseException) -> JobError:
        """What to tell the user of an exception that ended the job."""

    def is_consequence(self, error: BaseException) -> bool:
        """Whether a rank's exception only says that another rank is gone."""


def trainer_name(environ: Mapping[str, str] = os.environ) -> str:
    """The dotted name of the module."""
    return environ.get(TRAINER) or _DEFAULT


def check_trainer(environ: Mapping[str, str] = os.environ) -> None:
    """Looks for the module without importing it.

    Raises:
        ValueError: there is none of that name; the sentence says what to do.
    """
    name = trainer_name(environ)
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ValueError(f"{TRAINER}={name}: there is no such module here; see to PYTHONPATH, or unset {TRAINER}")


def trainer() -> Trainer:
    """The module.

    Raises:
        ImportError: it cannot be imported.
    """
    return cast(Trainer, importlib.import_module(trainer_name()))
