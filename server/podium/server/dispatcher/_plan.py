"""Which waiting job gets which slots. Pure, so that what it promises can be tested without a ledger."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from podium.jobs.job import Node


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Free slots of one machine for one job."""

    job_id: str
    node: str
    slots: tuple[int, ...]


class _Machine:
    """A machine while a plan is made."""

    def __init__(self, node: Node) -> None:
        self.id = node.id
        self.size = len(node.slots)
        self.free = [slot.index for slot in node.slots if not slot.job_id]

    def take(self, count: int) -> tuple[int, ...]:
        taken, self.free = self.free[:count], self.free[count:]
        return tuple(taken)


def plan(waiting: Iterable[tuple[str, int]], nodes: Sequence[Node]) -> Iterator[Placement]:
    """Gives free slots to waiting jobs, strictly in their order, each job's all on one machine.

    Where no machine has room for a job now but some are large enough, one of these is kept for it: the one with the
    most free slots, which nobody behind that job gets. They can only become more from look to look, so the job starts
    once enough of that machine's jobs have ended, however many small ones come after it. The other machines serve the
    rest of the line. A job that is larger than every machine is passed over and holds nobody up.

    A job of one slot goes to the machine with the fewest busy ones, since jobs on one machine share its processor,
    memory and disk. A job of several goes where it leaves the fewest free, so that room for the next one stays.

    Args:
        waiting: jobs in line, each with the slots that it needs, at least 1; read only as far as there are free slots.
        nodes: the machines of the pool that take jobs.
    """
    machines = [_Machine(node) for node in nodes]
    if not _any_free(machines):
        return
    for job_id, wanted in waiting:
        roomy = [machine for machine in machines if len(machine.free) >= wanted]
        if roomy:
            chosen = min(roomy, key=_emptiest if wanted == 1 else _tightest)
            yield Placement(job_id=job_id, node=chosen.id, slots=chosen.take(wanted))
        elif large := [machine for machine in machines if machine.size >= wanted]:
            machines.remove(min(large, key=_most_free))
        if not _any_free(machines):
            return


def _any_free(machines: Sequence[_Machine]) -> bool:
    return any(machine.free for machine in machines)


# The id comes last in each, so that the choice is the same at every look as long as nothing has changed.


def _emptiest(machine: _Machine) -> tuple[int, str]:
    return machine.size - len(machine.free), machine.id


def _tightest(machine: _Machine) -> tuple[int, str]:
    return len(machine.free), machine.id


def _most_free(machine: _Machine) -> tuple[int, str]:
    return -len(machine.free), machine.id
