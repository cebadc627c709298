"""What a backbone starts from: reads it, checks it name by name and shape by shape, and says what it was.

Nothing is unpickled: a .pth is read with weights_only. Nothing is downloaded but the URI that the spec names. The bytes
whose SHA-256 is told are the bytes that were read.
"""

import hashlib
import io
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from podium.jobs.job import Cause
from podium.jobs.spec import Weights
from podium.worker.fit._failures import FitError, first_line
from podium.worker.fit._weights_files import locate, read
from podium.worker.fit.backbones import Backbone
from podium.worker.job_context import JobContext

State = OrderedDict[str, Tensor]

#: Under which keys scripts save a state dict beside other things; averages come first, as they are what is used.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
#: Names in torchvision's files of DenseNets, which are older than the rule that modules' names have no dots.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights that were loaded: where from, and the SHA-256 of the file."""

    name: str
    sha256: str


def load(model: nn.Module, backbone: Backbone, weights: Weights | None, context: JobContext) -> Source:
    """Fills the model with the weights, all but its classifier, and says which they were.

    Raises:
        FitError: they cannot be found or do not fit; names the layer.
    """
    if weights is None:
        return Source(name="random", sha256="")
    state, source = _read(weights, backbone, model, context)
    _fill(model, backbone, state, source.name, spared=backbone.classifier_parameters())
    return source


def untouched(backbone: Backbone, weights: Weights, classes: int, context: JobContext) -> nn.Module:
    """The model as the weights have it, with their own classifier.

    Args:
        backbone: the model.
        weights: weights whose classifier is for the job's classes, see `knows_classes`.
        classes: how many.
        context: the line to the job.

    Raises:
        FitError: as `load`.
    """
    model = backbone.build(classes)
    state, source = _read(weights, backbone, model, context)
    _fill(model, backbone, state, source.name, spared=())
    return model


def knows_classes(weights: Weights, backbone: Backbone, classes: Sequence[str], context: JobContext) -> bool:
    """Whether the weights' own classifier is for exactly these classes, in this order.

    A checkpoint says which classes it is for. The libraries' weights are for ImageNet, whose classes may be called by
    their WordNet ids or as the library calls them. Of a file nothing is known.
    """
    wanted = list(classes)
    if weights.checkpoint is not None:
        config = context.checkpoint(weights.checkpoint).folder / "config.json"
        return bool(json.loads(config.read_text(encoding="utf-8"))["classes"] == wanted)
    if weights.package is not None:
        return _is_imagenet(wanted, "imagenet-1k", 1000)
    if weights.tag is None:
        return False
    if backbone.library == "timm":
        told = timm.get_pretrained_cfg(f"{backbone.name}.{weights.tag}")
        count = told.num_classes if told else 0
        return _is_imagenet(wanted, infer_imagenet_subset({"num_classes": count}), count)
    known = torchvision.models.get_model_weights(backbone.name)[weights.tag].meta["categories"]
    return bool(known == wanted) or _is_imagenet(wanted, "imagenet-1k", len(known))


def _is_imagenet(classes: list[str], subset: str | None, count: int) -> bool:
    if subset is None or len(classes) != count:
        return False
    info: Any = ImageNetInfo(subset)
    return classes in (info.label_names(), info.label_descriptions())


def _read(weights: Weights, backbone: Backbone, model: nn.Module, context: JobContext) -> tuple[State, Source]:
    """The state dict under the backbone's own names, its classifier included."""
    path = locate(weights, backbone, context)
    content = read(path)
    source = Source(name=path.name, sha256=hashlib.sha256(content).hexdigest())
    state = _parsed(content, path.name)
    if weights.tag is not None and backbone.library == "timm":
        return _renamed_by_timm(state, backbone, weights.tag, path.name), source
    if weights.package is not None:
        names = list(model.state_dict())
        if len(names) != len(state):
            message = f"{path.name} has {len(state)} tensors, the backbone {len(names)}"
            remedy = "install the versions of timm and of the package that constraints.txt names"
            raise FitError(Cause.USER_CONFIG, message, remedy)
        return OrderedDict(zip(names, state.values(), strict=True)), source
    return state, source


def _parsed(content: bytes, name: str) -> State:
    """The state dict in a file, without what training scripts wrap around it.

    Raises:
        FitError: it holds none, or anything but tensors.
    """
    remedy = "save model.state_dict() and nothing else, as .safetensors or .pth"
    try:
        # A safetensors file begins with the length of its header, and the header with a brace.
        if content[8:9] == b"{":
            return OrderedDict(safetensors.torch.load(content))
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise whatever a broken file provokes
        raise FitError(Cause.USER_CONFIG, f"{name} cannot be read: {_why(error)}", remedy) from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise FitError(Cause.USER_CONFIG, f"{name} is no state dict", remedy)
    return state if isinstance(state, OrderedDict) else OrderedDict(state)


def _why(error: Exception) -> str:
    if (refused := re.search(r"GLOBAL (\S+)", str(error))) is not None:
        return f"it holds {refused[1]}, which is no tensor"
    if isinstance(error, pickle.UnpicklingError):
        # torch's own sentence recommends to load it without care.
        return "it is not what torch.save or safetensors write"
    return first_line(error)


def _renamed_by_timm(state: State, backbone: Backbone, tag: str, name: str) -> State:
    """As timm loads it: some keys are renamed, and positions are resampled for another image size."""
    options = {"pretrained_cfg_overlay": {"state_dict": state}, **backbone.options}
    try:
        model: nn.Module = timm.create_model(f"{backbone.name}.{tag}", pretrained=True, **options)
    except (RuntimeError, KeyError) as error:
        raise _misfit(name, backbone, str(error).strip().splitlines()[-1].strip()) from error
    return OrderedDict(model.state_dict())


def _fill(model: nn.Module, backbone: Backbone, state: State, name: str, *, spared: Collection[str]) -> None:
    """Loads everything but what is spared, by way of torch, whose modules know the names of their own past."""
    own = model.state_dict()
    dropped = {*spared, *backbone.auxiliary_parameters()}
    named = {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in _unwrapped(state, own).items()}
    given = OrderedDict((key, tensor) for key, tensor in named.items() if key not in dropped)
    # The versions of the modules that the file was saved from. A file that tells none but has every name is of today.
    vars(given).update(vars(own) if own.keys() <= named.keys() else vars(state))
    for key in own.keys() & given.keys():
        if own[key].shape != given[key].shape:
            detail = f"{key} has shape {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
            raise _misfit(name, backbone, detail)
    try:
        result = model.load_state_dict(given, strict=False)
    except (RuntimeError, ValueError) as error:
        raise _misfit(name, backbone, str(error).strip().splitlines()[-1].strip()) from error
    if missing := sorted(set(result.missing_keys) - dropped):
        raise _misfit(name, backbone, f"lacks {missing[0]} ({len(missing)} missing in all)")
    if unknown := sorted(result.unexpected_keys):
        raise _misfit(name, backbone, f"has {unknown[0]}, which the backbone lacks ({len(unknown)} in all)")


def _unwrapped(state: State, own: Collection[str]) -> State:
    """Without the names of modules around the model, such as DataParallel's "module."."""
    firsts = {name.partition(".")[0] for name in state}
    if len(firsts) > 1 or any(name.partition(".")[0] in firsts for name in own):
        return state
    inner = OrderedDict((name.partition(".")[2], tensor) for name, tensor in state.items())
    return _unwrapped(inner, own) if all(inner) else state


def _misfit(name: str, backbone: Backbone, detail: str) -> FitError:
    message = f"the weights {name} do not fit {backbone.library}/{backbone.name}: {detail}"
    return FitError(Cause.USER_CONFIG, message, "name the backbone that the weights were made with")
