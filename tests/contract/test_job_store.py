"""How a job moves through every ledger, whichever it is: podium.jobs.store._base, sentence by sentence.

Above 400 lines, as it follows a job through that Protocol from its first move to its last; what only reads stands in
test_job_store_reading.py.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from podium.jobs import wire
from podium.jobs.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    StaleFenceError,
)
from podium.jobs.events import JobEvent, MetricBatch, StateChange
from podium.jobs.job import Cause, Job, JobError
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

    def test_who_only_passes_a_new_job_on_gets_it_as_it_is_read(self, store) -> None:
        known = {"request_id": "r1", "created_by": "ann", "trace_parent": "t"}
        new = NewJob(project="default", spec=wire.to_proto(SPEC), classes=("cat",), **known)
        made = store.submit(new)
        job = wire.from_bytes(Job, made.message)
        assert (True, State.QUEUED, made.id) == (made.new, made.state, job.id)
        assert replace(store.get(made.id), queue=None) == job
        again = store.submit(new)
        assert (False, State.QUEUED, job) == (again.new, again.state, wire.from_bytes(Job, again.message))

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
