"""The other machines of an attempt, as its first one knows them from their lines."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from podium.jobs.job import Cause
from podium.jobs.store import Leases
from podium.worker.job_context import StopReason
from podium.worker.rank_line import Message
from podium.worker.roll_call import hand_over
from podium.worker.stop import StopFlag


class Membership:
    """Who is there, how their ranks ended, and who is missing. Used from several threads.

    Args:
        nodes: the other machines.
        stop: raised where one of them asks for it.
        leases: how long silence means nothing.
        folder: shared with the supervisor, which is handed what they say of their stacks; None: nobody asks.
        clock: seconds that never go backwards.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        stop: StopFlag,
        leases: Leases,
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes, self._stop, self._leases, self._folder, self._clock = nodes, stop, leases, folder, clock
        self._guard = threading.Lock()
        began = clock()
        self._expected = {node: began + leases.starting for node in nodes}
        self._words = {node: f"{node} did not come within {leases.starting:.0f} s" for node in nodes}
        self._exits: dict[int, int] = {}
        self._causes: dict[str, Cause] = {}
        self.failed = False
        """Whether ranks of another machine ended otherwise than well."""

    def listen(self, node: str, line: Iterable[Message]) -> None:
        """Hears what a machine says, to the end of its line."""
        if node not in self._words:
            return
        self._heard(node)
        for message in line:
            self._heard(node)
            match message:
                case {"kind": "stop", "reason": str(reason)}:
                    self._stop.request(StopReason(reason))
                case {"kind": "stacks", "told": dict(told)} if self._folder is not None:
                    hand_over(self._folder, self._nodes.index(node) + 1, told)
                case {"kind": "ended", "well": bool(well), "exits": dict(exits), "cause": str(cause)}:
                    self._ended(node, well, {int(rank): int(code) for rank, code in exits.items()}, Cause[cause])
        with self._guard:
            self._words[node] = f"{node} left without a word"
            if node in self._expected:
                self._expected[node] = self._clock()

    def _heard(self, node: str) -> None:
        with self._guard:
            self._words[node] = f"{node} fell silent"
            if node in self._expected:
                self._expected[node] = self._clock() + self._leases.attempt

    def _ended(self, node: str, well: bool, exits: Mapping[int, int], cause: Cause) -> None:
        with self._guard:
            self._expected.pop(node, None)
            self._causes[node] = cause
            self._exits.update(exits)
            self.failed = self.failed or not well

    @property
    def exits(self) -> dict[int, int]:
        """The exit codes of the ranks of other machines that were first to exit with one."""
        with self._guard:
            return dict(self._exits)

    @property
    def causes(self) -> dict[str, Cause]:
        """What each machine whose ranks ended says of a rank that died there."""
        with self._guard:
            return dict(self._causes)

    @property
    def missing(self) -> str:
        """Which machine is not heard from, in words; empty: each is, or has said how its ranks ended."""
        with self._guard:
            now = self._clock()
            return next((self._words[node] for node, until in self._expected.items() if until <= now), "")
