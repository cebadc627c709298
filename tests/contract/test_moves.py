"""The table of moves is what happens: each of them is made by somebody, in every ledger."""

from podium.jobs.events import StateChange
from podium.jobs.job import Cause
from podium.jobs.states import MOVES, State
from podium.jobs.store import Assignment, JobStore
from tests.contract.plays import history, start, submit


def test_every_move_of_the_table_is_made_by_somebody(store: JobStore) -> None:
    machines = map("n{}".format, range(100))

    def starting() -> Assignment:
        return store.dispatch(submit(store).id, next(machines), 0)

    def running() -> Assignment:
        return start(store, node=next(machines))

    def pausing() -> Assignment:
        assignment = running()
        store.pause(assignment.job_id, "asked")
        return assignment

    def cancelling() -> Assignment:
        assignment = running()
        store.cancel(assignment.job_id, "asked")
        return assignment

    for begun in (starting, running):
        store.pause(begun().job_id, "asked")
        store.cancel(begun().job_id, "asked")
        store.recover(begun(), "lost", cause=Cause.NODE_LOST)
        store.finish(begun(), State.FAILED, reason="wrong")
    for held in (running, pausing, cancelling):
        store.finish(held(), State.SUCCEEDED, reason="done")
    for stopping in (pausing, cancelling):
        store.finish(stopping(), State.FAILED, reason="wrong")
        store.recover(stopping(), "saved", cause=Cause.PREEMPTED)
    store.recover(running(), "wrong", cause=Cause.DATA)
    store.cancel(pausing().job_id, "asked")
    store.cancel(submit(store).id, "asked")
    for after in (store.resume, lambda job_id: store.cancel(job_id, "asked")):
        job = submit(store)
        store.pause(job.id, "asked")
        after(job.id)

    events = (event for job in store.list(project="default", limit=100)[0] for event in history(store, job.id))
    made = {(one.from_state, one.to_state) for event in events if isinstance(one := event.payload, StateChange)}
    assert {(state, to) for state, tos in MOVES.items() for to in tos} == made - {(None, State.QUEUED)}
