"""The figures that are not added up as things happen, but looked at: the ledger as a whole, and how this server is."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from podium.jobs.job import Cause, Node, NodeState, Slot
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store import Census
from podium.server.observing._lookout import Lookout, ServerState

#: For jobs of pools that have no machine: whoever submits a job makes such names up.
_NO_MACHINES = "other"


class Figures:
    """Tells them to Prometheus, from memory.

    Args:
        lookout: looks at the ledger.
        leads: whether this server leads.
    """

    def __init__(self, lookout: Lookout, leads: Callable[[], bool]) -> None:
        self._lookout = lookout
        self._leads = leads

    def collect(self) -> Iterable[Metric]:
        """All of them. Those of the ledger are left out while nobody knows them."""
        yield _gauge("podium_build_info", "Always 1; the version that runs.", ("version",), {(version("podium"),): 1})
        now = self._lookout.state
        states = {(state.value,): float(state is now) for state in ServerState}
        yield _gauge("podium_server_state", "1 at how this server is.", ("state",), states)
        yield _gauge("podium_leader", "Whether this server leads.", (), {(): self._leads()})
        yield _gauge("podium_ledger_up", "Whether the ledger answers.", (), {(): self._lookout.up})
        if self._lookout.round_trip is not None:
            took = {(): self._lookout.round_trip}
            yield _gauge("podium_ledger_round_trip_seconds", "What its last answer took.", (), took)
        if (census := self._lookout.census) is not None:
            yield from _of_the_ledger(census)


def _of_the_ledger(census: Census) -> Iterable[Metric]:
    pools = {node.pool for node in census.nodes}
    depth = {(pool, priority.name): 0 for pool in (*pools, _NO_MACHINES) for priority in Priority}
    for (pool, priority), count in census.queued.items():
        depth[pool if pool in pools else _NO_MACHINES, priority.name] += count
    yield _gauge("podium_queue_depth", "Jobs that wait.", ("pool", "priority"), depth)

    slots = Counter({(pool, state): 0 for pool in pools for state in ("used", "idle", "unavailable")})
    slots.update((node.pool, _slot_state(node, slot)) for node in census.nodes for slot in node.slots)
    yield _gauge("podium_slots", "Slots of machines.", ("pool", "state"), slots)

    machines = Counter({(pool, state.name): 0 for pool in pools for state in NodeState})
    machines.update((node.pool, node.state.name) for node in census.nodes)
    yield _gauge("podium_machines", "Machines heard from within a day.", ("pool", "state"), machines)

    attempts = {_name(cause): census.attempts_ended.get(cause, 0) for cause in (None, *Cause)}
    yield _counter("podium_attempts_ended", "Attempts that ever ended.", "cause", attempts)
    jobs = {state.name: census.jobs_ended.get(state, 0) for state in State if state.terminal}
    yield _counter("podium_jobs_ended", "Jobs that ever ended.", "state", jobs)
    backlog = {(): census.unarchived}
    yield _gauge("podium_archive_backlog_jobs", "Ended jobs whose history is still in Redis.", (), backlog)


def _slot_state(node: Node, slot: Slot) -> str:
    if slot.job_id:
        return "used"
    return "idle" if node.state is NodeState.READY and not slot.trouble else "unavailable"


def _name(cause: Cause | None) -> str:
    return cause.name if cause else "NONE"


def _gauge(name: str, meaning: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """One gauge; `values` by the words of its labels."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for words, value in sorted(values.items()):
        family.add_metric(words, float(value))
    return family


def _counter(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=(label,))
    for word, value in values.items():
        family.add_metric((word,), value)
    return family
