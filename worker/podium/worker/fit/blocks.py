"""The blocks of a backbone: the parts, from input to classifier, that its features pass through whole.

timm's models say which parts those are (`group_matcher`, which timm keeps for layer-wise learning rates). For others
the tree of modules does: while one part holds more than three quarters of all parameters, or there are but two parts,
the largest is a body and not a block, and its children take its place. What is left are stages of residual blocks,
transformer layers, or single convolutions.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from timm.models import group_parameters
from torch import nn

from podium.jobs.job import Cause
from podium.worker.fit._failures import FitError

#: A part with more than this share of a model's parameters, counted as tensors, is a body.
_BODY = 0.75


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a model."""

    parameters: tuple[str, ...]
    """The names of its parameters, as the whole model calls them."""


def blocks(model: nn.Module, classifier: Collection[str]) -> tuple[Block, ...]:
    """The blocks from input to classifier; each parameter belongs to exactly one.

    Args:
        model: a model of torchvision or timm, on any device.
        classifier: the names of the classifier's parameters, which are the last block.
    """
    parts = _told(model) or _seen(model, list(model.named_children()))
    before = _whole(model, [[name for name in part if name not in classifier] for part in parts])
    last = tuple(name for name, _ in model.named_parameters() if name in classifier)
    return tuple(Block(parameters=tuple(part)) for part in [*before, last])


def freeze_below(model: nn.Module, count: int, classifier: Collection[str]) -> tuple[nn.Module, ...]:
    """Keeps what lies below the last blocks from being trained.

    Args:
        model: a model of torchvision or timm.
        count: how many blocks before the classifier are trained, 1 or more.
        classifier: the names of the classifier's parameters.

    Returns:
        The modules below, which must stay in evaluation mode, so that their normalisation and dropout stay as they are.

    Raises:
        FitError: the model has fewer blocks.
    """
    known = blocks(model, classifier)
    if count > len(known) - 1:
        message = f"tuning.last_blocks.blocks is {count}, but the backbone has {len(known) - 1} before its classifier"
        raise FitError(Cause.USER_CONFIG, message, f"name at most {len(known) - 1}, or use full fine-tuning")
    frozen = {name for block in known[: -1 - count] for name in block.parameters}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return tuple(_below(model))


def _told(model: Any) -> list[list[str]]:
    """The parts that a model of timm tells of; none where it tells of none."""
    try:
        numbers: dict[str, int] = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    except (AttributeError, AssertionError):
        # A model of another library, or one of the few of timm that are silent.
        return []
    parts: list[list[str]] = [[] for _ in range(max(numbers.values()) + 1)]
    for name, _ in model.named_parameters():
        parts[numbers[name]].append(name)
    return parts


def _seen(model: nn.Module, parts: Sequence[tuple[str, nn.Module]]) -> list[list[str]]:
    """The parts that the tree of modules shows; libraries build it in the order in which the features go."""
    sizes = [len(list(module.parameters())) for _, module in parts]
    body = sizes.index(max(sizes))
    name, module = parts[body]
    children = [(f"{name}.{child}", one) for child, one in module.named_children()]
    if children and (sizes[body] > _BODY * sum(sizes) or len(list(filter(None, sizes))) < 3):
        return _seen(model, [*parts[:body], *children, *parts[body + 1 :]])
    inside = [[f"{name}.{own}" for own, _ in module.named_parameters()] for name, module in parts]
    named = {name for part in inside for name in part}
    # What is in no part is the model's own or a body's, such as the tokens that join the features at their beginning.
    return [[name for name, _ in model.named_parameters() if name not in named], *inside]


def _whole(model: nn.Module, parts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Parts without a matrix or filter, such as a norm, are no blocks of their own: they join the one before them."""
    weighs = {name: parameter.dim() >= 2 and name.endswith("weight") for name, parameter in model.named_parameters()}
    joined: list[list[str]] = []
    for part in filter(None, parts):
        if joined and not (any(weighs[name] for name in part) and any(weighs[name] for name in joined[-1])):
            joined[-1].extend(part)
        else:
            joined.append(list(part))
    return joined


def _below(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that hold frozen parameters only, and those without any that come before what is trained."""
    reached = False
    for module in model.modules():
        reached = reached or any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        parameters = list(module.parameters())
        if not any(parameter.requires_grad for parameter in parameters) and (parameters or not reached):
            yield module
