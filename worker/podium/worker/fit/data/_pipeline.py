"""Batches of a split on a device, made ahead of time in threads.

Shape legend: B images a batch, S side of the square input, 3 channels, C classes.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from podium.jobs.datasets import DatasetError
from podium.jobs.job import Cause
from podium.jobs.spec import Augmentation, Preprocessing, Unreadable
from podium.worker.fit._failures import FitError
from podium.worker.fit.data._augment import Augmenter, Places
from podium.worker.fit.data._memory import Buffers, Memory
from podium.worker.fit.data._mixing import batch_generator, mixed, mixes
from podium.worker.fit.data._reader import Pixels, Reader
from podium.worker.fit.data._splits import Split

_T = TypeVar("_T")
Flags = npt.NDArray[np.bool_]
#: Bytes of pixels that a thread takes on at once: more would leave a core's cache.
_PORTION = 1 << 19
_MOST_UNREADABLE = 0.01


class Batch(NamedTuple):
    """What a model is trained or evaluated on."""

    inputs: Tensor
    """(B, 3, S, S) float32, channels last, on the device."""
    targets: Tensor
    """Classes, (B,) int64; of mixed images the share of each class, (B, C) float32."""


class _Ready(NamedTuple):
    batch: Batch
    event: torch.Event | None


class Pipeline:
    """Batches of one split on a device.

    Threads decode and shape ahead of the batch that is asked for. On the CPU they finish their images, too; a GPU
    augments whole batches on a stream of its own, so that its compute never waits for a copy.

    Args:
        split: the images and their labels.
        preprocessing: how an image becomes an input.
        augmentation: what chance does in an epoch; None: nothing.
        seed: of chance.
        threads: how many decode.
        device: where the batches are wanted.
        unreadable: whether an image that cannot be read ends the job, or is left out of its batch.
        memory: what decoded images may take; default: none.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        *,
        seed: int,
        threads: int,
        device: torch.device,
        unreadable: Unreadable = Unreadable.FAIL,
        memory: Memory | None = None,
    ) -> None:
        self._split = split
        self._reader = Reader(split.images, preprocessing, augmentation, seed=seed, memory=memory or Memory(0))
        self._augmentation = augmentation or Augmentation()
        self._augmenter = Augmenter(self._augmentation, seed)
        self._normalize = Normalizer(preprocessing, device)
        self._seed, self._threads, self._device, self._skip = seed, threads, device, unreadable is Unreadable.SKIP
        self._portion = max(1, _PORTION // (3 * self._reader.side**2))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch
        self._unreadable: dict[int, str] = {}

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Place in the source -> name, of the images that could not be read so far."""
        return dict(self._unreadable)

    def batches(self, batches: Sequence[Tensor], *, epoch: int | None) -> Iterator[Batch]:
        """The batches of the given places of the split, in order. Images that cannot be read are left out of theirs.

        Without an epoch a batch may so come without any image.

        Args:
            batches: places in the split, (B,) each.
            epoch: the epoch that decides what chance does; None: nothing random happens.

        Raises:
            DatasetError: an image cannot be read, or none of a batch to train on.
            FitError: too many images cannot be read.
        """
        # One that is being used and one that is ready; where batches are small, one more for every thread.
        small = max(map(len, batches), default=0) <= self._portion
        depth = 2 + (self._threads if small else 0)
        buffers = Buffers()
        with _pool(1) as finisher, _pool(self._threads) as loaders:

            def start(batch: Tensor) -> Future[_Ready]:
                places = self._split.positions[batch].numpy()
                images = self._room(len(places), buffers)
                parts = [
                    loaders.submit(self._part, places[part], epoch, images[part])
                    for part in (slice(at, at + self._portion) for at in range(0, len(places), self._portion))
                ]
                return finisher.submit(self._finish, batch, images, parts, epoch)

            yield from map(self._arrived, _ahead(batches, start, depth))

    def computed(self, batches: Sequence[Tensor], compute: Callable[[Batch], _T]) -> Iterator[_T]:
        """What `compute` makes of each batch, in order; each thread loads and computes batches of its own."""
        buffers = Buffers()

        def work(batch: Tensor) -> _T:
            images, part = self._room(len(batch), buffers), Future[Flags]()
            part.set_result(self._part(self._split.positions[batch].numpy(), None, images))
            return compute(self._finish(batch, images, [part], None).batch)

        with _pool(self._threads) as pool:
            yield from _ahead(batches, lambda batch: pool.submit(work, batch), self._threads + 1)

    def _room(self, count: int, buffers: Buffers) -> Tensor:
        """Where threads put their images of a batch: inputs on the CPU, pixels on their way to a GPU."""
        shape = (count, self._reader.side, self._reader.side, 3)
        if self._stream is None:
            return buffers.empty(shape)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)

    def _part(self, places: Places, epoch: int | None, room: Tensor) -> Flags:
        """What a thread does: puts images into their room, (B, S, S, 3), and says which of them could be read."""
        fetched = [(place, self._fetch(place)) for place in places.tolist()]
        read = np.array([image is not None for _, image in fetched])
        images = [image for _, image in fetched if image is not None]
        if images:
            target = room if read.all() else torch.empty_like(room[: len(images)])
            pixels = torch.from_numpy(self._reader.shape(images, places[read], epoch))
            if self._stream is None:
                self._fill(target, pixels, places[read], epoch)
            else:
                target.copy_(pixels)
            if target is not room:
                room[torch.from_numpy(read)] = target
        return read

    def _fetch(self, place: int) -> Pixels | None:
        if place in self._unreadable:
            return None
        try:
            return self._reader.fetch(place)
        except DatasetError:
            if not self._skip:
                raise
        self._unreadable[place] = self._split.images.name(place)
        check_unreadable(list(self._unreadable.values()), len(self._split))
        return None

    def _finish(self, batch: Tensor, images: Tensor, parts: Sequence[Future[Flags]], epoch: int | None) -> _Ready:
        read = np.concatenate([part.result() for part in parts])
        if not read.any() and epoch is not None:
            # A step needs images; an evaluation or features can do without a batch, which may be a short last one.
            first = self._split.images.name(int(self._split.positions[batch[0]]))
            raise DatasetError(
                f"none of a batch's {len(batch)} images can be read, {first} among them; repair or remove them, "
                "or raise batch_size"
            )
        if not read.all():
            chosen = torch.from_numpy(read)
            batch, images = batch[chosen], images[chosen]
        places, labels = self._split.positions[batch].numpy(), self._split.labels[batch]
        if self._stream is None:
            return _Ready(self._mixed(images, labels, places, epoch), None)
        with torch.cuda.stream(self._stream):
            pixels = images.to(self._device, non_blocking=True)
            inputs = torch.empty(pixels.shape, device=self._device)
            self._fill(inputs, pixels, places, epoch)
            labels = labels.pin_memory().to(self._device, non_blocking=True)
            return _Ready(self._mixed(inputs, labels, places, epoch), self._stream.record_event())

    def _fill(self, inputs: Tensor, pixels: Tensor, places: Places, epoch: int | None) -> None:
        """Makes inputs, (B, S, S, 3) float32, of pixels of that shape, uint8."""
        if epoch is not None:
            pixels = self._augmenter.change_pixels(pixels, places, epoch)
        self._normalize(pixels, inputs)
        if epoch is not None:
            self._augmenter.erase(inputs, places, epoch)

    def _mixed(self, inputs: Tensor, labels: Tensor, places: Places, epoch: int | None) -> Batch:
        targets = labels
        if epoch is not None and mixes(self._augmentation):
            rng = batch_generator(self._seed, epoch, int(places[0]))
            inputs, targets = mixed(inputs, labels, self._augmentation, self._split.classes, rng)
        # Permuting an array whose channels come last gives torch's layout of that name without a copy.
        return Batch(inputs.permute(0, 3, 1, 2), targets)

    def _arrived(self, ready: _Ready) -> Batch:
        if ready.event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(ready.event)
            for tensor in ready.batch:
                # Its memory belongs to the other stream, which must not use it again before this one is done.
                tensor.record_stream(stream)
        return ready.batch


class Normalizer:
    """Pixels to the backbone's input: (B, S, S, 3) uint8 to float32 of the same shape."""

    def __init__(self, how: Preprocessing, device: torch.device) -> None:
        # The pixels' scale of 255 is folded in, which saves a pass over the batch. Laid out for a whole row, (3 S,),
        # both give an operation long runs of numbers, and it takes an eighth of the time.
        side = how.image_size or 0
        self._scale = (1 / (255 * torch.tensor(how.std or (1.0, 1.0, 1.0)))).repeat(side).to(device)
        self._shift = torch.tensor(how.mean or (0.0, 0.0, 0.0)).repeat(side).to(device) * 255 * self._scale

    def __call__(self, pixels: Tensor, inputs: Tensor) -> None:
        """Writes the normalised batch to the inputs."""
        rows = inputs.view(*inputs.shape[:2], -1).copy_(pixels.reshape(*pixels.shape[:2], -1))
        # One after the other: a fused operation would round otherwise in some places of a batch.
        rows.mul_(self._scale).sub_(self._shift)


def check_unreadable(names: Sequence[str], images: int) -> None:
    """Whether a job may go on without some of a split's images.

    Raises:
        FitError: they are more than one in a hundred.
    """
    if len(names) > _MOST_UNREADABLE * images:
        message = f"{len(names)} of {images} images cannot be read, more than one in a hundred: {', '.join(names[:5])}"
        raise FitError(Cause.DATA, message, "repair or remove them, then submit the job again")


def _pool(threads: int) -> "_Pool":
    # A thread whose operations had threads of their own would keep cores busy that others need.
    return _Pool(threads, thread_name_prefix="pipeline", initializer=torch.set_num_threads, initargs=(1,))


class _Pool(ThreadPoolExecutor):
    """Threads that leave work alone which has not begun when nobody waits for it any more."""

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _ahead(batches: Sequence[Tensor], start: Callable[[Tensor], Future[_T]], depth: int) -> Iterator[_T]:
    """The results of batches in order, of which so many are always in the making, so that memory stays bounded."""
    remaining = iter(batches)
    pending = deque(start(batch) for batch in islice(remaining, depth))
    while pending:
        pending[0].result()
        pending.extend(start(batch) for batch in islice(remaining, 1))
        # No name for it here, which would keep its memory while the next one is made.
        yield pending.popleft().result()
