"""How a machine's agent leaves."""

import signal
import time
from collections.abc import Iterator

import pytest

from podium.jobs.errors import UnavailableError
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.store import Leases, MemoryStore
from podium.worker.agent import Agent

_SLOTS = 8


class Away(MemoryStore):
    """A ledger that cannot be reached."""

    def holding(self, job_ids=None):
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
