"""Backbones by name, and where their classifier is: found by construction, not by guessing names.

A checkpoint's model.safetensors is the state dict of exactly the model that `Backbone.build` returns, so the libraries'
own constructors load it:

    config = json.load(open("config.json"))
    classes, options = len(config["classes"]), config["options"]
    model = timm.create_model(config["model"], num_classes=classes, **options)  # config["library"] == "timm"
    model = torchvision.models.get_model(config["model"], num_classes=classes, **options)  # "torchvision"
    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
    model.eval()

The one model of library "podium", cifar_resnet18, is torchvision's ResNet-18 with a stem for small pictures:

    model = torchvision.models.resnet18(num_classes=classes)
    model.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.load_state_dict(safetensors.torch.load_file("model.safetensors"))

config["preprocessing"] says how an image becomes the input.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from podium.jobs.job import Cause
from podium.worker.fit._failures import FitError

#: Models with auxiliary classifiers, which are left out; they scale their inputs as their published weights expect.
_INCEPTIONS = frozenset({"googlenet", "inception_v3"})
#: What architectures raise when an image size is none of theirs.
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
#: Sides that people use, tried for a message.
_USUAL_SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model of torchvision, of timm, or Podium's own."""

    library: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What its constructor is told beside the number of classes."""

    def build(self, classes: int) -> nn.Module:
        """The model with a classifier for so many classes, its parameters random.

        Raises:
            FitError: it cannot be built for the image size among its options.
        """
        match self.library:
            case "podium":
                return _cifar_resnet18(classes)
            case "timm":
                return self._of_timm(classes)
            case _:
                # Random weights as torchvision makes them unless told otherwise; saying so saves a warning.
                options = {**self.options, **({"init_weights": True} if self.name in _INCEPTIONS else {})}
                model: nn.Module = torchvision.models.get_model(self.name, num_classes=classes, **options)
                return model

    def classifier_parameters(self) -> frozenset[str]:
        """The names of the parameters whose shape depends on the number of classes."""
        return _classifier_parameters(self)

    def auxiliary_parameters(self) -> frozenset[str]:
        """The names of the parameters that only published weights have: those of auxiliary classifiers."""
        if self.name not in _INCEPTIONS or self.library != "torchvision":
            return frozenset()
        whole = Backbone(library=self.library, name=self.name, options={"aux_logits": True})
        return frozenset(shapes(whole, 7).keys() - shapes(self, 7).keys())

    def _of_timm(self, classes: int) -> nn.Module:
        try:
            model: nn.Module = timm.create_model(self.name, pretrained=False, num_classes=classes, **self.options)
        except _FAILURES as error:
            if "img_size" not in self.options:
                raise
            side, told = self.options["img_size"], timm.get_pretrained_cfg(self.name)
            message = f"timm/{self.name} cannot be built for images of {side} x {side} pixels: {error}"
            remedy = f"set preprocessing.image_size to {told.input_size[-1]}" if told else ""
            raise FitError(Cause.USER_CONFIG, message.partition("\n")[0], remedy) from error
        return model


def shapes(backbone: Backbone, classes: int) -> dict[str, torch.Size]:
    """The shapes of all that the model's state dict has."""
    try:
        with torch.device("meta"):
            model = backbone.build(classes)
    except (FitError, RuntimeError):
        # Some constructors compute with their parameters, which the meta device cannot.
        model = backbone.build(classes)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a model the state dict that it had before, from a file that does not keep the versions of its modules.

    Some modules, MNASNet's, refuse a state dict of which they do not know by which version of them it was saved.
    """
    versioned = OrderedDict(state)
    vars(versioned).update(vars(model.state_dict()))
    model.load_state_dict(versioned)


def resolve(name: str, image_size: int | None = None) -> Backbone:
    """The backbone of a spec's name; a plain name that several libraries know is torchvision's, then timm's.

    Args:
        name: plain, or with its library's prefix.
        image_size: the side of the square input, for models that are built for one; None: the model's own.

    Raises:
        FitError: no library knows it.
    """
    library, _, plain = name.rpartition("/")
    if library in ("", "torchvision") and plain in torchvision.models.list_models(module=torchvision.models):
        options = {"aux_logits": False, "transform_input": True} if plain in _INCEPTIONS else {}
        return Backbone(library="torchvision", name=plain, options=options)
    if library in ("", "timm") and timm.is_model(plain):
        return Backbone(library="timm", name=plain, options=_sized(plain, image_size))
    if library in ("", "podium") and plain == "cifar_resnet18":
        return Backbone(library="podium", name=plain)
    versions = f"torchvision {torchvision.__version__} and timm {timm.__version__}"
    raise FitError(
        Cause.USER_CONFIG, f"this worker's {versions} know no backbone {name!r}", "choose one of the catalogue"
    )


def check_input(model: nn.Module, side: int, classes: int) -> None:
    """Runs the model once on an empty picture.

    Raises:
        FitError: it does not take images of that side, or does not answer with one score a class.
    """
    answer = _answer(model, side)
    if isinstance(answer, Exception):
        why = str(answer).partition("\n")[0] or type(answer).__name__
        message = f"the backbone does not take images of {side} x {side} pixels: {why}"
        near = sorted(_USUAL_SIDES, key=lambda other: abs(other - side))
        taken = next((other for other in near if isinstance(_answer(model, other), tuple)), None)
        remedy = f"set preprocessing.image_size to {taken}" if taken else "leave preprocessing.image_size out"
        raise FitError(Cause.USER_CONFIG, message, f"{remedy}, or choose another backbone") from answer
    if answer != (1, classes):
        message = f"the backbone answers an image with a tensor of {answer}, not with {classes} scores"
        raise FitError(Cause.USER_CONFIG, message, "choose another backbone")


def _answer(model: nn.Module, side: int) -> tuple[int, ...] | Exception:
    """The shape of the scores of an empty picture, or why there are none."""
    model.eval()
    try:
        with torch.inference_mode():
            return tuple(model(torch.zeros(1, 3, side, side)).shape)
    except _FAILURES as error:
        return error


def _sized(name: str, image_size: int | None) -> dict[str, Any]:
    """What a model of timm is told of the image size: nothing, unless it is built for one and asked for another."""
    told = timm.get_pretrained_cfg(name)
    if image_size is None or told is None or not told.fixed_input_size or told.input_size[-1] == image_size:
        return {}
    return {"img_size": image_size}


def _cifar_resnet18(classes: int) -> nn.Module:
    model: nn.Module = torchvision.models.resnet18(num_classes=classes)
    # Small pictures keep their size in the stem; the pooling behind it stays, as in the paper's experiment.
    stem = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem
    return model


@cache
def _classifier_parameters(backbone: Backbone) -> frozenset[str]:
    few, more = shapes(backbone, 7), shapes(backbone, 8)
    return frozenset(name for name in few if few[name] != more[name])
