"""What `podium show` shows."""

from rich.console import Console

from podium.client.cli._show import job_view
from podium.jobs.job import Attempt, Job
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def shown(*attempts: Attempt) -> str:
    job = Job(id="job-a", project="default", spec=SPEC, state=State.RUNNING, attempt=len(attempts), attempts=attempts)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(job_view(job, ()))
    return capture.get()


def test_an_attempt_is_shown_with_its_machine_and_every_slot_that_it_holds() -> None:
    text = shown(Attempt(number=1, node="n1", slot=3), Attempt(number=2, node="n2", slot=0, slots=(0, 2)))

    assert "n1 slot 3 " in text
    assert "n2 slots 0, 2 " in text
