"""What a benchmark against a bar finds: rows of one table."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        what: what is compared, with its sizes.
        ours: our figure, with its unit.
        peer: the figure of the peer or limit, with its unit.
        ratio: what the bar is about.
        bar: the bar, as text: ">= 0.98".
        spread: the smallest and the largest ratio of the turns.
    """

    what: str
    ours: str
    peer: str
    ratio: float
    bar: str
    spread: tuple[float, float] | None = None

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        spread = "" if self.spread is None else f"{self.spread[0]:.3g} to {self.spread[1]:.3g}"
        return (self.what, self.ours, self.peer, f"{self.ratio:.3g}", spread, self.bar)


HEAD = ("what", "ours", "peer or limit", "ratio", "turns", "bar")


def turns(count: int, *runs: Callable[[], T]) -> list[list[T]]:
    """What each run gives in each turn; the runs take turns, because a busy machine is slower now than then."""
    found: list[list[T]] = [[] for _ in runs]
    for _ in range(count):
        for place, run in enumerate(runs):
            found[place].append(run())
    return found


def ratios(ours: Sequence[float], peers: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The ratio of the medians, and the range of the turns' own ratios."""
    each = [a / b for a, b in zip(ours, peers, strict=True)]
    return statistics.median(ours) / statistics.median(peers), (min(each), max(each))
