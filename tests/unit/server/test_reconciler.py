"""The reconciler on a ledger in memory, with a clock that tests turn; they play attempts and machines."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from podium.jobs.job import Cause, Job, Member, Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import HOLDING_A_SLOT, State
from podium.jobs.store import Assignment, JobStore, Leases, MemoryStore, NewJob
from podium.server.dispatcher import Reconciler, Sharing, Snapshots

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())
LEASES = Leases(attempt=30.0, starting=60.0, node=15.0, grace=120.0)


class Ward:
    """Machines a and b, one job that runs, and the reconciler that looks after it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, tzinfo=UTC)
        self.store: JobStore = MemoryStore(clock=lambda: self.now, leases=LEASES)
        self._snapshots = Snapshots(self.store, LEASES, Sharing(), lambda: self.now)
        self.restart_the_server()
        self.now += timedelta(seconds=LEASES.attempt)
        self.alive = {"a", "b"}

    def restart_the_server(self) -> None:
        self._reconciler = Reconciler(
            self.store, self._snapshots, LEASES, lambda: self.now, lambda: self.now.timestamp()
        )

    def start(self, *, seconds: int = 0, elsewhere: bool = False, begun: bool = True) -> Assignment:
        self._beat()
        spec = replace(SPEC, max_duration_seconds=seconds)
        job, _ = self.store.create(NewJob(project="default", spec=spec, classes=("a", "b")))
        others = [Member(node="b", slots=(0,))] if elsewhere else []
        found = self.store.dispatch(job.id, "a", 0, elsewhere=others)
        if begun:
            self.store.begin(found)
        return found

    def pass_time(self, seconds: float, *, renewing: Assignment | None = None) -> Job:
        """Lets time pass, a second at a time, until the job is ended or the time is over."""
        for _ in range(int(seconds)):
            self.now += timedelta(seconds=1)
            self._beat()
            if renewing is not None and self.job.state in HOLDING_A_SLOT:
                self.store.renew(renewing)
            self._snapshots.look()
            self._reconciler.reconcile()
        return self.job

    def lose_the_ledger(self, seconds: float) -> None:
        """Nobody reaches it for so long; then the server is the first who does."""
        self._reconciler.in_touch()
        self.now += timedelta(seconds=seconds)
        self._reconciler.in_touch()
        self._snapshots.look()
        self._reconciler.reconcile()

    @property
    def job(self) -> Job:
        return self.store.list(project="default")[0][0]

    def _beat(self) -> None:
        for name in self.alive:
            self.store.heartbeat(
                Node(id=name, pool="default", state=NodeState.READY, slots=(Slot(index=0),), address=name)
            )


@pytest.fixture
def ward() -> Ward:
    return Ward()


def last(job: Job) -> tuple[State, str, Cause | None]:
    return job.state, job.attempts[-1].outcome, job.attempts[-1].cause


def test_an_attempt_that_renews_is_left_alone(ward: Ward) -> None:
    assignment = ward.start()

    assert State.RUNNING is ward.pass_time(400, renewing=assignment).state


def test_one_that_never_began_goes_back_and_it_is_not_the_job_that_is_at_fault(ward: Ward) -> None:
    ward.start(begun=False)

    assert State.STARTING is ward.pass_time(55).state
    assert (State.QUEUED, "the attempt never began", Cause.NODE_LOST) == last(ward.pass_time(10))


def test_one_of_a_lost_machine_goes_back_as_soon_as_its_lease_is_over(ward: Ward) -> None:
    ward.start()
    ward.alive.remove("a")

    assert State.RUNNING is ward.pass_time(28).state
    assert (State.QUEUED, "the machine a was lost", Cause.NODE_LOST) == last(ward.pass_time(5))


def test_one_that_falls_silent_on_a_living_machine_is_given_time_and_then_it_is_the_process(ward: Ward) -> None:
    ward.start()

    assert State.RUNNING is ward.pass_time(80).state
    assert (State.QUEUED, "the attempt fell silent on a", Cause.INTERNAL) == last(ward.pass_time(30))


def test_one_of_two_machines_ends_when_either_is_lost_though_the_first_still_renews(ward: Ward) -> None:
    assignment = ward.start(elsewhere=True)
    ward.alive.remove("b")

    assert State.RUNNING is ward.pass_time(13, renewing=assignment).state
    assert (State.QUEUED, "the machine b was lost", Cause.NODE_LOST) == last(ward.pass_time(5, renewing=assignment))


def test_one_that_does_not_stop_for_a_preemption_is_ended_and_its_job_goes_back(ward: Ward) -> None:
    assignment = ward.start()
    ward.store.preempt(assignment, "job-x needs its slots")

    assert State.RUNNING is ward.pass_time(149, renewing=assignment).state
    assert (State.QUEUED, "preempted, but still there 151 s later, and was ended", Cause.PREEMPTED) == last(
        ward.pass_time(5, renewing=assignment)
    )


def test_one_that_does_not_stop_for_a_cancel_or_a_pause_is_ended_as_it_was_asked(ward: Ward) -> None:
    assignment = ward.start()
    ward.store.pause(assignment.job_id, "later")
    paused = ward.pass_time(155, renewing=assignment)

    assert (State.PAUSED, "paused, but still there 151 s later, and was ended", None) == last(paused)

    ward.store.resume(assignment.job_id)
    again = ward.store.dispatch(assignment.job_id, "a", 0)
    ward.store.begin(again)
    ward.store.cancel(assignment.job_id, "not needed")

    assert State.CANCELLED is ward.pass_time(155, renewing=again).state


def test_one_that_runs_on_beyond_its_deadline_is_ended_and_the_job_fails_for_it(ward: Ward) -> None:
    assignment = ward.start(seconds=100)

    # To begin, to train, to save, and a lease for its supervisor to do it.
    assert State.RUNNING is ward.pass_time(60 + 100 + 120 + 29, renewing=assignment).state
    failed = ward.pass_time(5, renewing=assignment)
    assert failed.error is not None
    assert (State.FAILED, Cause.DEADLINE) == (failed.state, failed.error.cause)
    assert "max_duration_seconds = 100" in failed.error.message


def test_after_an_outage_of_the_ledger_who_lives_has_time_to_say_so(ward: Ward) -> None:
    assignment = ward.start()
    ward.lose_the_ledger(60)

    assert State.RUNNING is ward.job.state
    assert State.RUNNING is ward.pass_time(120, renewing=assignment).state


def test_after_an_outage_of_the_ledger_who_is_dead_is_lost_a_lease_later(ward: Ward) -> None:
    ward.start()
    ward.alive.remove("a")
    ward.lose_the_ledger(60)

    assert State.RUNNING is ward.pass_time(29).state
    assert (State.QUEUED, "the machine a was lost", Cause.NODE_LOST) == last(ward.pass_time(5))


@pytest.mark.parametrize("asked", ["to pause", "by its limit"])
def test_what_was_done_in_time_while_the_ledger_was_away_may_still_be_told(ward: Ward, asked: str) -> None:
    assignment = ward.start(seconds=100 if asked == "by its limit" else 0)
    if asked == "to pause":
        ward.store.pause(assignment.job_id, "later")
    ward.lose_the_ledger(600)

    assert State.SUCCEEDED is ward.store.finish(assignment, State.SUCCEEDED, reason="trained to the end").state


def test_a_server_that_comes_up_with_the_ledger_lets_who_lives_say_so_first(ward: Ward) -> None:
    assignment = ward.start()
    ward.now += timedelta(seconds=60)
    ward.restart_the_server()
    ward.lose_the_ledger(1)

    assert State.RUNNING is ward.job.state
    assert State.RUNNING is ward.pass_time(120, renewing=assignment).state


def test_a_ledger_that_answers_all_the_time_delays_nothing(ward: Ward) -> None:
    ward.start()
    ward.alive.remove("a")
    for _ in range(6):
        ward.lose_the_ledger(6)

    assert (State.QUEUED, "the machine a was lost", Cause.NODE_LOST) == last(ward.job)
