"""One optimizer step: the parts of a batch forward and backward, then, where the loss is a number, the update.

What every step draws at random is a function of (seed, step, rank), so a checkpoint needs no generator's state.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from podium.jobs.job import Cause
from podium.jobs.spec import JobSpec, Precision, Unreadable
from podium.worker.fit._average import Average
from podium.worker.fit._failures import FitError, first_line
from podium.worker.fit.data import Batch
from podium.worker.fit.learners import Learner
from podium.worker.fit.loss import criterion
from podium.worker.fit.optim import learning_rate, set_rate
from podium.worker.fit.world import World
from podium.worker.job_context import StopReason

_TYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_REASONS = (None, *StopReason)


def autocast(spec: JobSpec, device: torch.device) -> torch.autocast:
    """The spec's precision; the loss leaves it again by itself."""
    return torch.autocast(device.type, dtype=_TYPES.get(spec.precision), enabled=spec.precision in _TYPES)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Makes what torch draws from here on a function of (seed, step, rank)."""
    key = [seed, 3, step] if rank == 0 else [seed, 3, step, rank]
    number = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    # torch.manual_seed would, in a process that does not use its GPUs, remember every call with its stack.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch has no types for it
        torch.cuda.manual_seed_all(number)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a step: of all ranks together."""

    loss: float
    """The mean over the step's images."""
    learning_rate: float
    stop: StopReason | None
    """What rank 0 was asked to do when the step began; every rank knows it."""


class Stepper:
    """Changes a learner's module.

    Args:
        spec: the loss, the schedule and everything about a step.
        learner: what to train, on the world's device.
        optimizer: of the learner's parameters.
        world: the ranks.
        steps_per_epoch: for the schedule.

    Raises:
        FitError: the spec's precision is not to be had on this device.
    """

    def __init__(
        self,
        spec: JobSpec,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        world: World,
        steps_per_epoch: int,
    ) -> None:
        if spec.precision is Precision.FP16 and world.device.type != "cuda":
            message = "precision FP16 needs a GPU, and this attempt runs on the CPU"
            raise FitError(Cause.USER_CONFIG, message, "write precision: bf16 or fp32")
        self.optimizer = optimizer
        self._spec, self._learner, self._world, self._steps_per_epoch = spec, learner, world, steps_per_epoch
        self._loss = criterion(
            spec, learner.splits["train"].class_counts(), reduction="sum", label_smoothing=spec.label_smoothing
        )
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=spec.precision is Precision.FP16)
        self._average = Average(learner.module, spec.ema_decay) if spec.ema_decay else None
        self.model: nn.Module = _compiled(learner.module) if spec.compile else learner.module
        """The learner's module, as fast as the spec wants it."""
        self._parallel = _parallel(self.model, world)

    def step(self, at: int, parts: Sequence[Batch], images: int, stop: StopReason | None) -> Outcome:
        """The step after `at` steps.

        Args:
            at: steps done.
            parts: this rank's images, one part after the other.
            images: of all ranks together, before unreadable ones were left out.
            stop: what this rank was asked to do.

        Raises:
            FitError: the loss is no number, and nothing was changed; or the device's memory is too small.
        """
        rate = learning_rate(self._spec, at, self._steps_per_epoch)
        seed_step(self._spec.seed, at, self._world.rank)
        self._learner.train()
        try:
            outcome = self._accumulate(parts, self._count(parts, images), rate, stop)
            if not math.isfinite(outcome.loss):
                # An update with it would destroy the model.
                raise _non_finite(outcome.loss, at + 1, rate)
            self._update(at, rate)
            return outcome
        except torch.OutOfMemoryError as error:
            told = first_line(error)
        # Outside the handler, whose traceback would keep the step's tensors alive.
        images = max(len(part.targets) for part in parts)
        # Other ranks would not take part in the trials.
        fitting = _largest(images, lambda count: self._try(parts[0], count)) if self._world.size == 1 else None
        raise _too_large(told, images, fitting)

    def _count(self, parts: Sequence[Batch], images: int) -> int:
        """The step's images on all ranks."""
        if self._spec.unreadable is Unreadable.FAIL:
            return images
        own = torch.tensor(float(sum(len(part.targets) for part in parts)))
        return int(self._world.summed(own).item())

    def _accumulate(self, parts: Sequence[Batch], images: int, rate: float, stop: StopReason | None) -> Outcome:
        total = torch.zeros((), device=self._world.device)
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            # Ranks' gradients are averaged, and only once.
            with nullcontext() if last else self._unsynchronised():
                with autocast(self._spec, self._world.device):
                    scores = self._parallel(part.inputs)
                loss = self._loss(scores.float(), part.targets) / images
                total = total + loss.detach()
                if last:
                    reading = _Reading(self._together(total, stop))
                self._scaler.scale(loss * self._world.size).backward()
        value, code = reading.wait()
        return Outcome(loss=value, learning_rate=rate, stop=_REASONS[round(code)])

    def _together(self, loss: Tensor, stop: StopReason | None) -> Tensor:
        """The loss of all ranks, and what rank 0 was asked to do, in one message: (2,)."""
        code = float(_REASONS.index(stop)) if self._world.first else 0.0
        return self._world.summed(torch.stack((loss, torch.full_like(loss, code))))

    def _unsynchronised(self) -> AbstractContextManager[None]:
        parallel = self._parallel
        if isinstance(parallel, DistributedDataParallel):
            return parallel.no_sync()
        return nullcontext()

    def _update(self, at: int, rate: float) -> None:
        set_rate(self.optimizer, rate)
        if self._spec.gradient_clip_norm:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._learner.module.parameters(), self._spec.gradient_clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(at)

    def _try(self, part: Batch, count: int) -> None:
        """A step with so many images, to see whether it fits; what becomes of the model no longer matters."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._world.device.type == "cuda":
            torch.cuda.empty_cache()
        with autocast(self._spec, self._world.device):
            scores = self._learner.module(part.inputs[:count])
        self._scaler.scale(self._loss(scores.float(), part.targets[:count])).backward()
        self.optimizer.step()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The learner's module is the average of the steps within, where the spec wants one."""
        with nullcontext() if self._average is None else self._average.in_place():
            yield

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What going on needs beside the model and the optimizer: tensors, and numbers."""
        tensors = {} if self._average is None else self._average.state()
        return tensors, dict(self._scaler.state_dict())

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Takes back what `state` gave, after the learner has taken back its model."""
        if self._average is not None:
            self._average.restore(tensors)
        self._scaler.load_state_dict(numbers)


class _Reading:
    """Numbers on their way from the device: waiting for them does not wait for what was asked of it later."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._event = values, None
        if values.device.type == "cuda":
            self._values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self._event = torch.Event(values.device)
            self._event.record()

    def wait(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


def _compiled(module: nn.Module) -> nn.Module:
    compiled = torch.compile(module)
    # torch annotates a function for whatever is given.
    assert isinstance(compiled, nn.Module)
    return compiled


def _parallel(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def _non_finite(value: float, step: int, rate: float) -> FitError:
    message = f"the loss became {value} at step {step}, with learning rate {rate:.3g}"
    remedy = "lower the learning rate, or lengthen the warm-up; the best checkpoint before this step is whole"
    return FitError(Cause.NON_FINITE, message, remedy)


def _too_large(told: str, images: int, fitting: int | None) -> FitError:
    """The error of a step that does not fit, with the number of images that does, where it is known."""
    message = f"the device's memory is too small for {images} images at once: {told}"
    if fitting == 0:
        return FitError(Cause.OOM_DEVICE, message, "not even one image fits: use a smaller backbone or image_size")
    parts = 2 if fitting is None else math.ceil(images / fitting)
    fits = "" if fitting is None else f"{fitting} at once fit: "
    remedy = f"{fits}multiply accumulation_steps by {parts}, which keeps the batch, or divide batch_size by {parts}"
    return FitError(Cause.OOM_DEVICE, message, remedy)


def _largest(images: int, attempt: Callable[[int], None]) -> int:
    """The largest half, quarter, … of so many images that can be computed; 0: not even one."""
    count = images // 2
    while count:
        try:
            attempt(count)
        except torch.OutOfMemoryError:
            count //= 2
        else:
            break
    return count
