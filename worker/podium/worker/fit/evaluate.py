"""Loss, top-k accuracies, calibration and confusions of a split, in one pass.

Shape legend: N images of a split, C classes.
"""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from podium.jobs.spec import JobSpec
from podium.topk import TopKCounts, expected_topk_accuracy, topk_accuracy
from podium.worker.fit._meter import Meter
from podium.worker.fit.learners import Learner
from podium.worker.fit.loss import criterion
from podium.worker.fit.report import Answers, details
from podium.worker.fit.step import autocast
from podium.worker.fit.world import World
from podium.worker.job_context import JobContext, Stopped, StopReason


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a model makes of a split."""

    metrics: dict[str, float]
    """"loss", "expected_accuracy", "calibration_error", and "topK" for every K of the spec."""
    details: dict[str, Any]
    """For evaluation.json; see `report`."""


class Evaluator:
    """Evaluates models of one job.

    Args:
        spec: the loss, the ks, the batch size and the precision.
        classes: their names.
        context: told of the progress.
        world: the ranks; each looks at its share of every batch, and all know the result.
    """

    def __init__(self, spec: JobSpec, classes: tuple[str, ...], context: JobContext, world: World) -> None:
        self._spec, self._classes, self._context, self._world = spec, classes, context, world
        self._ks = sorted({*spec.evaluation.top_k, *(k for k, weight in spec.k.items() if weight > 0)})

    def __call__(
        self,
        learner: Learner,
        split: str,
        steps: tuple[int, int],
        *,
        model: Callable[[Tensor], Tensor] | None = None,
    ) -> Evaluated:
        """What the learner's module makes of a split.

        Args:
            learner: the model and its images.
            split: which of them.
            steps: how many steps are done, and of how many, for the progress.
            model: the learner's module in a faster form.

        Raises:
            Stopped: the attempt is to end.
        """
        loss = criterion(self._spec, learner.splits["train"].class_counts(), reduction="sum")
        losses, counts, answers = [], [], []
        total, (step, total_steps) = len(learner.splits[split]), steps
        meter = Meter(f"evaluating {split}", total)
        # What fits into memory in training fits here too.
        at_once = max(1, self._spec.batch_size // self._spec.accumulation_steps)
        batches = [self._world.share(batch) for batch in torch.split(torch.arange(total), at_once)]
        model = model or learner.module.__call__
        own = [batch for batch in batches if len(batch)]
        learner.module.eval()
        for inputs, labels in learner.evaluation(split, own):
            self._obey()
            if not len(labels):
                # None of the batch's images can be read; not every model takes a batch without any.
                continue
            with torch.inference_mode(), autocast(self._spec, self._world.device):
                scores = model(inputs).float()
            with torch.inference_mode():
                losses.append(loss(scores, labels).double())
                counts.append(topk_accuracy(scores, labels, self._ks))
                answers.append(Answers.of(scores, labels))
            if self._world.first:
                done = len(labels) * self._world.size
                self._context.progress(meter.progress(done, step=step, total_steps=total_steps))
        for _ in range(len(batches) - len(own)):
            # A rank without a share of the last batch still has a say in whether to stop.
            self._obey()
        return self._together(losses, counts, answers)

    def _together(self, losses: list[Tensor], counts: list[TopKCounts], answers: list[Answers]) -> Evaluated:
        """The sums over batches and ranks, divided once at the end."""
        device = self._world.device
        nothing = topk_accuracy(
            torch.zeros(0, max(self._ks), device=device), torch.zeros(0, device=device).long(), self._ks
        )
        counted = functools.reduce(operator.add, counts, nothing)
        counted = TopKCounts(
            ks=counted.ks, correct=self._world.summed(counted.correct), total=self._world.summed(counted.total)
        )
        loss = self._world.summed(torch.stack([torch.zeros((), dtype=torch.float64, device=device), *losses]).sum())
        everything = Answers.joined(answers).gathered(self._world)
        accuracy = counted.accuracy()
        metrics = {
            "loss": loss.item() / max(1, int(counted.total.item())),
            "expected_accuracy": expected_topk_accuracy(counted, self._spec.k),
            "calibration_error": everything.calibration_error(),
            **{f"top{k}": accuracy[k] for k in self._spec.evaluation.top_k},
        }
        return Evaluated(metrics=metrics, details=details(everything, self._classes, metrics))

    def _obey(self) -> None:
        if (reason := agreed(self._context, self._world)) is not None:
            raise Stopped(reason)


def agreed(context: JobContext, world: World) -> StopReason | None:
    """What rank 0 is asked to do, known to every rank, each of which calls."""
    reasons: tuple[StopReason | None, ...] = (None, *StopReason)
    return reasons[world.told(reasons.index(context.should_stop()))]
