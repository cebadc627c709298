"""What `podium show` and `podium nodes` show."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, RenderableType

from podium.client.cli._nodes import nodes_view
from podium.client.cli._show import job_view, jobs_view
from podium.client.cli._view import progress_view
from podium.jobs.job import (
    Attempt,
    Cause,
    Checkpoint,
    CheckpointFile,
    Job,
    JobError,
    Member,
    Node,
    NodeState,
    Progress,
    QueueInfo,
    Slot,
)
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def text_of(view: RenderableType, columns: int = 140) -> str:
    console = Console(width=columns)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def shown(*attempts: Attempt, **changes: Any) -> str:
    fields: dict[str, Any] = {"state": State.RUNNING, "attempt": len(attempts), "attempts": attempts, **changes}
    return text_of(job_view(Job(id="job-a", project="default", spec=SPEC, **fields), ()))


def test_a_list_in_a_narrow_terminal_leaves_the_backbone_out_and_cuts_no_id() -> None:
    queue = QueueInfo(position=1, wait_reason="", estimated_start_time=NOON)
    job_id = "job-mq3k7z5c2x4whv6a"
    job = Job(id=job_id, project="default", spec=SPEC, state=State.QUEUED, create_time=NOON, queue=queue)
    narrow, wide = text_of(jobs_view([job], wide=False), columns=80), text_of(jobs_view([job], wide=True))

    assert ("resnet50" in wide, "resnet50" in narrow) == (True, False)
    assert job_id in narrow
    assert len(narrow.splitlines()) == 3


def test_a_list_tells_the_cause_of_a_failure() -> None:
    error = JobError(cause=Cause.NON_FINITE, message="the loss became nan")
    job = Job(id="job-a", project="default", spec=SPEC, state=State.FAILED, create_time=NOON, error=error)

    assert "NON_FINITE" in text_of(jobs_view([job], wide=True))


def test_what_became_of_a_failed_job_is_said_once() -> None:
    error = JobError(cause=Cause.NON_FINITE, message="the loss became nan", remedy="lower it")
    text = shown(state=State.FAILED, state_reason=error.message, error=error)

    assert (1, 1) == (text.count(error.message), text.count(error.remedy))
    assert "no space" in shown(
        state=State.FAILED, state_reason="4 attempts", error=JobError(cause=Cause.STORAGE, message="no space")
    )


def test_a_traceback_is_shown_of_what_the_user_cannot_mend_only() -> None:
    traceback = "Traceback (most recent call last): ..."
    for cause, there in ((Cause.DATA, False), (Cause.USER_CONFIG, False), (Cause.INTERNAL, True)):
        error = JobError(cause=cause, message="rose/1.jpg is no image", remedy="remove it", traceback=traceback)

        assert there is (traceback in shown(state=State.FAILED, error=error))


def test_a_narrow_terminal_cuts_no_id_of_a_checkpoint() -> None:
    files = (CheckpointFile(name="model.safetensors", size=4_500_000, sha256=""),)
    metrics = {"val/top1": 0.5, "val/top5": 0.75}
    checkpoint = Checkpoint(
        id="ckpt-mq3k7z5c2x4whv6a", job_id="job-a", attempt=1, step=1_000_000, metrics=metrics, best=True, files=files
    )
    job = Job(id="job-a", project="default", spec=SPEC, state=State.SUCCEEDED)

    assert checkpoint.id in text_of(job_view(job, [checkpoint]), columns=50)


def test_who_submitted_a_job_is_shown() -> None:
    assert "by tok-0123456789abcdef (ci)" in shown(create_time=NOON, created_by="tok-0123456789abcdef (ci)")


def test_an_attempt_is_shown_with_its_machine_and_every_slot_that_it_holds() -> None:
    text = shown(Attempt(number=1, node="n1", slot=3), Attempt(number=2, node="n2", slot=0, slots=(0, 2)))

    assert "n1 slot 3 " in text
    assert "n2 slots 0, 2 " in text


def test_an_attempt_is_shown_with_all_machines_its_time_its_cause_and_what_it_saved() -> None:
    ended = Attempt(
        number=1,
        node="n1",
        slot=0,
        others=(Member(node="n2", slots=(1,)),),
        start_time=NOON,
        end_time=NOON + timedelta(minutes=25),
        resumed_from_step=7,
        checkpoint_id="ckpt-1",
        checkpoint_step=90,
        cause=Cause.NODE_LOST,
        outcome="n2 was lost",
    )

    text = shown(ended, Attempt(number=2, node="n3", slot=0, start_time=NOON))

    assert "n1 slot 0 and n2 slot 1" in text
    assert "(25:00), from step 7, saved step 90 as ckpt-1" in text
    assert "NODE_LOST  n2 was lost" in text
    assert "from the start, saved nothing yet" in text


def test_a_queued_job_is_shown_with_its_place_its_start_and_what_it_waits_for() -> None:
    soon = datetime.now(UTC) + timedelta(minutes=12, seconds=5)
    queue = QueueInfo(position=3, wait_reason="waiting for a free slot", estimated_start_time=soon)

    text = shown(state=State.QUEUED, queue=queue, retry_time=soon)

    assert "QUEUED  waiting for a free slot" in text
    assert "number 3 in line, starts in about 12 min, not before " in text
    assert "not before" not in shown(state=State.QUEUED, queue=queue)


def test_a_job_that_stands_still_is_shown_without_speed_and_time_left() -> None:
    progress = Progress(phase="training", step=1, total_steps=2, fraction=0.5, images_per_second=840, eta_seconds=60)

    assert "840 images/s  1:00 left" in text_of(progress_view(progress, State.PAUSING))
    assert "1 / 2" in text_of(progress_view(progress, State.PAUSED))
    assert "left" not in text_of(progress_view(progress, State.PAUSED))


def test_in_a_narrow_terminal_the_bar_of_the_progress_gives_way_and_no_number_is_broken() -> None:
    progress = Progress(
        phase="training", step=110, total_steps=20000, fraction=0.5, images_per_second=59, eta_seconds=60
    )

    [line] = text_of(progress_view(progress, State.RUNNING), columns=60).splitlines()
    assert "  110 / 20000  59 images/s  1:00 left" in line


def test_a_machine_is_shown_with_why_it_takes_no_jobs_its_versions_and_what_every_slot_does() -> None:
    slots = (
        Slot(index=0, model="H100", memory_bytes=80 << 30, job_id="job-a"),
        Slot(index=1, model="H100", memory_bytes=80 << 30),
        Slot(index=2, model="H100", trouble="process 7 holds 31 GiB"),
    )
    fields: dict[str, Any] = {"id": "n1", "pool": "large", "version": "1.0", "versions": {"driver": "570"}}

    def lines(**changes: Any) -> Sequence[str]:
        view = nodes_view([Node(**fields, slots=slots, **changes)])
        return [line.strip() for line in text_of(view).splitlines()]

    assert [
        "n1  READY  pool large  podium 1.0, driver 570",
        "0  H100  80.0 GiB  job-a",
        "1  H100  80.0 GiB  free",
        "2  H100            takes no jobs: process 7 holds 31 GiB",
    ] == lines(state=NodeState.READY)
    excluded = lines(state=NodeState.EXCLUDED, reason="its hardware failed")
    assert "takes no jobs: its hardware failed" == excluded[1]
    assert "1  H100  80.0 GiB  idle" in excluded
