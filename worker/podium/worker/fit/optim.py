"""The optimizer, its learning rate as a function of the step, and its state as tensors with names.

Which parameter is treated how follows from what it is, not from the model that it is of:

- weight decay is for matrices and filters: parameters called "weight", as torch calls what multiplies, with two
  dimensions or more. Biases, the scales of norms and layers, tokens, and tables of positions are spared, and so is what
  the model itself wants spared (timm's `no_weight_decay()`);
- a block's learning rate is that of the block after it times layer_decay; the classifier has the spec's own;
- Muon is for the matrices and filters before the classifier. A depthwise filter is none: it mixes no channels.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import timm.optim.lamb
import timm.optim.muon
import torch
from torch import Tensor, nn

from podium.jobs.spec import Adam, AdamW, CosineSchedule, JobSpec, Lamb, LinearHead, Muon, Sgd, StepSchedule
from podium.worker.fit.blocks import Block

#: What all parameters outside Muon's share have of the learning rate; they are trained by AdamW.
_BESIDE_MUON = 0.1


def optimizer(spec: JobSpec, module: nn.Module, *, groups_of: Sequence[Block] | None = None) -> torch.optim.Optimizer:
    """The spec's optimizer for the parameters of a module that are trained.

    Args:
        spec: the job's spec.
        module: what is trained; parameters that require no gradient are left out.
        groups_of: the module's blocks, from `blocks`; None: it is all classifier.

    Returns:
        One whose every group has a "scale", its share of the learning rate; see `set_rate`.
    """
    wanted = spec.optimizer
    groups = _groups(spec, module, groups_of)
    made: torch.optim.Optimizer
    match wanted:
        case Sgd():
            momentum, nesterov = wanted.momentum, wanted.nesterov
            made = torch.optim.SGD(groups, lr=wanted.learning_rate, momentum=momentum, nesterov=nesterov)
        case Adam():
            made = torch.optim.Adam(groups, lr=wanted.learning_rate)
        case AdamW():
            made = torch.optim.AdamW(groups, lr=wanted.learning_rate)
        case Lamb():
            # Clipping is the spec's own field, not the optimizer's.
            made = timm.optim.lamb.Lamb(groups, lr=wanted.learning_rate, max_grad_norm=None)
        case Muon():
            made = timm.optim.muon.Muon(groups, lr=wanted.learning_rate)
    set_rate(made, wanted.learning_rate)
    return made


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the next step; each group has its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def learning_rate(spec: JobSpec, step: int, steps_per_epoch: int) -> float:
    """The learning rate of the step after `step` steps are done, in [0, the optimizer's learning rate]."""
    warmup = spec.schedule.warmup_epochs * steps_per_epoch
    rate = spec.optimizer.learning_rate * min(1.0, (step + 1) / (warmup + 1))
    match spec.schedule:
        case CosineSchedule():
            rest = max(1.0, spec.epochs * steps_per_epoch - warmup)
            return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, step - warmup) / rest)))
        case StepSchedule(every_epochs=every, factor=factor):
            return rate * math.pow(factor, step // steps_per_epoch // every)
        case _:
            return rate


def tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that an optimizer remembers, by names that `restore` knows: of parameters, and of groups (LAMB's step)."""
    state = optimizer.state_dict()
    kept = {f"{index}.{name}": value for index, fields in state["state"].items() for name, value in fields.items()}
    shared = {
        f"group.{number}.{name}": value
        for number, group in enumerate(state["param_groups"])
        for name, value in group.items()
    }
    return {name: value for name, value in {**kept, **shared}.items() if isinstance(value, Tensor)}


def restore(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Takes back what `tensors` gave, of an optimizer that was made alike."""
    state: dict[int, dict[str, Tensor]] = {}
    groups = optimizer.state_dict()["param_groups"]
    for name, value in saved.items():
        owner, _, field = name.partition(".")
        if owner == "group":
            number, _, field = field.partition(".")
            groups[int(number)][field] = value
        else:
            state.setdefault(int(owner), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, fields in optimizer.state.items():
        for field, value in fields.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # In the parameter's memory layout, as an uninterrupted run would have it.
                fields[field] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _groups(spec: JobSpec, module: nn.Module, blocks: Sequence[Block] | None) -> list[dict[str, Any]]:
    """Parameters that are treated alike, in the order of the first of each."""
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    blocks = blocks or (Block(parameters=tuple(parameters)),)
    decay = 1.0 if isinstance(spec.tuning, LinearHead) else spec.tuning.layer_decay
    told: Callable[[], Collection[str]] = getattr(module, "no_weight_decay", frozenset)
    spared = told()
    groups: dict[tuple[float, bool, bool], list[Tensor]] = {}
    for place, block in enumerate(blocks, start=1):
        distance = len(blocks) - place
        for name in block.parameters:
            if name in parameters:
                # timm's are patterns, such as "pos_embed.*".
                wanted = not any(fnmatchcase(name, pattern) for pattern in spared)
                decays = parameters[name].dim() >= 2 and name.endswith("weight") and wanted
                hidden = decays and distance > 0 and parameters[name].shape[1] > 1
                groups.setdefault((decay**distance, decays, hidden), []).append(parameters[name])
    return [
        {"params": members, "scale": scale, **_treatment(spec, decays, hidden)}
        for (scale, decays, hidden), members in groups.items()
    ]


def _treatment(spec: JobSpec, decays: bool, hidden: bool) -> dict[str, Any]:
    """The options of a group; `decays`: weight decay is for it, `hidden`: and so is Muon."""
    options: dict[str, Any] = {"weight_decay": spec.optimizer.weight_decay if decays else 0.0}
    match spec.optimizer:
        case Lamb():
            # A matrix has its own rate without weight decay too.
            return options | {"always_adapt": decays}
        case Muon(momentum=momentum) if hidden:
            # As its authors have it: their coefficients, Nesterov's momentum, their scale for tall matrices.
            own = {"ns_coefficients": "original", "adjust_lr_fn": "original", "nesterov": True, "momentum": momentum}
            return options | own | {"use_muon": True}
        case Muon():
            own = {"fallback_lr_scale": _BESIDE_MUON, "betas": (0.9, 0.999), "eps": 1e-8, "nesterov": False}
            return options | own | {"use_muon": False}
        case _:
            return options
