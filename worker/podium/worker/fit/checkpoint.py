"""The files of a checkpoint, none of them a pickle.

model.safetensors     the whole model under its library's own names, usable without Podium (see backbones.py)
config.json           what it is: library, model, classes, preprocessing, where the weights came from
evaluation.json       what it makes of the validation split, and at the end of the test split, class by class
training.safetensors  the optimizer's state, an unfolded head, and the model itself where the saved one is an average
training.json         where the training stands
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from podium.worker.fit import optim, report
from podium.worker.fit.learners import Learner
from podium.worker.fit.position import Position
from podium.worker.fit.step import Stepper


def write(
    folder: Path,
    learner: Learner,
    stepper: Stepper,
    position: Position,
    config: dict[str, Any],
    evaluated: dict[str, Any],
) -> None:
    """Writes a checkpoint's files into a folder.

    Raises:
        OSError: the storage refused.
    """
    with stepper.averaged():
        _write_model(folder, learner, config, evaluated)
        training = {name: tensor.clone() for name, tensor in _extra(learner).items()}
    tensors, numbers = stepper.state()
    training |= {f"own.{name}": tensor for name, tensor in tensors.items()}
    training |= {f"optimizer.{name}": tensor for name, tensor in optim.tensors(stepper.optimizer).items()}
    save(folder / "training.safetensors", training)
    _write_standing(folder, position, numbers)


def write_final(
    folder: Path, learner: Learner, position: Position, config: dict[str, Any], evaluated: dict[str, Any]
) -> None:
    """Writes the files of a model that is not trained any further.

    Raises:
        OSError: the storage refused.
    """
    _write_model(folder, learner, config, evaluated)
    save(folder / "training.safetensors", _extra(learner))
    _write_standing(folder, position, {})


def _write_model(folder: Path, learner: Learner, config: dict[str, Any], evaluated: dict[str, Any]) -> None:
    save(folder / "model.safetensors", learner.model_state())
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if evaluated:
        report.write(folder, evaluated)


def _extra(learner: Learner) -> dict[str, Tensor]:
    return {f"learner.{name}": tensor for name, tensor in learner.extra_state().items()}


def read_config(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about its model."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def read_model(folder: Path, learner: Learner) -> None:
    """Takes the model from a checkpoint."""
    learner.restore(
        load_file(folder / "model.safetensors"), _named(load_file(folder / "training.safetensors"), "learner")
    )


def read(folder: Path, learner: Learner, stepper: Stepper) -> Position:
    """Takes everything from a checkpoint, and returns where it stands."""
    standing = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    position = Position.from_json(standing["position"])
    if position.tested:
        return position
    training = load_file(folder / "training.safetensors")
    learner.restore(load_file(folder / "model.safetensors"), _named(training, "learner"))
    stepper.restore(_named(training, "own"), standing["scaler"])
    optim.restore(stepper.optimizer, _named(training, "optimizer"))
    return position


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors into a file.

    Raises:
        OSError: the storage refused.
    """
    # Cloned, because the format knows neither views nor tensors that share memory.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(owned, path)
    except SafetensorError as error:
        # What a full disk looks like through this library.
        raise OSError(f"{path.name} could not be written: {error}") from error


def _write_standing(folder: Path, position: Position, scaler: dict[str, Any]) -> None:
    standing = {"position": position.to_json(), "scaler": scaler}
    (folder / "training.json").write_text(json.dumps(standing), encoding="utf-8")


def _named(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{kind}."): tensor for name, tensor in tensors.items() if name.startswith(f"{kind}.")}
