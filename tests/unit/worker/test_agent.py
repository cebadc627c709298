"""How a machine's agent leaves."""

import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from podium.jobs.errors import UnavailableError
from podium.jobs.job import Job, Node, NodeState, Slot
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.store import Assignment, Leases, MemoryStore, NewJob
from podium.worker.agent import Agent

_SLOTS = 8
_SPEC = JobSpec(backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven())


class Away(MemoryStore):
    """A ledger that cannot be reached."""

    def jobs_on(self, node_id):
        raise UnavailableError("the ledger is away")

    def heartbeat(self, node):
        raise UnavailableError("the ledger is away")


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_an_agent_of_many_slots_waits_no_longer_for_a_ledger_that_is_away(monkeypatch):
    monkeypatch.setattr("podium.worker.agent._LAST_WORDS", 2.0)
    node = Node(id="n", pool="p", state=NodeState.READY, slots=tuple(Slot(index=index) for index in range(_SLOTS)))
    monkeypatch.setattr("podium.worker.memory_check.MemoryCheck.start", lambda self: None)  # it would outlive the test
    agent = Agent(Away(), node, leases=Leases(), mark="podium:the-tests-own:n")
    agent.request_stop()
    began = time.monotonic()
    agent.run()

    assert time.monotonic() - began < _SLOTS


class Curious(MemoryStore):
    """A ledger that notes which jobs it was asked for whole."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def holding(self, job_ids: Sequence[str] | None = None) -> Sequence[tuple[Job, Assignment, bool]]:
        found = super().holding(job_ids)
        self.asked += [job.id for job, _, _ in found]
        return found


def test_an_agent_that_leaves_gives_its_own_jobs_back_and_reads_no_others(monkeypatch):
    monkeypatch.setattr("podium.worker.memory_check.MemoryCheck.start", lambda self: None)  # it would outlive the test
    store, node = Curious(), Node(id="n", pool="p", state=NodeState.READY, slots=())
    new = NewJob(project="default", spec=_SPEC, classes=("a", "b"))
    own, other = (store.dispatch(store.create(new)[0].id, machine, 0) for machine in ("n", "m"))
    agent = Agent(store, node, leases=Leases(), mark="podium:the-tests-own:n")
    agent.request_stop()
    agent.run()

    assert {own.job_id} == set(store.asked)
    assert [other] == [assignment for _, assignment, _ in store.holding()]
