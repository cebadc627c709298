"""Backbones by name, and where their classifier is: found by construction, not by guessing names.

A checkpoint's model.safetensors is the state dict of exactly the model that `Backbone.build` returns, so the libraries'
own constructors load it:

    config = json.load(open("config.json"))
    model = timm.create_model(config["model"], num_classes=len(config["classes"]))  # config["library"] == "timm"
    model = torchvision.models.get_model(config["model"], num_classes=len(config["classes"]))  # "torchvision"
    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
    model.eval()

config["preprocessing"] says how an image becomes the input.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from podium.jobs.job import Cause
from podium.worker.fit._failures import FitError

#: Models whose training mode returns the outputs of auxiliary classifiers beside their own; built without those.
_WITHOUT_AUXILIARY = frozenset({"googlenet", "inception_v3"})


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model of torchvision or timm."""

    library: str
    name: str

    def build(self, classes: int) -> nn.Module:
        """The model with a classifier for so many classes, its parameters random."""
        if self.library == "timm":
            model: nn.Module = timm.create_model(self.name, pretrained=False, num_classes=classes)
            return model
        options: dict[str, Any] = {"aux_logits": False} if self.name in _WITHOUT_AUXILIARY else {}
        with warnings.catch_warnings():
            # torchvision announces a change of two models' random weights.
            warnings.simplefilter("ignore", FutureWarning)
            other: nn.Module = torchvision.models.get_model(self.name, weights=None, num_classes=classes, **options)
        return other

    def classifier_parameters(self) -> frozenset[str]:
        """The names of the parameters whose shape depends on the number of classes."""
        few, more = self._shapes(7), self._shapes(8)
        return frozenset(name for name in few if few[name] != more[name])

    def _shapes(self, classes: int) -> dict[str, torch.Size]:
        try:
            with torch.device("meta"):
                model = self.build(classes)
        except (NotImplementedError, RuntimeError):
            # Some constructors compute with their parameters, which the meta device cannot.
            model = self.build(classes)
        return {name: tensor.shape for name, tensor in model.state_dict().items()}


def resolve(name: str) -> Backbone:
    """The backbone of a spec's name; a plain name that both libraries know is torchvision's.

    Raises:
        FitError: neither library knows it.
    """
    library, _, plain = name.rpartition("/")
    if library in ("", "torchvision") and plain in torchvision.models.list_models(module=torchvision.models):
        return Backbone(library="torchvision", name=plain)
    if library in ("", "timm") and timm.is_model(plain):
        return Backbone(library="timm", name=plain)
    versions = f"torchvision {torchvision.__version__} and timm {timm.__version__}"
    raise FitError(
        Cause.USER_CONFIG, f"this worker's {versions} know no backbone {name!r}", "choose one of the catalogue"
    )


def check_input(model: nn.Module, side: int, classes: int) -> None:
    """Runs the model once on an empty picture.

    Raises:
        FitError: it does not take images of that side, or does not answer with one score a class.
    """
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(torch.zeros(1, 3, side, side)).shape)
    except (RuntimeError, AssertionError, ValueError, AttributeError) as error:
        message = f"the backbone does not take images of {side} x {side} pixels: {str(error).partition(chr(10))[0]}"
        raise FitError(
            Cause.USER_CONFIG, message, "leave preprocessing.image_size out, or choose another backbone"
        ) from error
    if shape != (1, classes):
        message = f"the backbone answers an image with a tensor of {shape}, not with {classes} scores"
        raise FitError(Cause.USER_CONFIG, message, "choose another backbone")
