"""What every ledger keeps, whichever it is: podium.jobs.store._base, sentence by sentence.

Long, because it is one specification: each class is about one operation of the Protocol.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from podium.api.v1 import job_pb2
from podium.jobs.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    OutOfRangeError,
    StaleFenceError,
)
from podium.jobs.events import JobEvent, LogBatch, LogLine, MetricBatch, StateChange, merge_metrics
from podium.jobs.job import Cause, Checkpoint, Job, JobError, Progress
from podium.jobs.spec import (
    Augmentation,
    Bitonic,
    Evaluation,
    FullFineTuning,
    ImageFolder,
    Interpolation,
    JobSpec,
    Precision,
    Preprocessing,
    Priority,
    Resources,
    Sgd,
    StepSchedule,
    Weights,
)
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, NewJob, Wish
from tests.contract.plays import SPEC, checkpoint_of, everything, history, machine, moves, race, slots_of, start, submit


class TestCreation:
    def test_a_new_job_is_queued_with_event_1_and_a_place_in_the_queue(self, world) -> None:
        job, new = world.store.create(NewJob(project="p", spec=SPEC, classes=("cat", "dog")))

        assert new
        assert job.state is State.QUEUED
        assert (job.project, job.spec, job.classes) == ("p", SPEC, ("cat", "dog"))
        assert (job.sequence, job.attempt, job.terminal) == (1, 0, False)
        assert job.create_time == world.clock.now
        assert job.queue is not None
        assert job.queue.position == 1
        assert [job.id] == list(world.store.pending("default"))
        assert [
            JobEvent(
                sequence=1, job_id=job.id, time=world.clock.now, attempt=0, payload=StateChange(to_state=State.QUEUED)
            )
        ] == history(world.store, job.id)

    def test_every_field_of_a_spec_comes_back(self, store) -> None:
        spec = JobSpec(
            backbone="timm/resnet50",
            weights=Weights(tag="a1_in1k"),
            tuning=FullFineTuning(),
            dataset=ImageFolder(train="/t", val="/v", test="/u", val_fraction=0.2),
            preprocessing=Preprocessing(image_size=64, interpolation=Interpolation.BICUBIC, mean=(0.1, 0.2, 0.3)),
            augmentation=Augmentation(horizontal_flip=True),
            k={1: 0.25, 5: 0.75},
            m=12,
            sorter=Bitonic(steepness=3.5),
            optimizer=Sgd(nesterov=True),
            schedule=StepSchedule(every_epochs=3),
            precision=Precision.BF16,
            seed=2**40,
            evaluation=Evaluation(top_k=(1, 5), monitor="top5"),
            resources=Resources(pool="big"),
            priority=Priority.URGENT,
            labels={"team": "vision", "a": ""},
        )
        job, _ = store.create(NewJob(project="default", spec=spec, classes=()))

        assert spec == store.get(job.id).spec

    def test_a_repeated_request_id_returns_the_first_job_and_creates_nothing(self, store) -> None:
        new = NewJob(
            project="default", spec=replace(SPEC, labels={"a": "1", "b": "2"}), classes=("cat",), request_id="once"
        )
        first, _ = store.create(new)
        again, is_new = store.create(replace(new, spec=replace(SPEC, labels={"b": "2", "a": "1"})))

        assert not is_new
        assert first == again
        assert [first.id] == list(store.pending("default"))

    def test_a_request_id_with_another_spec_is_refused(self, store) -> None:
        first, _ = store.create(NewJob(project="default", spec=SPEC, classes=(), request_id="once"))

        with pytest.raises(AlreadyExistsError, match="make a new request_id"):
            store.create(NewJob(project="default", spec=replace(SPEC, seed=1), classes=(), request_id="once"))
        assert [first.id] == list(store.pending("default"))

    def test_a_request_id_belongs_to_its_project(self, store) -> None:
        _, first = store.create(NewJob(project="a", spec=SPEC, classes=(), request_id="once"))
        _, second = store.create(NewJob(project="b", spec=SPEC, classes=(), request_id="once"))

        assert (True, True) == (first, second)

    def test_without_a_request_id_every_call_is_a_new_job(self, store) -> None:
        assert submit(store).id != submit(store).id

    @pytest.mark.parametrize(
        "ask",
        [
            lambda store: store.get("job-none"),
            lambda store: store.cancel("job-none", "why"),
            lambda store: store.dispatch("job-none", "n1", 0),
            lambda store: store.events("job-none", after=0),
            lambda store: store.metrics("job-none"),
            lambda store: store.checkpoints("job-none"),
        ],
    )
    def test_an_unknown_job_is_not_found(self, store, ask: Callable[[JobStore], object]) -> None:
        with pytest.raises(NotFoundError) as caught:
            ask(store)
        assert caught.value.reason == "JOB_NOT_FOUND"


class TestQueue:
    def test_jobs_are_dispatched_by_priority_and_then_by_creation(self, store) -> None:
        normal, low, urgent, high, later = (
            submit(store, priority=priority).id
            for priority in (Priority.NORMAL, Priority.LOW, Priority.URGENT, Priority.HIGH, Priority.NORMAL)
        )

        assert [urgent, high, normal, later, low] == list(store.pending("default"))
        queue = store.get(later).queue
        assert queue is not None
        assert queue.position == 4

    def test_a_job_that_comes_back_keeps_its_place(self, store) -> None:
        first, second = submit(store).id, submit(store).id
        assignment = store.dispatch(first, "n1", 0)
        assert [second] == list(store.pending("default"))

        assert store.recover(assignment, "worker lost").queue.position == 1
        assert [first, second] == list(store.pending("default"))

    def test_pools_have_their_own_queues(self, store) -> None:
        small, big = submit(store).id, submit(store, resources=Resources(pool="big")).id

        assert [small] == list(store.pending("default"))
        assert [big] == list(store.pending("big"))
        assert [] == list(store.pending("none"))


class TestDispatch:
    def test_it_takes_the_slot_and_raises_attempt_and_fence(self, world) -> None:
        job_id = submit(world.store).id
        assignment = world.store.dispatch(job_id, "n1", 3)
        job = world.store.get(job_id)

        assert (job_id, 1) == (assignment.job_id, assignment.attempt)
        assert job.state is State.STARTING
        assert job.queue is None
        assert [(1, "n1", 3, world.clock.now, "")] == [
            (attempt.number, attempt.node, attempt.slot, attempt.start_time, attempt.outcome)
            for attempt in job.attempts
        ]
        assert [] == list(world.store.pending("default"))
        assert [(job, assignment, True)] == list(world.store.holding())

        world.store.recover(assignment, "lost")
        again = world.store.dispatch(job_id, "n1", 3)
        assert again.attempt == 2
        assert again.fence == assignment.fence + 2  # raised by the loss, and by the dispatch

    def test_a_taken_slot_is_refused_and_nothing_changes(self, store) -> None:
        first = store.dispatch(submit(store).id, "n1", 0)
        waiting = submit(store)

        with pytest.raises(FailedPreconditionError) as caught:
            store.dispatch(waiting.id, "n1", 0)
        assert caught.value.reason == "SLOT_TAKEN"
        assert waiting == store.get(waiting.id)
        assert [first] == [assignment for _, assignment, _ in store.holding()]
        assert store.dispatch(waiting.id, "n1", 1).attempt == 1
        assert store.dispatch(submit(store).id, "n2", 0).attempt == 1

    def test_a_job_that_is_not_queued_is_refused_and_the_slot_stays_free(self, store) -> None:
        job_id = submit(store).id
        store.dispatch(job_id, "n1", 0)

        with pytest.raises(FailedPreconditionError) as caught:
            store.dispatch(job_id, "n1", 1)
        assert caught.value.reason == "WRONG_STATE"
        assert store.dispatch(submit(store).id, "n1", 1).attempt == 1

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
    def test_the_end_of_a_job_frees_its_slot(self, store, end: State) -> None:
        store.finish(start(store), end, reason="over")

        assert [] == list(store.holding())
        assert store.dispatch(submit(store).id, "n1", 0).attempt == 1

    def test_of_many_that_dispatch_to_one_slot_one_wins(self, store) -> None:
        ids = [submit(store).id for _ in range(6)]
        results = race([partial(store.dispatch, job_id, "n1", 0) for job_id in ids])

        assert 1 == sum(isinstance(result, Assignment) for result in results)
        assert 5 == sum(getattr(result, "reason", "") == "SLOT_TAKEN" for result in results)
        assert 1 == len(store.holding())
        assert 5 == len(store.pending("default"))

    def test_of_many_that_dispatch_one_job_one_wins(self, store) -> None:
        job_id = submit(store).id
        results = race([partial(store.dispatch, job_id, "n1", slot) for slot in range(6)])

        assert 1 == sum(isinstance(result, Assignment) for result in results)
        assert ["QUEUED", "STARTING"] == moves(store, job_id)


class TestSeveralSlots:
    """One job on several slots of one machine."""

    @pytest.fixture(autouse=True)
    def _machines(self, store) -> None:
        for name in ("n1", "n2"):
            machine(store, name)

    def test_all_of_them_are_taken_and_each_shows_the_job(self, store) -> None:
        job_id = submit(store).id
        store.dispatch(job_id, "n1", 2, 0)
        job = store.get(job_id)

        assert [job_id, "", job_id] == slots_of(store)
        assert ["", "", ""] == slots_of(store, "n2")
        assert [(2, (2, 0))] == [(attempt.slot, attempt.slots) for attempt in job.attempts]
        assert job.state_reason == "starting on n1, slots 2, 0"
        assert 1 == len(store.holding())

    @pytest.mark.parametrize("wanted", [(0, 1), (1, 0), (1, 2), (0, 1, 2)])
    def test_where_one_is_taken_none_is(self, store, wanted: tuple[int, ...]) -> None:
        holder = store.dispatch(submit(store).id, "n1", 1).job_id
        waiting = submit(store)

        with pytest.raises(FailedPreconditionError) as caught:
            store.dispatch(waiting.id, "n1", *wanted)
        assert caught.value.reason == "SLOT_TAKEN"
        assert waiting == store.get(waiting.id)
        assert ["", holder, ""] == slots_of(store)
        assert store.dispatch(waiting.id, "n1", 2, 0).attempt == 1

    def test_each_is_kept_from_others(self, store) -> None:
        store.dispatch(submit(store).id, "n1", 0, 1)
        waiting = submit(store).id

        for slot in (0, 1):
            with pytest.raises(FailedPreconditionError):
                store.dispatch(waiting, "n1", slot)
        assert store.dispatch(waiting, "n1", 2).attempt == 1

    @pytest.mark.parametrize("end", ["succeeds", "fails", "is lost", "is cancelled", "is cancelled and lost"])
    def test_every_end_frees_all_of_them(self, store, end: str) -> None:
        assignment = store.dispatch(submit(store).id, "n1", 0, 1, 2)
        store.begin(assignment)
        store.renew(assignment)
        held = slots_of(store)
        if "cancelled" in end:
            store.cancel(assignment.job_id, "not needed")
            assert held == slots_of(store)
        match end:
            case "succeeds":
                store.finish(assignment, State.SUCCEEDED, reason="over")
            case "fails":
                store.finish(assignment, State.FAILED, reason="over")
            case "is cancelled":
                store.finish(assignment, State.CANCELLED, reason="over")
            case _:
                store.recover(assignment, "lost")

        assert [assignment.job_id] * 3 == held
        assert ["", "", ""] == slots_of(store)
        assert [] == list(store.holding())
        assert store.dispatch(submit(store).id, "n1", 0, 1, 2).attempt == 1

    def test_the_next_attempt_may_hold_others(self, store) -> None:
        assignment = store.dispatch(submit(store).id, "n1", 0, 1)
        store.recover(assignment, "lost")
        store.dispatch(assignment.job_id, "n2", 2, 1)

        assert ["", "", ""] == slots_of(store)
        assert ["", assignment.job_id, assignment.job_id] == slots_of(store, "n2")
        assert [(0, 1), (2, 1)] == [attempt.slots for attempt in store.get(assignment.job_id).attempts]

    def test_of_many_that_want_overlapping_slots_no_two_win(self, store) -> None:
        ids = [submit(store).id for _ in range(6)]
        results = race([partial(store.dispatch, job_id, "n1", at % 3, (at + 1) % 3) for at, job_id in enumerate(ids)])

        assert 1 == sum(isinstance(result, Assignment) for result in results)
        assert 5 == sum(getattr(result, "reason", "") == "SLOT_TAKEN" for result in results)
        assert 2 == sum(bool(job_id) for job_id in slots_of(store))

    def test_no_slot_is_taken_twice(self, store) -> None:
        with pytest.raises(ValueError, match="twice"):
            store.dispatch(submit(store).id, "n1", 1, 1)
        assert ["", "", ""] == slots_of(store)


class TestBegin:
    def test_a_job_runs_from_its_first_begin_on(self, world) -> None:
        store = world.store
        first = store.dispatch(submit(store).id, "n1", 0)
        job = store.begin(first)
        began = world.clock.now

        assert job.state is State.RUNNING
        assert job.start_time == began
        store.recover(first, "lost")
        world.clock.advance(seconds=5)
        second = store.dispatch(first.job_id, "n1", 0)
        job = store.begin(second, resumed_from_step=40)
        assert job.start_time == began
        assert [0, 40] == [attempt.resumed_from_step for attempt in job.attempts]

    def test_an_assignment_that_is_delivered_twice_begins_once(self, store) -> None:
        assignment = start(store)
        before = store.get(assignment.job_id)

        with pytest.raises(StaleFenceError):
            store.begin(assignment)
        assert before == store.get(assignment.job_id)

    def test_of_many_that_begin_one_wins(self, store) -> None:
        assignment = store.dispatch(submit(store).id, "n1", 0)
        results = race([lambda: store.begin(assignment)] * 6)

        assert 1 == sum(isinstance(result, Job) for result in results)
        assert 5 == sum(isinstance(result, StaleFenceError) for result in results)
        assert ["QUEUED", "STARTING", "RUNNING"] == moves(store, assignment.job_id)

    def test_an_attempt_that_was_cancelled_before_it_began_learns_it(self, store) -> None:
        assignment = store.dispatch(submit(store).id, "n1", 0)
        store.cancel(assignment.job_id, "not needed")

        assert store.begin(assignment).state is State.CANCELLING
        assert store.renew(assignment) is Wish.CANCEL
        assert store.finish(assignment, State.CANCELLED, reason="on request").state is State.CANCELLED
        assert store.get(assignment.job_id).start_time is None


WRITERS: dict[str, Callable[[JobStore, Assignment], object]] = {
    "begin": lambda store, mine: store.begin(mine),
    "renew": lambda store, mine: store.renew(mine),
    "append": lambda store, mine: store.append(mine, 99, [MetricBatch.at(1, {"loss": 1.0})]),
    "append nothing": lambda store, mine: store.append(mine, 99, []),
    "commit": lambda store, mine: store.commit_checkpoint(mine, checkpoint_of(mine, "late", 9, best=True)),
    "forget": lambda store, mine: store.forget_checkpoint(mine, "ckpt-kept"),
    "succeed": lambda store, mine: store.finish(mine, State.SUCCEEDED, reason="late"),
    "fail": lambda store, mine: store.finish(mine, State.FAILED, reason="late"),
    "cancel": lambda store, mine: store.finish(mine, State.CANCELLED, reason="late"),
    "recover": lambda store, mine: store.recover(mine, "late"),
}
ENDS: dict[str, Callable[[JobStore, Assignment], object]] = {
    "recovered": lambda store, mine: store.recover(mine, "lost"),
    "begun again": lambda store, mine: (
        store.recover(mine, "lost"),
        store.begin(store.dispatch(mine.job_id, "n1", 0)),
    ),
    "cancelled after its loss": lambda store, mine: (
        store.cancel(mine.job_id, "why"),
        store.recover(mine, "lost"),
    ),
    "over": lambda store, mine: store.finish(mine, State.SUCCEEDED, reason="done"),
}


class TestFence:
    # "succeed" after "over" is a repetition, which returns the job.
    @pytest.mark.parametrize(
        ("writer", "end"), [(writer, end) for writer in WRITERS for end in ENDS if (writer, end) != ("succeed", "over")]
    )
    def test_who_lost_the_job_can_write_nothing(self, store, writer: str, end: str) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "kept", 1, best=True))
        ENDS[end](store, assignment)
        before = everything(store, assignment.job_id)

        with pytest.raises(StaleFenceError):
            WRITERS[writer](store, assignment)
        assert before == everything(store, assignment.job_id)

    @pytest.mark.parametrize("writer", WRITERS)
    def test_a_job_that_the_ledger_does_not_know_is_nobodys(self, store, writer: str) -> None:
        with pytest.raises(StaleFenceError):
            WRITERS[writer](store, Assignment(job_id="job-none", attempt=1, fence=1))

    @pytest.mark.parametrize("writer", WRITERS)
    def test_a_made_up_fence_opens_nothing(self, store, writer: str) -> None:
        assignment = start(store)
        with pytest.raises(StaleFenceError):
            WRITERS[writer](store, replace(assignment, fence=assignment.fence + 1))


class TestAppend:
    def test_events_are_numbered_in_order_without_gaps(self, world) -> None:
        store = world.store
        assignment = start(store)
        points = MetricBatch.at(1, {"loss": 0.5, "top5": float("inf")})
        lines = LogBatch(lines=(LogLine(text="hello", time=world.clock.now),))
        progress = Progress(phase="training", step=1, total_steps=10, fraction=0.1, eta_seconds=3.5)

        assert store.append(assignment, 1, [points, lines]) == 5
        assert store.append(assignment, 2, [progress]) == 6
        events = history(store, assignment.job_id)
        assert list(range(1, 7)) == [event.sequence for event in events]
        assert [points, lines, progress] == [event.payload for event in events[3:]]
        assert {(assignment.job_id, 1, world.clock.now)} == {
            (event.job_id, event.attempt, event.time) for event in events[3:]
        }
        assert store.get(assignment.job_id).sequence == 6

    def test_the_last_progress_becomes_the_jobs(self, store) -> None:
        assignment = start(store)
        store.append(assignment, 1, [Progress(phase="features", step=1), Progress(phase="training", step=2)])
        store.append(assignment, 2, [MetricBatch.at(3, {"loss": 1.0})])

        assert Progress(phase="training", step=2) == store.get(assignment.job_id).progress

    def test_a_batch_that_was_written_is_not_written_again(self, store) -> None:
        assignment = start(store)
        for batch in (1, 1, 2, 1, 2):
            last = store.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0})])

        assert last == 5
        assert [1, 2] == [points.series[0].steps[0] for _, points in store.metrics(assignment.job_id)]

    def test_every_attempt_counts_its_batches_from_1(self, store) -> None:
        first = start(store)
        store.append(first, 7, [MetricBatch.at(10, {"loss": 1.0}), MetricBatch.at(20, {"loss": 2.0})])
        store.recover(first, "lost")
        second = store.dispatch(first.job_id, "n1", 0)
        store.begin(second)
        store.append(second, 1, [MetricBatch.at(20, {"loss": 3.0})])

        written = list(store.metrics(first.job_id))
        assert [1, 1, 2] == [attempt for attempt, _ in written]
        assert {"loss": {10: 1.0, 20: 3.0}} == merge_metrics(written)

    def test_metrics_come_back_over_many_pages(self, store) -> None:
        assignment = start(store)
        for batch in range(1, 4):
            store.append(assignment, batch, [MetricBatch.at(batch * 1000 + i, {"loss": 1.0}) for i in range(400)])

        steps = [points.series[0].steps[0] for _, points in store.metrics(assignment.job_id)]
        assert [batch * 1000 + i for batch in range(1, 4) for i in range(400)] == steps


class TestCancel:
    def test_a_queued_job_is_cancelled_at_once(self, world) -> None:
        job = world.store.cancel(submit(world.store).id, "not needed")

        assert (State.CANCELLED, True, "not needed") == (job.state, job.terminal, job.state_reason)
        assert job.end_time == world.clock.now
        assert [] == list(world.store.pending("default"))
        assert ["QUEUED", "CANCELLED"] == moves(world.store, job.id)

    @pytest.mark.parametrize("begun", [False, True])
    def test_a_job_with_a_slot_is_told_and_keeps_it_until_it_ends(self, store, begun: bool) -> None:
        assignment = start(store) if begun else store.dispatch(submit(store).id, "n1", 0)
        assert store.renew(assignment) is Wish.CONTINUE
        job = store.cancel(assignment.job_id, "not needed")

        assert job.state is State.CANCELLING
        assert store.renew(assignment) is Wish.CANCEL
        assert [assignment] == [held for _, held, _ in store.holding()]
        assert store.finish(assignment, State.CANCELLED, reason="as asked").state is State.CANCELLED
        assert [] == list(store.holding())

    def test_cancelling_again_changes_nothing(self, store) -> None:
        running, queued = start(store).job_id, submit(store).id
        for job_id in (running, queued):
            once = store.cancel(job_id, "first")
            assert once == store.cancel(job_id, "second")
            assert once == store.get(job_id)

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
    def test_what_has_ended_otherwise_cannot_be_cancelled(self, store, end: State) -> None:
        job = store.finish(start(store), end, reason="over")

        with pytest.raises(FailedPreconditionError, match=end.name):
            store.cancel(job.id, "too late")
        assert job == store.get(job.id)

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
    def test_an_attempt_may_reach_its_end_before_it_hears_of_the_cancel(self, store, end: State) -> None:
        assignment = start(store)
        store.cancel(assignment.job_id, "not needed")

        assert store.finish(assignment, end, reason="done").state is end


class TestRecover:
    @pytest.mark.parametrize("begun", [False, True])
    def test_a_lost_attempt_is_closed_and_the_job_queued_again(self, world, begun: bool) -> None:
        store = world.store
        assignment = start(store) if begun else store.dispatch(submit(store).id, "n1", 0)
        job = store.recover(assignment, "the machine n1 was lost")

        assert job.state is State.QUEUED
        assert job.queue is not None
        assert (job.attempts[0].outcome, job.attempts[0].end_time) == ("the machine n1 was lost", world.clock.now)
        assert ["RECOVERING", "QUEUED"] == moves(store, job.id)[-2:]
        assert [] == list(store.holding())
        assert store.dispatch(submit(store).id, "n1", 0).attempt == 1

    def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(self, store) -> None:
        assignment = start(store)
        store.cancel(assignment.job_id, "not needed")

        assert store.recover(assignment, "lost").state is State.CANCELLED
        assert [] == list(store.pending("default"))
        assert [] == list(store.holding())

    def test_the_next_attempt_is_not_told_what_the_last_one_was(self, store) -> None:
        assignment = start(store)
        store.recover(assignment, "lost")

        assert store.renew(store.dispatch(assignment.job_id, "n1", 0)) is Wish.CONTINUE


class TestFinish:
    def test_a_failure_is_kept_with_its_remedy(self, store) -> None:
        assignment = start(store)
        error = JobError(
            cause=Cause.OOM_DEVICE, message="80 GiB were not enough", remedy="halve batch_size", traceback="x"
        )
        job = store.finish(assignment, State.FAILED, reason="out of memory", error=error)

        assert error == job.error
        assert job == store.get(job.id)
        assert history(store, job.id)[-1].payload == StateChange(
            from_state=State.RUNNING, to_state=State.FAILED, reason="out of memory", error=error
        )
        assert job.attempts[-1].outcome == "out of memory"

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
    def test_repeating_it_returns_the_job_and_changes_nothing(self, store, end: State) -> None:
        assignment = start(store)
        if end is State.CANCELLED:
            store.cancel(assignment.job_id, "not needed")
        job = store.finish(assignment, end, reason="over")

        assert job == store.finish(assignment, end, reason="over")
        assert 1 == moves(store, job.id).count(end.name)

    def test_a_job_cannot_end_twice(self, store) -> None:
        assignment = start(store)
        job = store.finish(assignment, State.SUCCEEDED, reason="over")

        with pytest.raises(StaleFenceError):
            store.finish(assignment, State.FAILED, reason="no")
        assert job == store.get(job.id)

    @pytest.mark.parametrize(("begun", "end"), [(False, State.SUCCEEDED), (True, State.CANCELLED)])
    def test_an_end_that_the_table_does_not_allow_is_refused(self, store, begun: bool, end: State) -> None:
        assignment = start(store) if begun else store.dispatch(submit(store).id, "n1", 0)
        before = everything(store, assignment.job_id)

        with pytest.raises(FailedPreconditionError):
            store.finish(assignment, end, reason="no")
        assert before == everything(store, assignment.job_id)

    def test_an_end_that_is_none_is_refused(self, store) -> None:
        with pytest.raises(ValueError, match="RECOVERING"):
            store.finish(start(store), State.RECOVERING, reason="no")


class TestCheckpoints:
    def test_they_are_listed_by_step_and_found_by_id(self, world) -> None:
        assignment = start(world.store)
        for name, step in (("b", 20), ("a", 30), ("c", 10)):
            world.store.commit_checkpoint(assignment, checkpoint_of(assignment, name, step))
        listed = world.store.checkpoints(assignment.job_id)

        assert [10, 20, 30] == [checkpoint.step for checkpoint in listed]
        assert listed[0] == world.store.checkpoint("ckpt-c")
        assert listed[0] == replace(checkpoint_of(assignment, "c", 10), create_time=world.clock.now)
        assert [20, 30, 10] == [
            event.payload.step
            for event in history(world.store, assignment.job_id)
            if isinstance(event.payload, Checkpoint)
        ]

    def test_one_at_most_is_the_best(self, store) -> None:
        assignment = start(store)
        for step, best in ((1, True), (2, True), (3, False)):
            store.commit_checkpoint(assignment, checkpoint_of(assignment, f"{step}", step, best=best))

        assert [False, True, False] == [checkpoint.best for checkpoint in store.checkpoints(assignment.job_id)]
        assert not store.checkpoint("ckpt-1").best
        assert store.checkpoint("ckpt-2").best

    def test_registering_one_again_changes_nothing(self, store) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1))
        before = everything(store, assignment.job_id)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1, best=True))

        assert before == everything(store, assignment.job_id)

    def test_a_forgotten_one_is_gone(self, store) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1))
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "b", 2))
        for _ in range(2):
            store.forget_checkpoint(assignment, "ckpt-a")

        assert ["ckpt-b"] == [checkpoint.id for checkpoint in store.checkpoints(assignment.job_id)]
        with pytest.raises(NotFoundError) as caught:
            store.checkpoint("ckpt-a")
        assert caught.value.reason == "CHECKPOINT_NOT_FOUND"

    def test_they_outlive_the_job(self, store) -> None:
        assignment = start(store)
        store.commit_checkpoint(assignment, checkpoint_of(assignment, "a", 1, best=True))
        store.finish(assignment, State.SUCCEEDED, reason="done")

        assert store.checkpoint("ckpt-a").best


class TestEvents:
    def test_a_page_begins_after_what_was_seen(self, store) -> None:
        assignment = start(store)
        store.append(assignment, 1, [Progress(phase="training", step=step) for step in range(5)])
        page = store.events(assignment.job_id, after=3, limit=2)

        assert [4, 5] == [event.sequence for event in page.events]
        assert (page.oldest_sequence, page.last_sequence) == (1, 8)
        assert () == store.events(assignment.job_id, after=8).events

    @pytest.mark.parametrize("after", [-1, 4, 1000])
    def test_a_place_that_is_not_in_the_history_is_out_of_range(self, store, after: int) -> None:
        with pytest.raises(OutOfRangeError):
            store.events(start(store).job_id, after=after)

    def test_trimmed_events_are_out_of_range_and_the_oldest_kept_is_named(self, world) -> None:
        store = world.trimming
        assignment = start(store)
        store.append(assignment, 1, [Progress(phase="training", step=step) for step in range(9)])

        with pytest.raises(OutOfRangeError) as caught:
            store.events(assignment.job_id, after=6)
        assert caught.value.metadata["oldest_sequence"] == "8"
        page = store.events(assignment.job_id, after=7)
        assert (page.oldest_sequence, page.last_sequence) == (8, 12)
        assert [8, 9, 10, 11, 12] == [event.sequence for event in page.events]

    def test_metrics_are_never_trimmed(self, world) -> None:
        assignment = start(world.trimming)
        for batch in range(1, 12):
            world.trimming.append(assignment, batch, [MetricBatch.at(batch, {"loss": 1.0})])

        assert 11 == len(list(world.trimming.metrics(assignment.job_id)))


class TestBell:
    def test_it_rings_for_every_job_with_new_events(self, store) -> None:
        before = submit(store).id
        with store.bell() as bell:
            first, second = submit(store).id, submit(store).id
            rang: frozenset[str] = frozenset()
            while not {first, second} <= rang:
                rung = bell.wait(5)
                assert rung
                rang |= rung

            assert before not in rang
            store.cancel(before, "why")
            assert {before} == bell.wait(5)
            assert frozenset() == bell.wait(0.05)

    def test_it_wakes_who_waits(self, store) -> None:
        with store.bell() as bell:
            writer = threading.Timer(0.05, submit, (store,))
            writer.start()
            assert 1 == len(bell.wait(30))
            writer.join()


class TestList:
    def test_jobs_come_newest_first_page_by_page(self, store) -> None:
        ids = [submit(store).id for _ in range(5)]
        store.create(NewJob(project="other", spec=SPEC, classes=()))
        pages: list[list[str]] = []
        cursor = ""
        while not pages or cursor:
            jobs, cursor = store.list(project="default", cursor=cursor, limit=2)
            pages.append([job.id for job in jobs])

        assert [ids[:2:-1], ids[2:0:-1], ids[:1]] == pages

    def test_jobs_come_oldest_first_where_that_is_asked(self, store) -> None:
        ids = [submit(store).id for _ in range(5)]
        pages: list[list[str]] = []
        cursor = ""
        while not pages or cursor:
            jobs, cursor = store.list(project="default", oldest_first=True, cursor=cursor, limit=2)
            pages.append([job.id for job in jobs])

        assert [ids[:2], ids[2:4], ids[4:]] == pages

    @pytest.mark.parametrize("states", [frozenset(), frozenset({State.QUEUED})])
    def test_only_the_jobs_that_are_wanted_are_listed_as_they_stand(self, store, states: frozenset[State]) -> None:
        ids = [submit(store).id for _ in range(4)]
        store.cancel(ids[1], "why")
        seen: dict[str, int] = {}

        def wanted(job: job_pb2.Job) -> bool:
            seen[job.id] = job.state
            return job.id != ids[2]

        jobs, cursor = store.list(project="default", states=states, wanted=wanted)
        assert ([ids[3], ids[0]] if states else [ids[3], ids[1], ids[0]], "") == ([job.id for job in jobs], cursor)
        assert {ids[0]: 1, ids[2]: 1, ids[3]: 1} | ({} if states else {ids[1]: State.CANCELLED.value}) == seen

    def test_a_full_last_page_has_no_cursor(self, store) -> None:
        submit(store)
        submit(store)

        jobs, cursor = store.list(project="default", limit=2)
        assert (2, "") == (len(jobs), cursor)

    def test_only_the_states_asked_for_are_listed(self, store) -> None:
        running, cancelled = start(store).job_id, store.cancel(submit(store).id, "why").id
        queued = [submit(store).id for _ in range(3)]

        jobs, cursor = store.list(project="default", states=frozenset({State.RUNNING, State.CANCELLED}), limit=1)
        assert [cancelled] == [job.id for job in jobs]
        jobs, cursor = store.list(
            project="default", states=frozenset({State.RUNNING, State.CANCELLED}), limit=1, cursor=cursor
        )
        assert ([running], "") == ([job.id for job in jobs], cursor)
        jobs, _ = store.list(project="default", states=frozenset({State.QUEUED}))
        assert [(queued[2], 3), (queued[1], 2), (queued[0], 1)] == [(job.id, job.queue.position) for job in jobs]

    def test_a_project_without_jobs_is_empty(self, store) -> None:
        assert ([], "") == store.list(project="none")

    @pytest.mark.parametrize("cursor", ["x", "-1", "1 ", "٣", "9" * 40])
    def test_what_is_no_cursor_is_out_of_range(self, store, cursor: str) -> None:
        with pytest.raises(OutOfRangeError):
            store.list(project="default", cursor=cursor)


class TestLeases:
    @pytest.mark.parametrize("begun", [False, True])
    def test_a_silent_attempt_loses_its_lease_and_a_renewal_brings_it_back(self, world, begun: bool) -> None:
        store = world.store
        assignment = start(store) if begun else store.dispatch(submit(store).id, "n1", 0)

        def alive() -> bool:
            return bool(store.holding()[0][2])

        assert alive()
        world.wait_until(lambda: not alive())
        store.renew(assignment)
        assert alive()

    def test_leadership_is_one_owners_until_it_runs_out(self, world) -> None:
        store = world.store

        assert store.lead("a", 0.4)
        assert store.lead("a", 0.4)
        assert not store.lead("b", 0.4)
        world.wait_until(lambda: bool(store.lead("b", 30)))
        assert not store.lead("a", 0.4)

    def test_leadership_is_given_up_by_its_owner_only(self, store) -> None:
        store.lead("a", 30)
        store.resign("b")
        assert not store.lead("b", 30)
        store.resign("a")
        assert store.lead("b", 30)
