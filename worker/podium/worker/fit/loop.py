"""The training loop.

Everything random about a step is a function of (seed, step): the shuffle of (seed, epoch), augmentation of
(seed, epoch, image), and the generators are seeded again before each step and each evaluation. So a checkpoint needs no
generator's state, and an attempt that resumes does, on the same kind of device, exactly what an uninterrupted one would
have done.

Metrics: "train/loss" and "train/learning_rate" of at most 10,000 steps, the last one among them; "val/*" at step 0 and
after epochs; "test/*", where there is a test split, at step 0 and at the last step with the best checkpoint: its first
and last points are the model before and after.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from podium.jobs.events import Level
from podium.jobs.job import Cause
from podium.jobs.spec import JobSpec
from podium.worker.fit import checkpoint
from podium.worker.fit._failures import FitError
from podium.worker.fit._meter import Meter
from podium.worker.fit.checkpoint import Position
from podium.worker.fit.data import shuffled
from podium.worker.fit.evaluate import autocast, evaluate
from podium.worker.fit.learners import Learner
from podium.worker.fit.loss import criterion
from podium.worker.fit.optim import learning_rate, optimizer
from podium.worker.job_context import JobContext, Stopped, StopReason, obey

_MOST_POINTS = 10_000


class Training:
    """Trains a learner from the newest checkpoint, or from the beginning.

    Args:
        spec: the job's resolved spec.
        learner: what to train, on `device`.
        context: the line to the job.
        device: where to compute.
        config: what every checkpoint says about the model.
    """

    def __init__(
        self, spec: JobSpec, learner: Learner, context: JobContext, device: torch.device, config: dict[str, Any]
    ) -> None:
        self._spec, self._learner, self._context, self._device, self._config = spec, learner, context, device, config
        # A remainder of less than a batch is left out of its epoch; the next shuffle leaves out another one.
        self._images = len(learner.splits["train"])
        self._batch = min(spec.batch_size, self._images)
        self._steps_per_epoch = self._images // self._batch
        self._total = self._steps_per_epoch * spec.epochs
        self._report_every = math.ceil(self._total / _MOST_POINTS)
        self._loss = criterion(spec, learner.splits["train"].class_counts())
        self._optimizer = optimizer(spec, learner.module)

    def run(self) -> None:
        """Trains to the end, and tests the best model.

        Raises:
            Stopped: the attempt is to end; a checkpoint has been saved, unless the attempt was fenced out.
            FitError: the loss is no longer finite.
        """
        self._at = self._resume()
        self._meter = Meter("training", self._total * self._batch, done=self._at.step * self._batch)
        try:
            self._evaluate_if_due()
            while self._at.step < self._total:
                self._epoch()
                self._evaluate_if_due()
        except Stopped as stopped:
            if stopped.reason is not StopReason.FENCED and self._at.step > 0:
                self._save({})
            raise
        self._test()

    def _epoch(self) -> None:
        epoch, done = divmod(self._at.step, self._steps_per_epoch)
        order = shuffled(self._images, self._spec.seed, epoch)[: self._steps_per_epoch * self._batch]
        batches = order.view(self._steps_per_epoch, self._batch)[done:]
        for inputs, labels in self._learner.training(epoch, list(batches)):
            # Between steps a checkpoint is exact.
            obey(self._context)
            self._step(inputs, labels)
            every = self._spec.checkpoints.every_steps
            if every and self._at.step % every == 0 and self._at.step % self._steps_per_epoch:
                self._save({})

    def _step(self, inputs: Tensor, labels: Tensor) -> None:
        # forward
        _seed(self._spec.seed, self._at.step)
        self._learner.module.train()
        rate = learning_rate(self._spec, self._at.step, self._steps_per_epoch)
        with autocast(self._spec, self._device):
            scores = self._learner.module(inputs)
        loss = self._loss(scores.float(), labels)

        # An update with a loss that is not finite would destroy the model. item() waits for the device.
        value = loss.item()
        if not math.isfinite(value):
            raise _non_finite(value, self._at.step + 1, rate)

        # backward, update
        loss.backward()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._at.step += 1

        # tell
        if self._at.step % self._report_every == 0 or self._at.step == self._total:
            self._context.report(self._at.step, {"train/loss": value, "train/learning_rate": rate})
        self._context.progress(self._meter.progress(len(labels), step=self._at.step, total_steps=self._total))

    def _evaluate_if_due(self) -> None:
        """At the end of an epoch, and before the first: evaluates, and saves where it is time."""
        at, epoch, last = self._at, self._at.step // self._steps_per_epoch, self._at.step == self._total
        if at.step % self._steps_per_epoch or at.evaluated >= at.step:
            return
        metrics: dict[str, float] = {}
        if last or epoch % self._spec.evaluation.every_epochs == 0:
            metrics = self._evaluated("val")
        if at.step == 0 and "test" in self._learner.splits:
            self._evaluated("test")
        at.evaluated = at.step
        if at.step > 0:
            best = bool(metrics) and self._improves(metrics)
            if best or last or epoch % self._spec.checkpoints.every_epochs == 0:
                self._save(metrics, best)

    def _evaluated(self, split: str) -> dict[str, float]:
        step = self._at.step
        # A loss may draw noise.
        _seed(self._spec.seed, step)
        metrics = evaluate(self._learner, split, self._spec, self._context, self._device, (step, self._total))
        self._context.report(step, metrics)
        if not math.isfinite(value := metrics[f"{split}/loss"]):
            # No reason to stop: before normalization layers have seen images, scores may overflow in evaluation alone.
            self._context.log(f"the loss on {split} is {value} at step {step}", Level.WARNING)
        return metrics

    def _improves(self, metrics: dict[str, float]) -> bool:
        """Whether this evaluation is the best so far, remembering it if so; of equal ones the first stays the best."""
        monitor = self._spec.evaluation.monitor
        goodness = metrics[f"val/{monitor}"] * (-1 if monitor == "loss" else 1)
        # Scores that are NaN have an accuracy, but are never the best.
        if not math.isfinite(metrics["val/loss"]) or (self._at.best is not None and goodness <= self._at.best):
            return False
        self._at.best = goodness
        return True

    def _test(self) -> None:
        """The best model, on images that had no say in anything."""
        if "test" not in self._learner.splits:
            return
        if (best := self._context.best()) is not None:
            checkpoint.read_model(best.folder, self._learner)
            monitor = self._spec.evaluation.monitor
            self._context.log(f"testing the checkpoint of step {best.step}, the best by {monitor}")
        self._evaluated("test")

    def _save(self, metrics: dict[str, float], best: bool = False) -> None:
        def write(folder: Any) -> None:
            checkpoint.write(folder, self._learner, self._optimizer, self._at, self._config)

        self._context.save(self._at.step, write, metrics=metrics, best=best)

    def _resume(self) -> Position:
        saved = self._context.newest()
        if saved is None:
            return Position()
        if checkpoint.read_config(saved.folder).get("images") != self._config["images"]:
            message = f"the images have changed since the checkpoint of step {saved.step}"
            # Going on would mix what was trained on into what is evaluated on.
            raise FitError(Cause.DATA, message, "put them back as they were, or submit a new job")
        at = checkpoint.read(saved.folder, self._learner, self._optimizer)
        self._context.log(f"resumed from the checkpoint of step {at.step}")
        return at


def _seed(seed: int, step: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, 3, step]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _non_finite(value: float, step: int, rate: float) -> FitError:
    message = f"the loss became {value} at step {step}, with learning rate {rate:.3g}"
    remedy = "lower the learning rate, or lengthen the warm-up; the best checkpoint before this step is whole"
    return FitError(Cause.NON_FINITE, message, remedy)
