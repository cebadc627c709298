"""Mixup and cutmix: an image and the one before it in its batch become one, and so do their labels.

Shape legend: B images a batch, S side of the square, C classes.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from podium.jobs.spec import Augmentation
from podium.worker.fit.data._augment import inside
from podium.worker.fit.data._boxes import Boxes
from podium.worker.fit.data._randomness import Draw, generator


def mixes(how: Augmentation) -> bool:
    """Whether an augmentation mixes images."""
    return how.mixup_alpha > 0 or how.cutmix_alpha > 0


def mixed(
    inputs: Tensor, labels: Tensor, how: Augmentation, classes: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixed inputs, (B, S, S, 3), and their soft targets, (B, C) float32.

    Args:
        inputs: of a batch, on the device.
        labels: (B,) int64, there too.
        how: the alphas of Beta(alpha, alpha), which the shares come from; with two, half of the batches are cut.
        classes: C.
        rng: the batch's chance.
    """
    cut = how.cutmix_alpha > 0 and (how.mixup_alpha == 0 or bool(rng.random() < 0.5))
    alpha = how.cutmix_alpha if cut else how.mixup_alpha
    shares = rng.beta(alpha, alpha, len(inputs))
    before = inputs.roll(1, 0)
    if cut:
        boxes = _boxes(shares, inputs.shape[1], rng)
        inputs = torch.where(inside(boxes, inputs.shape[1], inputs.device), before, inputs)
        # A box may be cut off at the edge: what counts is the area that was pasted.
        shares = 1 - boxes.width * boxes.height / inputs.shape[1] ** 2
    own = torch.from_numpy(shares).float().to(inputs.device)
    if not cut:
        inputs = torch.lerp(before, inputs, own.view(-1, 1, 1, 1))
    targets = F.one_hot(labels, classes).float()
    return inputs, torch.lerp(targets.roll(1, 0), targets, own[:, None])


def batch_generator(seed: int, epoch: int, first: int) -> np.random.Generator:
    """The chance of the batch that begins with the image at a place."""
    return generator(seed, epoch, first, Draw.MIX)


def _boxes(shares: npt.NDArray[np.float64], side: int, rng: np.random.Generator) -> Boxes:
    """Squares that leave such shares of the area, their centres anywhere, as the paper's code draws them."""
    half = np.rint(side * np.sqrt(1 - shares) / 2).astype(np.int64)
    x, y = rng.integers(side, size=(2, len(shares)))
    left, top = np.clip(x - half, 0, side), np.clip(y - half, 0, side)
    width, height = np.clip(x + half, 0, side) - left, np.clip(y + half, 0, side) - top
    return Boxes(left=left, top=top, width=width, height=height, found=width * height > 0)
