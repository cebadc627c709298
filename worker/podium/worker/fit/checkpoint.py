"""The files of a checkpoint, none of them a pickle.

model.safetensors     the whole model under its library's own names, usable without Podium (see backbones.py)
config.json           what it is: library, model, classes, preprocessing, where the weights came from
training.safetensors  the optimizer's state, and an unfolded head
training.json         the step, and the best evaluation so far
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from podium.worker.fit.learners import Learner


@dataclass(kw_only=True)
class Position:
    """Where the training stands."""

    step: int = 0
    best: float | None = None
    """The monitored metric at the best evaluation so far, its sign such that more is better."""
    evaluated: int = -1
    """The last end of an epoch whose evaluation, where it was due, is done."""


def write(
    folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, position: Position, config: dict[str, Any]
) -> None:
    """Writes a checkpoint's files into a folder."""
    extra = {f"learner.{name}": tensor for name, tensor in learner.extra_state().items()}
    _save(folder / "model.safetensors", learner.model_state())
    _save(folder / "training.safetensors", {**extra, **_optimizer_state(optimizer)})
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(asdict(position)), encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about its model."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def read_model(folder: Path, learner: Learner) -> None:
    """Takes the model from a checkpoint."""
    training = load_file(folder / "training.safetensors")
    extra = {name.removeprefix("learner."): tensor for name, tensor in training.items() if name.startswith("learner.")}
    learner.restore(load_file(folder / "model.safetensors"), extra)


def read(folder: Path, learner: Learner, optimizer: torch.optim.Optimizer) -> Position:
    """Takes model and optimizer from a checkpoint, and returns where it stands."""
    read_model(folder, learner)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / "training.safetensors").items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, field = rest.partition(".")
            state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, fields in optimizer.state.items():
        for field, value in fields.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # In the parameter's memory layout, as an uninterrupted run would have it.
                fields[field] = torch.empty_like(parameter).copy_(value)
    return Position(**json.loads((folder / "training.json").read_text(encoding="utf-8")))


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{index}.{field}": tensor
        for index, fields in optimizer.state_dict()["state"].items()
        for field, tensor in fields.items()
        if isinstance(tensor, Tensor)
    }


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    # Cloned, because the format knows neither views nor tensors that share memory.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(owned, path)
    except SafetensorError as error:
        # What a full disk looks like through this library.
        raise OSError(f"{path.name} could not be written: {error}") from error
