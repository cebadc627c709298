"""A job with several devices: torchrun and its ranks, as the process of an attempt sees them.

The attempt keeps the lease, the ledger and the checkpoints; the ranks only compute, and talk to it over a line each
(see `rank_line`). A rank says "failed" before it exits, and one that dies without a word is noticed by the end of its
line: so the first to go wrong is known, and what the others say of its absence is not mistaken for the cause.

On several machines each has a torchrun of its own. What the other ones do is `follower`'s.
"""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from podium.jobs.job import Cause, Job, JobError
from podium.jobs.store import Leases
from podium.worker.job_context import JobContext, Stopped, StopReason
from podium.worker.launch import Place, exits, launch
from podium.worker.membership import Membership
from podium.worker.processes import describe_exit, folder_prefix, remove_abandoned
from podium.worker.pulse import attempt_folder
from podium.worker.rendezvous import Rendezvous
from podium.worker.roll_call import is_called
from podium.worker.stop import StopFlag
from podium.worker.switchboard import Switchboard, Word

#: How soon a wish to stop is passed on, in seconds.
_TICK = 0.1
#: What the reconciler may need, beside a node's lease, to end an attempt whose machine is lost, in seconds.
_FOR_THE_RECONCILER = 10.0


class RankFailed(Exception):
    """A rank ended with an error of its own, which it described.

    Args:
        error: the error.
        node: the machine that it was on.
    """

    def __init__(self, error: JobError, *, node: str) -> None:
        super().__init__(error.message)
        self.error = error
        self.node = node


class RankDied(Exception):
    """A rank's process died without a word, such as "of rank 1 of 2 was killed by signal 9 (SIGKILL)".

    Args:
        how: the words.
        status: its wait status; 0 where it is not known.
        node: the machine that it was on.
    """

    def __init__(self, how: str, status: int = 0, *, node: str) -> None:
        super().__init__(how)
        self.status = status
        self.node = node
        self.cause: Cause | None = None
        """What that machine said of it; None: nothing."""


class MachineMissing(Exception):
    """Another machine of the attempt is not heard from, and the ledger does not count it as lost."""


class Ranks:
    """Trains a job with one rank for each of its devices.

    Args:
        job: the job; `resources.gpus` ranks are started here, and as many on each other machine of the attempt.
        context: the attempt's line to the job. Used from several threads.
        stop: what it says is passed on to the ranks.
        mark: the argument by which the processes are found.
        environment: of the ranks.
        rendezvous: of the machines, where there are several.
        leases: how long silence of another machine means nothing.
    """

    def __init__(
        self,
        job: Job,
        context: JobContext,
        stop: StopFlag,
        *,
        mark: str,
        environment: Mapping[str, str],
        rendezvous: Rendezvous | None = None,
        leases: Leases = Leases(),  # noqa: B008  # frozen
    ) -> None:
        attempt, self._each = job.attempts[-1], job.spec.resources.gpus
        self._nodes = [member.node for member in attempt.members]
        self._name = f"{job.id}-{attempt.number}"
        self._folder = attempt_folder()
        self._membership = Membership(self._nodes[1:], stop, leases, folder=self._folder)
        self._switchboard = Switchboard(job, context, self._membership)
        self._stop, self._mark, self._environment, self._rendezvous = stop, mark, environment, rendezvous
        self._patience = leases.node + _FOR_THE_RECONCILER
        self._odd_since: float | None = None

    def run(self) -> None:
        """Trains to the end; no rank of this machine runs any more when this returns or raises.

        Raises:
            Stopped: the attempt is to end; a checkpoint has been saved, unless the attempt was fenced out.
            RankFailed: a rank failed.
            RankDied: a rank was killed.
            MachineMissing: another machine did not come, or left.
        """
        # Only this user may enter the folder, and so only the ranks can be on a line.
        remove_abandoned(self._mark)
        with tempfile.TemporaryDirectory(prefix=folder_prefix(self._mark), ignore_cleanup_errors=True) as name:
            folder = Path(name)
            with self._switchboard.listening(folder / "line", self._rendezvous):
                launcher = launch(self._place(), folder, mark=self._mark, environment=self._environment)
                try:
                    self._attend(launcher, folder)
                finally:
                    launcher.kill()
                    launcher.wait()
            self._judge(exits(folder) | self._membership.exits)

    def _place(self) -> Place:
        if self._rendezvous is None:
            return Place(ranks=self._each)
        invitation = self._rendezvous.invitation
        return Place(
            ranks=self._each,
            machines=len(self._nodes),
            address=invitation.address,
            store=f"{invitation.address}:{invitation.store}",
            listener=self._rendezvous.store.fileno(),
            name=self._name,
        )

    def _attend(self, launcher: "subprocess.Popen[bytes]", folder: Path) -> None:
        """Passes on the wish to stop, and the call for stacks, until all ranks are gone, or are to be."""
        while self._switchboard.broken is None and self._stop.reason is not StopReason.FENCED:
            if self._is_over(_ended(launcher), folder):
                return
            self._switchboard.pass_on(self._stop.reason)
            if self._folder is not None and is_called(self._folder):
                self._switchboard.call_roll()

    def _is_over(self, ended: bool, folder: Path) -> bool:
        """Whether the ranks have ended, and it is known how.

        What another machine has to say may still be under way. And whether one that is missing was lost, the
        reconciler knows by its lease: it ends the attempt, which learns that as a newer one's FENCED.
        """
        if not (ended or self._membership.failed or self._membership.missing):
            self._odd_since = None
            return False
        if len(self._nodes) == 1 or is_settled(self._switchboard.words, exits(folder) | self._membership.exits):
            return True
        now = time.monotonic()
        self._odd_since = self._odd_since or now
        return now - self._odd_since > self._patience

    def _judge(self, codes: Mapping[int, int]) -> None:
        if self._switchboard.broken is not None:
            raise self._switchboard.broken
        if self._stop.reason is StopReason.FENCED:
            raise Stopped(StopReason.FENCED)
        words = self._switchboard.words
        if not is_settled(words, codes) and self._membership.missing:
            raise MachineMissing(self._membership.missing)
        wrong = verdict(words, codes, [node for node in self._nodes for _ in range(self._each)])
        if isinstance(wrong, RankDied):
            wrong.cause = self._membership.causes.get(wrong.node)
        if wrong is not None:
            raise wrong


def _ended(launcher: "subprocess.Popen[bytes]") -> bool:
    """Whether it has, or does so within a tick."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        if launcher.returncode is not None:
            time.sleep(_TICK)
        launcher.wait(timeout=_TICK)
        return True
    return False


def is_settled(words: Sequence[Word], codes: Mapping[int, int]) -> bool:
    """Whether it is known how ranks ended: what rank 0 has reached, or what went wrong by itself. See `verdict`."""
    reached = any(word.rank == 0 and word.kind in ("done", "stopped") for word in words)
    return reached or any(_is_cause(word, codes) for word in _wrong(words, codes))


def verdict(words: Sequence[Word], codes: Mapping[int, int], nodes: Sequence[str]) -> Exception | None:
    """How ranks ended: None when the job is done. What rank 0 has reached counts; of what went wrong, the first cause.

    Args:
        words: the last ones of the ranks, in the order in which they came.
        codes: the exit codes of the ranks that were first to exit with one, as torchrun saw them; negative: a signal.
        nodes: the machine of each rank.
    """
    for word in words:
        if word.rank == 0 and word.kind == "done":
            return None
        if word.rank == 0 and word.kind == "stopped":
            return Stopped(StopReason(word.message["reason"]))
    wrong = _wrong(words, codes)
    if not wrong:
        return RankDied("ended: torchrun did not start its ranks; its words are in the worker's own log", node=nodes[0])
    first = min(wrong, key=lambda word: not _is_cause(word, codes))
    who, node, said = f"rank {first.rank} of {len(nodes)}", nodes[first.rank], first.message
    several = len(set(nodes)) > 1
    if first.kind == "vanished":
        code = codes.get(first.rank)
        if code is None:
            return RankDied(f"of {who} died with torchrun", node=node)
        status = -code if code < 0 else code << 8
        return RankDied(f"of {who} {describe_exit(status)}", status, node=node)
    if several and said["consequence"]:
        # All machines are there and no rank is to blame: it was the network.
        return RankDied(f"of {who} lost another one: {said['message']}", node=node)
    where = f"{who} on {node}" if several else who
    error = JobError(cause=Cause[said["cause"]], message=f"{where}: {said['message']}", remedy=said["remedy"])
    return RankFailed(replace(error, traceback=said["traceback"]), node=node)


def _wrong(words: Sequence[Word], codes: Mapping[int, int]) -> list[Word]:
    """What went wrong, also with ranks that never said a word."""
    spoke = {word.rank for word in words}
    silent = [Word(rank, "vanished") for rank in codes if rank not in spoke]
    return [word for word in (*words, *silent) if word.kind in ("vanished", "failed")]


def _is_cause(word: Word, codes: Mapping[int, int]) -> bool:
    """Whether a rank went wrong by itself: torchrun ends the others only after it has noted the first exits."""
    return word.rank in codes if word.kind == "vanished" else not word.message["consequence"]
