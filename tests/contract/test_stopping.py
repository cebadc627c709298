"""Pausing, resuming, updating, preempting, cancelling by force: what is asked of a job, in every ledger."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from podium.jobs.errors import FailedPreconditionError, NotFoundError, StaleFenceError
from podium.jobs.events import LogBatch
from podium.jobs.job import Cause
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store import Assignment, JobStore, Wish
from tests.contract.plays import everything, history, machine, moves, slots_of, start, submit


def logged(store: JobStore, job_id: str) -> list[str]:
    """The lines of a job's log."""
    batches = [event.payload for event in history(store, job_id) if isinstance(event.payload, LogBatch)]
    return [line.text for batch in batches for line in batch.lines]


def paused(store: JobStore) -> Assignment:
    """An attempt that has paused."""
    assignment = start(store)
    store.pause(assignment.job_id, "lunch")
    store.recover(assignment, "saved", cause=Cause.PREEMPTED)
    return assignment


ASKING: dict[str, Callable[[JobStore, str], object]] = {
    "pause": lambda store, job_id: store.pause(job_id, "why"),
    "resume": lambda store, job_id: store.resume(job_id),
    "update": lambda store, job_id: store.update(job_id, priority=Priority.HIGH, labels={"a": "b"}),
    "cancel": lambda store, job_id: store.cancel(job_id, "why"),
    "cancel by force": lambda store, job_id: store.cancel(job_id, "why", force=True),
}


@pytest.mark.parametrize("what", ASKING)
def test_an_unknown_job_is_not_found(store, what: str) -> None:
    with pytest.raises(NotFoundError):
        ASKING[what](store, "job-none")


@pytest.mark.parametrize("what", ["pause", "resume", "update"])
@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_what_has_ended_cannot_be_asked_for_anything(store, what: str, end: State) -> None:
    assignment = start(store)
    if end is State.CANCELLED:
        store.cancel(assignment.job_id, "why")
    store.finish(assignment, end, reason="over")
    before = everything(store, assignment.job_id)

    with pytest.raises(FailedPreconditionError, match=end.name):
        ASKING[what](store, assignment.job_id)
    assert before == everything(store, assignment.job_id)


@pytest.mark.parametrize("what", ["pause", "cancel", "cancel by force", "resume"])
def test_asking_again_changes_nothing(store, what: str) -> None:
    for kind in ("waits", "runs", "is paused"):
        job_id = submit(store).id if kind == "waits" else {"runs": start, "is paused": paused}[kind](store).job_id
        once = ASKING[what](store, job_id)
        before = everything(store, job_id)
        assert once == ASKING[what](store, job_id)
        assert before == everything(store, job_id)
        store.cancel(job_id, "the next one needs the slot", force=True)


class TestPause:
    def test_a_queued_job_is_paused_at_once_and_resumes_in_its_old_place(self, store) -> None:
        first, second = submit(store).id, submit(store).id
        assert store.pause(first, "lunch").state is State.PAUSED
        assert [second] == list(store.pending("default"))
        job = store.resume(first)

        assert (State.QUEUED, 1) == (job.state, job.queue.position)
        assert [first, second] == list(store.pending("default"))
        assert ["QUEUED", "PAUSED", "QUEUED"] == moves(store, first)

    @pytest.mark.parametrize("begun", [False, True])
    def test_an_attempt_is_told_and_keeps_its_slot_until_it_has_saved(self, world, begun: bool) -> None:
        store = world.store
        assignment = start(store) if begun else store.dispatch(submit(store).id, "n1", 0)
        job = store.pause(assignment.job_id, "lunch")

        assert (State.PAUSING, "lunch", world.clock.now) == (job.state, job.state_reason, job.stop_time)
        assert store.renew(assignment) is Wish.PAUSE
        assert [assignment] == [held for _, held, _ in store.holding()]
        job = store.recover(assignment, "saved at step 40", cause=Cause.PREEMPTED)
        assert (State.PAUSED, None, "saved at step 40", None) == (
            job.state,
            job.stop_time,
            job.attempts[-1].outcome,
            job.attempts[-1].cause,
        )
        assert ([], []) == (list(store.holding()), list(store.pending("default")))

    def test_an_attempt_that_was_paused_before_it_began_learns_it(self, store) -> None:
        assignment = store.dispatch(submit(store).id, "n1", 0)
        store.pause(assignment.job_id, "lunch")

        assert store.begin(assignment).state is State.PAUSING
        assert store.renew(assignment) is Wish.PAUSE

    def test_it_cannot_resume_before_it_has_saved(self, store) -> None:
        job_id = start(store).job_id
        store.pause(job_id, "lunch")
        with pytest.raises(FailedPreconditionError, match="still saving"):
            store.resume(job_id)

    @pytest.mark.parametrize("cause", [Cause.NODE_LOST, Cause.INTERNAL, Cause.USER_CONFIG])
    def test_one_that_dies_while_it_saves_is_paused_all_the_same_and_its_cause_is_kept(
        self, store, cause: Cause
    ) -> None:
        assignment = start(store)
        store.pause(assignment.job_id, "lunch")
        job = store.recover(assignment, "died", cause=cause)

        assert (State.PAUSED, cause) == (job.state, job.attempts[-1].cause)

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
    def test_an_attempt_may_reach_its_end_before_it_hears_of_it(self, store, end: State) -> None:
        assignment = start(store)
        store.pause(assignment.job_id, "lunch")

        assert store.finish(assignment, end, reason="done").state is end

    def test_a_job_that_is_being_cancelled_can_be_neither_paused_nor_resumed(self, store) -> None:
        job_id = start(store).job_id
        store.cancel(job_id, "why")
        for ask in ("pause", "resume"):
            with pytest.raises(FailedPreconditionError, match="CANCELLING"):
                ASKING[ask](store, job_id)

    def test_the_next_attempt_goes_on(self, store) -> None:
        job_id = paused(store).job_id
        store.resume(job_id)
        again = store.dispatch(job_id, "n1", 0)

        assert (2, State.RUNNING) == (again.attempt, store.begin(again).state)
        assert store.renew(again) is Wish.CONTINUE

    def test_a_paused_job_that_is_cancelled_is_cancelled_at_once(self, store) -> None:
        assert store.cancel(paused(store).job_id, "why").state is State.CANCELLED

    def test_a_pause_that_becomes_a_cancel_gets_no_more_time(self, world) -> None:
        assignment = start(world.store)
        asked = world.clock.now
        world.store.pause(assignment.job_id, "lunch")
        world.clock.advance(seconds=100)
        job = world.store.cancel(assignment.job_id, "never mind")

        assert (State.CANCELLING, asked) == (job.state, job.stop_time)
        assert world.store.renew(assignment) is Wish.CANCEL
        assert world.store.recover(assignment, "saved", cause=Cause.PREEMPTED).state is State.CANCELLED


class TestUpdate:
    def test_another_priority_is_another_place_in_line(self, store) -> None:
        first, second = submit(store).id, submit(store).id
        before = dict(store.line("default"))
        job = store.update(second, priority=Priority.HIGH, labels={})

        assert (Priority.HIGH, 1) == (job.spec.priority, job.queue.position)
        assert [second, first] == list(store.pending("default"))
        after = dict(store.line("default"))
        assert before[first] == after[first]
        assert before[second] != after[second]
        assert [second, first] == [job_id for job_id, _ in store.line("default")]

    def test_labels_are_added_changed_and_removed_and_the_rest_of_the_spec_stays(self, store) -> None:
        job = submit(store, labels={"team": "vision", "old": "x", "kept": "y"}, seed=7)
        changed = store.update(job.id, priority=None, labels={"team": "nlp", "old": "", "new": "z"})

        assert {"team": "nlp", "kept": "y", "new": "z"} == changed.spec.labels
        assert (Priority.NORMAL, 7) == (changed.spec.priority, changed.spec.seed)
        assert changed == store.get(job.id)
        assert [f"updated: priority NORMAL, labels {changed.spec.labels}"] == logged(store, job.id)

    def test_what_is_so_already_is_no_event(self, store) -> None:
        job = submit(store, labels={"a": "b"})
        before = everything(store, job.id)
        store.update(job.id, priority=Priority.NORMAL, labels={"a": "b", "none": ""})

        assert before == everything(store, job.id)

    @pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.PAUSED, State.CANCELLING])
    def test_only_a_queued_job_can_be_changed(self, store, state: State) -> None:
        job_id = submit(store).id
        if state is State.PAUSED:
            store.pause(job_id, "lunch")
        else:
            assignment = store.dispatch(job_id, "n1", 0)
            if state is not State.STARTING:
                store.begin(assignment)
            if state is State.CANCELLING:
                store.cancel(job_id, "why")
        with pytest.raises(FailedPreconditionError, match=state.name):
            store.update(job_id, priority=Priority.HIGH, labels={})

    def test_the_change_outlives_attempts(self, store) -> None:
        job_id = submit(store).id
        store.update(job_id, priority=Priority.URGENT, labels={"a": "b"})
        store.recover(store.dispatch(job_id, "n1", 0), "lost")
        later = submit(store, priority=Priority.HIGH).id

        assert [job_id, later] == list(store.pending("default"))
        assert ({"a": "b"}, Priority.URGENT) == (store.get(job_id).spec.labels, store.get(job_id).spec.priority)


class TestForce:
    @pytest.mark.parametrize("asked", ["", "pause", "cancel"])
    def test_it_ends_a_job_at_once_and_fences_its_attempt_out(self, store, asked: str) -> None:
        machine(store)
        assignment = start(store)
        if asked:
            ASKING[asked](store, assignment.job_id)
        job = store.cancel(assignment.job_id, "now", force=True)

        assert (State.CANCELLED, "cancelled by force") == (job.state, job.attempts[-1].outcome)
        assert moves(store, job.id)[-2:] == ["CANCELLING", "CANCELLED"]
        assert ["", "", ""] == slots_of(store)
        assert [] == list(store.holding())
        for write in (store.renew, lambda mine: store.recover(mine, "late")):
            with pytest.raises(StaleFenceError):
                write(assignment)

    def test_what_waits_is_cancelled_as_always(self, store) -> None:
        assert store.cancel(submit(store).id, "now", force=True).state is State.CANCELLED

    @pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED])
    def test_it_changes_no_end(self, store, end: State) -> None:
        job = store.finish(start(store), end, reason="over")
        with pytest.raises(FailedPreconditionError):
            store.cancel(job.id, "now", force=True)
        assert job == store.get(job.id)


class TestPreempt:
    @pytest.mark.parametrize("begun", [False, True])
    def test_an_attempt_is_told_and_gives_the_job_back_in_its_old_place(self, world, begun: bool) -> None:
        store = world.store
        assignment = start(store) if begun else store.dispatch(submit(store).id, "n1", 0)
        waiting = submit(store).id
        job = store.preempt(assignment, "job-x is URGENT")

        assert job.stop_time == world.clock.now
        assert job.state is (State.RUNNING if begun else State.STARTING)
        assert store.renew(assignment) is Wish.PREEMPT
        assert ["preempted: job-x is URGENT"] == logged(store, job.id)
        job = store.recover(assignment, "saved at step 40", cause=Cause.PREEMPTED)
        assert (State.QUEUED, None, None, Cause.PREEMPTED) == (
            job.state,
            job.stop_time,
            job.retry_time,
            job.attempts[-1].cause,
        )
        assert [job.id, waiting] == list(store.pending("default"))

    def test_one_that_was_preempted_before_it_began_learns_it(self, store) -> None:
        assignment = store.dispatch(submit(store).id, "n1", 0)
        store.preempt(assignment, "why")

        assert store.begin(assignment).state is State.RUNNING
        assert store.renew(assignment) is Wish.PREEMPT

    def test_repeating_it_changes_nothing(self, store) -> None:
        assignment = start(store)
        once = store.preempt(assignment, "why")
        assert once == store.preempt(assignment, "another why")

    @pytest.mark.parametrize(("ask", "wish"), [("cancel", Wish.CANCEL), ("pause", Wish.PAUSE)])
    def test_what_its_user_asks_for_comes_first(self, store, ask: str, wish: Wish) -> None:
        asked_before, asked_after = start(store), start(store, slot=1)
        ASKING[ask](store, asked_before.job_id)
        store.preempt(asked_before, "why")
        store.preempt(asked_after, "why")
        ASKING[ask](store, asked_after.job_id)

        assert [wish, wish] == [store.renew(asked_before), store.renew(asked_after)]
        assert [] == logged(store, asked_before.job_id)

    def test_an_attempt_that_lost_its_job_cannot_be_preempted(self, store) -> None:
        assignment = start(store)
        store.recover(assignment, "lost")
        with pytest.raises(StaleFenceError):
            store.preempt(assignment, "why")

    def test_a_preempted_attempt_that_is_done_first_has_succeeded(self, store) -> None:
        assignment = start(store)
        store.preempt(assignment, "why")

        assert store.finish(assignment, State.SUCCEEDED, reason="done").state is State.SUCCEEDED

    def test_however_often_it_happens_the_job_goes_on(self, world) -> None:
        job_id = submit(world.store).id
        for _ in range(30):
            assignment = world.store.dispatch(job_id, "n1", 0)
            world.store.preempt(assignment, "why")
            job = world.store.recover(assignment, "gave way", cause=Cause.PREEMPTED)
            assert (State.QUEUED, None) == (job.state, job.retry_time)
            world.clock.advance(seconds=1)

        assert 30 == job.attempt
        assert world.clock.now - job.create_time == timedelta(seconds=30)
