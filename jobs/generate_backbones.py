"""Writes podium/jobs/backbones.json from the installed torchvision and timm: `python jobs/generate_backbones.py`.

The server rules on a spec's backbone and fills in its preprocessing without torch; this is how it can. Models are built
on the meta device, so counting their parameters needs no memory.
"""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torchvision import models

TARGET = Path(__file__).parent / "podium" / "jobs" / "backbones.json"
#: [image_size, crop_fraction, interpolation, mean, std]
Preprocessing = list[Any]
#: [parameters, preprocessing, {tag of weights: preprocessing}]
Entry = tuple[int, Preprocessing, dict[str, Preprocessing]]


def of_torchvision(name: str) -> Entry:
    """A model of torchvision; its preprocessing is that of its default weights."""
    weights = models.get_model_weights(name)
    tags = {member.name: _from_transforms(member.transforms()) for member in weights}
    return int(weights.DEFAULT.meta["num_params"]), tags[weights.DEFAULT.name], tags


def of_timm(name: str, *, count: bool = True) -> Entry | None:
    """A model of timm; None where it does not take square RGB images."""
    cfg = get_pretrained_cfg(name)
    if cfg is None or cfg.input_size[0] != 3 or cfg.input_size[1] != cfg.input_size[2]:
        return None
    # timm lists "resnet50.a1_in1k"; the tag is what stands after the model's name.
    known = {full.partition(".")[2]: other for full, other in get_arch_pretrained_cfgs(name).items()}
    tags = {tag: _from_cfg(other) for tag, other in known.items() if tag and other.has_weights}
    return _parameters(name) if count else 0, _from_cfg(cfg), tags


def of_podium() -> dict[str, Entry]:
    """Podium's own, see podium.worker.fit.backbones; there are no weights of it."""
    model = models.resnet18()
    model.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    cifar: Preprocessing = [32, 1.0, "bilinear", [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]]
    return {"cifar_resnet18": (sum(parameter.numel() for parameter in model.parameters()), cifar, {})}


def _from_transforms(transforms: Any) -> Preprocessing:
    size, resize = transforms.crop_size[0], transforms.resize_size[0]
    filter_name = transforms.interpolation.value
    return [size, round(min(1.0, size / resize), 6), filter_name, list(transforms.mean), list(transforms.std)]


def _from_cfg(cfg: Any) -> Preprocessing:
    filter_name = "bilinear" if cfg.interpolation == "bilinear" else "bicubic"
    return [cfg.input_size[-1], round(min(1.0, cfg.crop_pct), 6), filter_name, list(cfg.mean), list(cfg.std)]


def _parameters(name: str) -> int:
    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except (NotImplementedError, RuntimeError):
        return 0
    return sum(parameter.numel() for parameter in model.parameters())


def _compact(entries: Iterable[tuple[str, Entry]], table: list[Preprocessing]) -> dict[str, Any]:
    def place(preprocessing: Preprocessing) -> int:
        if preprocessing not in table:
            table.append(preprocessing)
        return table.index(preprocessing)

    return {
        name: [parameters, place(default), {tag: place(other) for tag, other in sorted(tags.items())}]
        for name, (parameters, default, tags) in entries
    }


def main() -> None:
    """Writes the file."""
    warnings.simplefilter("ignore")
    table: list[Preprocessing] = []
    names = sorted(models.list_models(module=models))
    torchvision_part = _compact(((name, of_torchvision(name)) for name in names), table)
    timm_entries = ((name, entry) for name in sorted(timm.list_models()) if (entry := of_timm(name)) is not None)
    document = {
        "versions": {"torchvision": torchvision.__version__.partition("+")[0], "timm": timm.__version__},
        "torchvision": torchvision_part,
        "timm": _compact(timm_entries, table),
        "podium": _compact(of_podium().items(), table),
        "preprocessing": table,
    }
    TARGET.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
