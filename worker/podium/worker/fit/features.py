"""The features of a frozen backbone: what its classifier is given, computed once for each image.

They are kept in chunks under a key that names everything they depend on: an attempt that is killed repeats at most one
chunk, and a later job with the same images, backbone, weights and preprocessing computes none. An image that cannot be
read has a row of NaN; whether it still cannot is asked again by every job that finds one.

Shape legend: B images a batch, N images of a split, D features.
"""

import copy
import hashlib
import json
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from podium.jobs.datasets import DatasetError
from podium.jobs.job import Cause, Progress
from podium.jobs.spec import Precision, Preprocessing, Unreadable
from podium.worker.fit._failures import FitError
from podium.worker.fit._fuse import fused
from podium.worker.fit._meter import Meter
from podium.worker.fit.backbones import Backbone
from podium.worker.fit.data import Batch, Images, Pipeline, Split
from podium.worker.job_context import JobContext, obey

_CHUNK = 256
#: Small batches stay in a CPU's cache; a GPU wants many.
_BATCH = {"cpu": 16, "cuda": 128}
_FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that features depend on beside the images."""

    backbone: Backbone
    weights: str
    preprocessing: Preprocessing
    precision: Precision
    device: str

    def key(self, images: Images) -> str:
        """The name of the features of a source's images."""
        text = json.dumps([_FORMAT, torch.__version__, images.digest, asdict(self)], default=str, sort_keys=True)
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
    """Computes features with a frozen model on a device.

    Args:
        model: the whole model; it is copied.
        classifier: the name of its last layer, which is left out.
        recipe: what the features depend on.
        device: where to compute.
        threads: how many decode, and on the CPU compute.
        context: where features are kept, told of the progress.
        unreadable: whether an image that cannot be read ends the job.
        rank: of the process among those that share the work.
        size: how many do.
    """

    def __init__(
        self,
        model: nn.Module,
        classifier: str,
        recipe: Recipe,
        *,
        device: torch.device,
        threads: int,
        context: JobContext,
        unreadable: Unreadable = Unreadable.FAIL,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        side = recipe.preprocessing.image_size or 0
        model = copy.deepcopy(model).eval()
        model.set_submodule(classifier, nn.Identity())
        # Noise, which every convolution answers; an empty image would not tell a wrong one.
        model = fused(model, torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
        self._model = model.to(device).to(memory_format=torch.channels_last)
        self._recipe = recipe
        self._device = device
        self._threads = threads
        self._context = context
        self._unreadable = unreadable
        self._rank, self._size = rank, size

    def share(self, sources: Sequence[Images]) -> None:
        """Computes and keeps this rank's part of the features, so that `features` finds all of them after a barrier.

        Raises:
            Stopped: the attempt is to end; the chunks that are done stay.
        """
        meter = Meter("features", math.ceil(sum(map(len, sources)) / self._size))
        for images in sources:
            for _ in self._chunks(images, meter, slice(self._rank, None, self._size)):
                pass

    def features(self, sources: Sequence[Images]) -> list[Tensor]:
        """The features of all images of each source, (N, D) float32, on the CPU; a row of NaN: it cannot be read.

        Raises:
            Stopped: the attempt is to end; the chunks that are done stay.
            DatasetError: an image cannot be read, and that ends the job.
            FitError: too many cannot be read, or features are no numbers.
        """
        meter = Meter("features", sum(map(len, sources)))
        return [torch.cat(list(self._chunks(images, meter, slice(None)))) for images in sources]

    def _chunks(self, images: Images, meter: Meter, which: slice) -> Iterator[Tensor]:
        folder = self._context.features(self._recipe.key(images))
        folder.mkdir(parents=True, exist_ok=True)
        places = torch.split(torch.arange(len(images)), _CHUNK)
        files = [folder / f"{number:06}.safetensors" for number in range(len(places))][which]
        places = places[which]
        known = []
        for file, chunk in zip(files, places, strict=True):
            known.append(self._known(file, images, chunk))
            # Many files may take long, and no batch is done meanwhile.
            self._context.progress(Progress(phase="looking for features"))
        new = self._compute(images, [chunk for chunk, rows in zip(places, known, strict=True) if rows is None], meter)
        for file, rows in zip(files, known, strict=True):
            if rows is None:
                rows = next(new)
                _write(file, rows)
            else:
                meter.skip(len(rows))
            yield rows

    def _known(self, file: Path, images: Images, chunk: Tensor) -> Tensor | None:
        """A chunk that was computed before, unless an image that could not be read then can be read now."""
        rows = _read(file, len(chunk))
        if rows is None:
            return None
        for place in chunk[unread(rows)].tolist():
            try:
                images.image(place)
            except DatasetError:
                if self._unreadable is Unreadable.FAIL:
                    raise
            else:
                return None
        return rows

    def _compute(self, images: Images, chunks: Sequence[Tensor], meter: Meter) -> Iterator[Tensor]:
        """Each chunk's rows; the work runs ahead across the chunks."""
        batches = [torch.split(chunk, _BATCH.get(self._device.type, 16)) for chunk in chunks]
        features = self._stream(images, [batch for chunk in batches for batch in chunk])
        for chunk, parts in zip(chunks, batches, strict=True):
            found = []
            for batch in parts:
                obey(self._context)
                found.append(next(features))
                self._context.progress(meter.progress(len(batch)))
            rows = torch.full((len(chunk), found[0][0].shape[1]), math.nan)
            for computed, places in found:
                rows[places - chunk[0]] = computed
            yield rows

    def _stream(self, images: Images, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        # The places themselves are the labels, so that a batch tells which of its images could be read.
        everything = torch.arange(len(images))
        pipeline = Pipeline(
            Split(images=images, positions=everything, labels=everything, classes=len(images)),
            self._recipe.preprocessing,
            None,
            seed=0,
            threads=self._threads,
            device=self._device,
            unreadable=self._unreadable,
        )
        if self._device.type == "cpu":
            # Threads with a batch each do not wait for one another in every layer: twice as fast on a busy machine.
            return pipeline.computed(batches, self._forward)
        return map(self._forward, pipeline.batches(batches, epoch=None))

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        enabled = self._recipe.precision is not Precision.FP32
        dtype = torch.float16 if self._recipe.precision is Precision.FP16 else torch.bfloat16
        with torch.inference_mode(), torch.autocast(self._device.type, dtype=dtype, enabled=enabled):
            # Not every model takes a batch without images; of one image it tells how many features there are.
            count = len(batch.targets)
            features: Tensor = self._model(
                batch.inputs if count else batch.inputs.new_zeros(1, *batch.inputs.shape[1:])
            )
            rows = features[:count].float().cpu()
        if not rows.isfinite().all():
            message = "the backbone gives features that are no numbers"
            raise FitError(Cause.NON_FINITE, message, "look after its weights, or write precision: fp32")
        return rows, batch.targets.cpu()


def unread(features: Tensor) -> Tensor:
    """Which rows of features, (N, D), are those of images that could not be read: (N,) bool."""
    return features.isnan().all(1)


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
