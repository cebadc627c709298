"""Where a training stands: the part of a checkpoint that is no tensor."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best value of a monitored metric so far, and the step of its model."""

    value: float
    step: int


@dataclass(kw_only=True)
class Position:
    """Where the training stands."""

    step: int = 0
    evaluated: int = -1
    """The last step whose evaluation, where one was due, is done."""
    best: dict[str, Best] = field(default_factory=dict)
    """By monitored metric."""
    stale: int = 0
    """Evaluations since the monitor was last better."""
    stopped: bool = False
    """The training ended early."""
    tested: bool = False
    """All is done; the model is the best one, not the last."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Position":
        """The inverse of `to_json`."""
        best = {name: Best(**one) for name, one in values["best"].items()}
        return cls(**{**values, "best": best})

    def improved(self, metrics: Mapping[str, float], monitors: tuple[str, ...]) -> list[str]:
        """Which monitored metrics are better than ever, remembering them; of equal ones the first stays the best.

        Args:
            metrics: of an evaluation, "loss" among them.
            monitors: their names; the first one also counts for patience.
        """
        # Scores that are NaN have an accuracy, but are never the best.
        finite = math.isfinite(metrics["loss"])
        found = [name for name in monitors if finite and self._better(name, metrics[name])]
        self.best.update({name: Best(value=metrics[name], step=self.step) for name in found})
        self.stale = 0 if monitors[0] in found else self.stale + 1
        return found

    def _better(self, name: str, value: float) -> bool:
        if name not in self.best:
            return True
        before = self.best[name].value
        return value < before if name == "loss" else value > before
