"""What tests of ledgers do again and again, and what they look at afterwards."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from podium.jobs import wire
from podium.jobs.errors import PodiumError
from podium.jobs.events import JobEvent, LogBatch, StateChange
from podium.jobs.job import Checkpoint, Job, Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.store import Assignment, JobStore, NewJob

SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


def submit(store: JobStore, **changes: object) -> Job:
    """A new job, its spec changed."""
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]  # mixed values
    return store.create(NewJob(project="default", spec=spec, classes=("cat", "dog")))[0]


def start(store: JobStore, *, node: str = "n1", slot: int = 0) -> Assignment:
    """A new job that runs."""
    assignment = store.dispatch(submit(store).id, node, slot)
    store.begin(assignment)
    return assignment


def history(store: JobStore, job_id: str) -> list[JobEvent]:
    """All events of a job, with their sequence numbers."""
    page = store.events(job_id, after=0)
    return [replace(wire.from_bytes(JobEvent, event.data), sequence=event.sequence) for event in page.events]


def moves(store: JobStore, job_id: str) -> list[str]:
    """The states that a job went through."""
    payloads = [event.payload for event in history(store, job_id)]
    return [payload.to_state.name for payload in payloads if isinstance(payload, StateChange)]


def checkpoint_of(assignment: Assignment, name: str, step: int, *, best: bool = False) -> Checkpoint:
    return Checkpoint(
        id=f"ckpt-{name}",
        job_id=assignment.job_id,
        attempt=assignment.attempt,
        step=step,
        metrics={"loss": 1.5},
        best=best,
    )


def race(calls: Sequence[Callable[[], object]]) -> list[object]:
    """What calls return or raise that begin at the same moment."""
    gate = threading.Barrier(len(calls))
    results: list[object] = []

    def run(call: Callable[[], object]) -> None:
        gate.wait()
        try:
            results.append(call())
        except PodiumError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def everything(store: JobStore, job_id: str) -> object:
    """All that readers can see of a job."""
    holding = [(job.id, assignment) for job, assignment, _ in store.holding()]
    return store.get(job_id), history(store, job_id), list(store.metrics(job_id)), store.checkpoints(job_id), holding


def lines_of(
    store: JobStore, job_id: str, offset: int | None = None, *, limit: int = 200
) -> list[tuple[int, int, str]]:
    """The log from a line on, page by page: of each line its offset, its attempt and its text."""
    found, at = [], offset
    while (page := store.log(job_id, offset=at, limit=limit)).rows:
        for row in page.rows:
            event = wire.from_bytes(JobEvent, row.data)
            assert isinstance(event.payload, LogBatch)
            for place, line in enumerate(event.payload.lines, row.offset):
                if at is None or place >= at:
                    found.append((place, event.attempt, line.text))
        at = found[-1][0] + 1
    return found


def machine(store: JobStore, name: str = "n1", slots: int = 3) -> Node:
    """A machine that is heard from."""
    node = Node(id=name, pool="default", state=NodeState.READY, slots=tuple(map(_slot, range(slots))))
    store.heartbeat(node)
    return node


def slots_of(store: JobStore, node: str = "n1") -> list[str]:
    """The jobs in a machine's slots, as `nodes` shows them."""
    return [slot.job_id for listed in store.nodes() if listed.id == node for slot in listed.slots]


def _slot(index: int) -> Slot:
    return Slot(index=index)
