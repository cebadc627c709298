"""What a user does with a client, of whichever release: `python user.py ADDRESS TRAIN JOB` prints what it saw as JSON.

JOB is one that another release's client submitted, or "". Only what 0.1.0 had is used.
"""

import json
import sys

from podium.client import Client
from podium.jobs.errors import NotFoundError
from podium.jobs.spec import CheckpointPolicy, FullFineTuning, ImageFolder, JobSpec, Softmax


def spec(train: str, script: str) -> JobSpec:
    """A job for the scripted trainer."""
    return JobSpec(
        backbone="resnet18",
        tuning=FullFineTuning(),
        dataset=ImageFolder(train=train),
        sorter=Softmax(),
        checkpoints=CheckpointPolicy(keep_last=2),
        display_name=script,
    )


def main(address: str, train: str, other: str) -> None:
    """Submits, watches, lists, reads, cancels."""
    with Client(address, patience=60) as client:
        job = client.submit(spec(train, "steps 6, save 3"))
        sequences = [event.sequence for event in job.watch()]
        ended = job.job()
        queued = client.submit(spec(train, "steps 100000, pause 0.05"))
        queued.cancel("tried")
        try:
            client.get("job-none")
            missing = "found"
        except NotFoundError as error:
            missing = error.reason
        seen = {
            "module": sys.modules["podium.client"].__file__,
            "job": ended.id,
            "state": ended.state.name,
            "gapless": sequences[1:] == list(range(1, ended.sequence + 1)),
            "last step": max(series.steps[-1] for series in job.metrics().values()),
            "checkpoints": [checkpoint.step for checkpoint in job.checkpoints()],
            "listed": {one.id for one in client.list()} >= {job.id, queued.id},
            "cancelled": queued.wait(timeout=60).state.name,
            "nodes": [node.id for node in client.nodes()],
            "missing": missing,
            "other": client.get(other).state.name if other else "",
        }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
