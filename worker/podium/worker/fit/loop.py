"""The training loop.

Everything random about a step is a function of (seed, step): the shuffle of (seed, epoch), augmentation of
(seed, epoch, image), and the generators are seeded again before each step and each evaluation. So a checkpoint needs no
generator's state, and an attempt that resumes does, on the same kind of device and with as many of them, exactly what
an uninterrupted one would have done.

Metrics: "train/loss" and "train/learning_rate" of at most 10,000 steps, the last one among them; "val/*" at step 0 and
at every evaluation, "val_untouched/*" at step 0 where the weights know the job's classes; "data/wait" and
"data/unreadable" at the ends of epochs; what the last step adds is in `finish`.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from podium.jobs.events import Level
from podium.jobs.job import Cause
from podium.jobs.spec import JobSpec
from podium.worker.fit import checkpoint
from podium.worker.fit._failures import FitError
from podium.worker.fit._meter import Meter, Waiting
from podium.worker.fit.data import Batch, shuffled
from podium.worker.fit.evaluate import Evaluated, Evaluator
from podium.worker.fit.learners import Learner
from podium.worker.fit.position import Position
from podium.worker.fit.step import Stepper, seed_step
from podium.worker.fit.world import World
from podium.worker.job_context import JobContext, Stopped, StopReason

_MOST_POINTS = 10_000
_MOST_WAITING = 0.1
_MOST_NAMES = 100


class Training:
    """Trains a learner from the newest checkpoint, or from the beginning.

    Args:
        spec: the job's resolved spec.
        learner: what to train, on the world's device.
        optimizer: of the learner's parameters.
        context: the line to the job.
        world: the ranks.
        evaluate: knows the job's metrics.
        config: what every checkpoint says about the model.
        untouched: the model as the weights have it, where its own classifier knows the job's classes.

    Raises:
        FitError: a batch has fewer images than it is to have parts.
    """

    def __init__(
        self,
        spec: JobSpec,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        context: JobContext,
        world: World,
        evaluate: Evaluator,
        config: dict[str, Any],
        untouched: Callable[[], Learner] | None = None,
    ) -> None:
        self._spec, self._learner, self._context, self._world = spec, learner, context, world
        self._evaluate, self._config, self._untouched = evaluate, config, untouched
        # A remainder of less than a batch is left out of its epoch; the next shuffle leaves out another one.
        self._images = len(learner.splits["train"])
        self._batch = min(spec.batch_size, self._images)
        _check_parts(self._batch, spec.accumulation_steps * world.size)
        self._steps_per_epoch = self._images // self._batch
        self._total = self._steps_per_epoch * spec.epochs
        self._report_every = math.ceil(self._total / _MOST_POINTS)
        self._monitors = tuple(dict.fromkeys((spec.evaluation.monitor, *spec.evaluation.also_monitor)))
        self.stepper = Stepper(spec, learner, optimizer, world, self._steps_per_epoch)
        self._waiting = Waiting()
        self._named: set[str] = set()

    def run(self) -> Position:
        """Trains to the end, and returns where it is.

        Raises:
            Stopped: the attempt is to end; a checkpoint has been saved, unless the attempt was fenced out.
            FitError: the job cannot go on.
        """
        self._at = self._resume()
        if self._at.tested:
            return self._at
        if self._world.first and self._spec.batch_size > self._images:
            self._context.log(
                f"batch_size is {self._spec.batch_size}, and train has {self._images} images: every epoch is one step, "
                "with all of them; for more steps write a smaller batch_size, or more epochs",
                Level.WARNING,
            )
        self._meter = Meter("training", self._total * self._batch, done=self._at.step * self._batch)
        try:
            self._boundary()
            while self._at.step < self._total and not self._at.stopped:
                self._epoch()
        except Stopped as stopped:
            if stopped.reason is not StopReason.FENCED and self._at.step > 0:
                self._save({})
            raise
        return self._at

    def _epoch(self) -> None:
        epoch, done = divmod(self._at.step, self._steps_per_epoch)
        order = shuffled(self._images, self._spec.seed, epoch)[: self._steps_per_epoch * self._batch]
        steps = list(order.view(self._steps_per_epoch, self._batch)[done:])
        parts = [part for places in steps for part in self._parts(places)]
        batches = iter(self._learner.training(epoch, parts))
        for places in steps:
            with self._waiting.for_images():
                ready = list(islice(batches, self._spec.accumulation_steps))
            with self._waiting.at_work():
                self._step(ready, len(places))
            self._boundary()
            if self._at.stopped:
                return

    def _parts(self, places: Tensor) -> Sequence[Tensor]:
        """This rank's share of a batch, in the parts that go through the model one after the other."""
        return self._world.share(places).tensor_split(self._spec.accumulation_steps)

    def _step(self, parts: Sequence[Batch], images: int) -> None:
        outcome = self.stepper.step(self._at.step, parts, images, self._context.should_stop())
        self._at.step += 1
        if self._world.first:
            if self._at.step % self._report_every == 0 or self._at.step == self._total:
                told = {"train/loss": outcome.loss, "train/learning_rate": outcome.learning_rate}
                self._context.report(self._at.step, told)
            self._context.progress(self._meter.progress(images, step=self._at.step, total_steps=self._total))
        if self._at.step % self._steps_per_epoch == 0:
            # Before anything that may end the attempt: the next one begins with the next epoch.
            self._tell_data()
        if outcome.stop is not None:
            # Between steps a checkpoint is exact.
            raise Stopped(outcome.stop)

    def _boundary(self) -> None:
        """What is due between this step and the next: an evaluation, a checkpoint, the end."""
        at, spec = self._at, self._spec
        if at.evaluated >= at.step:
            return
        evaluated, best = None, False
        if self._due(spec.evaluation.every_epochs, spec.evaluation.every_steps):
            evaluated = self._evaluated()
            best = at.step > 0 and self._remember(evaluated.metrics)
        at.evaluated = at.step
        due = best or at.stopped or self._due(spec.checkpoints.every_epochs, spec.checkpoints.every_steps)
        if due and at.step > 0:
            self._save({} if evaluated is None else {"val": evaluated.details}, best)

    def _due(self, every_epochs: int, every_steps: int) -> bool:
        epoch, step = divmod(self._at.step, self._steps_per_epoch)
        within = bool(every_steps) and self._at.step % every_steps == 0
        return self._at.step == self._total or within or (step == 0 and epoch % every_epochs == 0)

    def _evaluated(self) -> Evaluated:
        at, steps = self._at, (self._at.step, self._total)
        if at.step == 0 and self._untouched is not None:
            self._tell("val_untouched", self._evaluate(self._untouched(), "val", steps))
        # A loss may draw noise.
        seed_step(self._spec.seed, at.step)
        with self.stepper.averaged():
            # Each rank has its own statistics of normalisations, and of these its own average.
            self._world.same(self._learner.module)
            evaluated = self._evaluate(self._learner, "val", steps, model=self.stepper.model.__call__)
        self._tell("val", evaluated)
        return evaluated

    def _tell(self, name: str, evaluated: Evaluated) -> None:
        if not self._world.first:
            return
        step, loss = self._at.step, evaluated.metrics["loss"]
        self._context.report(step, {f"{name}/{metric}": value for metric, value in evaluated.metrics.items()})
        if not math.isfinite(loss):
            # No reason to stop: before normalization layers have seen images, scores may overflow in evaluation alone.
            self._context.log(f"the loss on {name} is {loss} at step {step}", Level.WARNING)

    def _remember(self, metrics: dict[str, float]) -> bool:
        """Whether the monitor is better than ever. Keeps the models that are the best by further monitors."""
        at, patience = self._at, self._spec.evaluation.patience
        improved = at.improved(metrics, self._monitors)
        if self._world.first:
            for name in improved:
                if name != self._monitors[0]:
                    self._keep(name)
        if patience and at.stale >= patience:
            at.stopped = True
            if self._world.first:
                monitor, count = self._monitors[0], f"{at.stale} evaluation{'s' if at.stale > 1 else ''}"
                self._context.log(f"stopped early at step {at.step}: {count} brought no better val/{monitor}")
        return self._monitors[0] in improved

    def _keep(self, monitor: str) -> None:
        """The model that is the best by a further monitor so far, in a file that its step names."""
        folder = self._context.scratch()
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{monitor}.{os.getpid()}.tmp"
        with self.stepper.averaged():
            checkpoint.save(beside, dict(self._learner.module.state_dict()))
        beside.replace(kept(folder, monitor, self._at.step))

    def _save(self, evaluated: dict[str, Any], best: bool = False) -> None:
        if not self._world.first:
            return

        def write(folder: Path) -> None:
            config = self._config | {"step": self._at.step}
            checkpoint.write(folder, self._learner, self.stepper, self._at, config, evaluated)

        metrics = {f"val/{name}": value for name, value in evaluated.get("val", {}).get("metrics", {}).items()}
        self._context.save(self._at.step, write, metrics=metrics, best=best)
        self._drop_surpassed()

    def _drop_surpassed(self) -> None:
        """Removes further best models that no attempt asks for: of the checkpoint that was saved others are the best.

        One that goes on from an older checkpoint meets the same best steps again.
        """
        at = self._at
        for monitor in set(self._monitors[1:]) & at.best.keys():
            folder = self._context.scratch()
            for file in folder.glob(f"{monitor}-*.safetensors"):
                if file != kept(folder, monitor, at.best[monitor].step):
                    file.unlink(missing_ok=True)

    def _resume(self) -> Position:
        saved = self._context.newest()
        if saved is None:
            return Position()
        if checkpoint.read_config(saved.folder).get("images") != self._config["images"]:
            message = f"the images have changed since the checkpoint of step {saved.step}"
            # Going on would mix what was trained on into what is evaluated on.
            raise FitError(Cause.DATA, message, "put them back as they were, or submit a new job")
        at = checkpoint.read(saved.folder, self._learner, self.stepper)
        if self._world.first:
            self._context.log(f"resumed from the checkpoint of step {at.step}")
        return at

    def _tell_data(self) -> None:
        """How the images came in during an epoch."""
        epoch, share = self._at.step // self._steps_per_epoch, self._waiting.share()
        names = {name for found in self._learner.unreadable().values() for name in found}
        count = len(torch.unique(self._world.gathered(_numbers(names))))
        for name in sorted(names - self._named)[:_MOST_NAMES]:
            self._context.log(f"left out, because it cannot be read: {name}", Level.WARNING)
        self._named |= names
        if not self._world.first:
            return
        self._context.report(self._at.step, {"data/wait": share, "data/unreadable": float(count)})
        if share > _MOST_WAITING and self._world.device.type == "cuda":
            self._context.log(
                f"the GPU waited for images in {share:.0%} of epoch {epoch}: give the worker more CPU cores, or make "
                "the images smaller on disk",
                Level.WARNING,
            )


def _numbers(names: Iterable[str]) -> Tensor:
    """Names as numbers that ranks can exchange, (names,) int64."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return torch.tensor([int.from_bytes(digest, signed=True) for digest in digests], dtype=torch.int64)


def kept(folder: Path, monitor: str, step: int) -> Path:
    """Where the model lies that was the best by a further monitor at a step."""
    return folder / f"{monitor}-{step:09}.safetensors"


def _check_parts(batch: int, parts: int) -> None:
    if batch < parts:
        message = f"a batch of {batch} images cannot be divided into {parts} parts"
        raise FitError(Cause.USER_CONFIG, message, "use fewer gpus or accumulation_steps, or more training images")
