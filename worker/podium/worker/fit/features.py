"""The features of a frozen backbone: what its classifier is given, computed once for each image.

They are kept in chunks under a key that names everything they depend on: an attempt that is killed repeats at most one
chunk, and a later job with the same images, backbone, weights and preprocessing computes none.

Shape legend: B images a batch, N images of a split, D features.
"""

import copy
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from podium.jobs.datasets import SplitIndex
from podium.jobs.job import Cause
from podium.jobs.spec import Precision, Preprocessing
from podium.worker.fit._failures import FitError
from podium.worker.fit._fuse import fused
from podium.worker.fit._meter import Meter
from podium.worker.fit.backbones import Backbone
from podium.worker.fit.data import Loader, Normalizer
from podium.worker.job_context import JobContext, obey

_CHUNK = 256
#: Small batches stay in a CPU's cache; a GPU wants many.
_BATCH = {"cpu": 16, "cuda": 128}
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that features depend on beside the images."""

    backbone: Backbone
    weights: str
    preprocessing: Preprocessing
    precision: Precision
    device: str

    def key(self, split: SplitIndex) -> str:
        """The name of a split's features."""
        text = json.dumps([_FORMAT, torch.__version__, split.digest, asdict(self)], default=str, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def linear_classifier(model: nn.Module, backbone: Backbone, example: Tensor) -> tuple[str, nn.Linear]:
    """The name of the last layer, and the layer: a model is this layer after its features, which one run confirms.

    Raises:
        FitError: the model does not end in one linear layer.
    """
    owners = {name.rpartition(".")[0] for name in backbone.classifier_parameters()}
    name = owners.pop() if len(owners) == 1 else ""
    layer = model.get_submodule(name) if name else None
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        with torch.inference_mode(), _Inputs(layer) as inputs:
            scores = model(example)
            if inputs.last.dim() == 2 and torch.allclose(scores, layer(inputs.last), atol=1e-5):
                return name, layer
    message = f"{backbone.library}/{backbone.name} does not end in one linear layer"
    raise FitError(Cause.USER_CONFIG, message, "use full fine-tuning, or choose another backbone")


class _Inputs:
    """Remembers what a layer is given."""

    def __init__(self, layer: nn.Module) -> None:
        self.last = torch.empty(0)
        self._layer = layer

    def __enter__(self) -> "_Inputs":
        self._hook = self._layer.register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.last = inputs[0]


class Extractor:
    """Computes features with a frozen model on a device."""

    def __init__(
        self,
        model: nn.Module,
        classifier: str,
        recipe: Recipe,
        *,
        device: torch.device,
        threads: int,
        context: JobContext,
    ) -> None:
        side = recipe.preprocessing.image_size or 0
        model = copy.deepcopy(model).eval()
        model.set_submodule(classifier, nn.Identity())
        model = fused(model, torch.zeros(1, 3, side, side))
        self._model = model.to(device).to(memory_format=torch.channels_last)
        self._normalize = Normalizer(recipe.preprocessing, device)
        self._recipe = recipe
        self._device = device
        self._threads = threads
        self._context = context

    def features(self, splits: Sequence[SplitIndex]) -> list[Tensor]:
        """The features of whole splits, (N, D) float32 each, on the CPU.

        Raises:
            Stopped: the attempt is to end; the chunks that are done stay.
        """
        meter = Meter("features", sum(len(split.entries) for split in splits))
        return [torch.cat(list(self._chunks(split, meter))) for split in splits]

    def _chunks(self, split: SplitIndex, meter: Meter) -> Iterator[Tensor]:
        folder = self._context.features(self._recipe.key(split))
        folder.mkdir(parents=True, exist_ok=True)
        places = torch.split(torch.arange(len(split.entries)), _CHUNK)
        files = [folder / f"{number:06}.safetensors" for number in range(len(places))]
        known = [_read(file, len(chunk)) for file, chunk in zip(files, places, strict=True)]
        new = self._compute(split, [chunk for chunk, rows in zip(places, known, strict=True) if rows is None], meter)
        for file, rows in zip(files, known, strict=True):
            if rows is None:
                rows = next(new)
                _write(file, rows)
            else:
                meter.skip(len(rows))
            yield rows

    def _compute(self, split: SplitIndex, chunks: Sequence[Tensor], meter: Meter) -> Iterator[Tensor]:
        """Each chunk's rows; the work runs ahead across the chunks."""
        batches = [torch.split(chunk, _BATCH.get(self._device.type, 16)) for chunk in chunks]
        features = self._stream(split, [batch for chunk in batches for batch in chunk])
        for chunk in batches:
            rows = []
            for batch in chunk:
                obey(self._context)
                rows.append(next(features))
                self._context.progress(meter.progress(len(batch)))
            yield torch.cat(rows)

    def _stream(self, split: SplitIndex, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        loader = Loader(split, self._recipe.preprocessing, threads=self._threads)
        if self._device.type == "cpu":
            # Threads with a batch each do not wait for one another in every layer: twice as fast on a busy machine.
            return loader.computed(batches, self._forward)
        return map(self._forward, loader.batches(batches))

    def _forward(self, pixels: Tensor) -> Tensor:
        enabled = self._recipe.precision is Precision.BF16
        with torch.inference_mode(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled):
            features: Tensor = self._model(self._normalize(pixels))
            return features.float().cpu()


def _read(file: Path, rows: int) -> Tensor | None:
    try:
        features = load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        return None
    return features if features.dim() == 2 and len(features) == rows else None


def _write(file: Path, features: Tensor) -> None:
    # Several jobs may write the same chunk at once; each writes its own file, and the last rename wins.
    beside = file.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        save_file({"features": features.contiguous()}, beside)
    except SafetensorError as error:
        # What a full disk looks like through this library.
        raise OSError(f"{file.name} could not be written: {error}") from error
    beside.replace(file)
