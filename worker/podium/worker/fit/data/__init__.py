"""From images, wherever they lie, to batches on a device.

    _sources    the images of one source, by place; _decode judges and decodes bytes
    _splits     which of them are trained on, which evaluated on
    _reader     squares of pixels, on the host: resizing, random crops, what is kept in memory
    _augment    what chance does to a batch of squares, on the device, with _color, _rand_augment and _mixing
    _pipeline   all of it, ahead of time, in threads

Every random choice about an image is a function of (seed, epoch, place of the image in its source): neither the number
of threads nor what is kept in memory nor which images share a batch changes a pixel.
"""

from podium.worker.fit.data._memory import Memory, spare_memory
from podium.worker.fit.data._pipeline import Batch, Normalizer, Pipeline, check_unreadable
from podium.worker.fit.data._sources import Images, IndexedImages
from podium.worker.fit.data._splits import Split, Splits, open_splits, shuffled

__all__ = [
    "Batch",
    "Images",
    "IndexedImages",
    "Memory",
    "Normalizer",
    "Pipeline",
    "Split",
    "Splits",
    "check_unreadable",
    "open_splits",
    "shuffled",
    "spare_memory",
]
