"""The optimizer, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from podium.jobs.spec import Adam, AdamW, CosineSchedule, JobSpec, Sgd, StepSchedule


def optimizer(spec: JobSpec, module: nn.Module) -> torch.optim.Optimizer:
    """The spec's optimizer. Biases and the scales of norms, everything with fewer than two dimensions, do not decay."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    wanted = spec.optimizer
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": wanted.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    match wanted:
        case Sgd():
            momentum, nesterov = wanted.momentum, wanted.nesterov
            return torch.optim.SGD(groups, lr=wanted.learning_rate, momentum=momentum, nesterov=nesterov)
        case Adam():
            return torch.optim.Adam(groups, lr=wanted.learning_rate)
        case AdamW():
            return torch.optim.AdamW(groups, lr=wanted.learning_rate)


def learning_rate(spec: JobSpec, step: int, steps_per_epoch: int) -> float:
    """The learning rate of the step after `step` steps are done."""
    peak = spec.optimizer.learning_rate
    warmup = spec.schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    match spec.schedule:
        case CosineSchedule():
            total = spec.epochs * steps_per_epoch
            return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
        case StepSchedule(every_epochs=every, factor=factor):
            return peak * factor ** (step // steps_per_epoch // every)
        case _:
            return peak
