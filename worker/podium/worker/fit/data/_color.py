"""Brightness, contrast and saturation of a batch, by a factor for each image, as torchvision defines them.

Sums of floats would depend on how a batch is laid out in memory; here whole numbers are summed.

Shape legend: B images a batch, S side of the square.
"""

import torch
from torch import Tensor


def brightened(pixels: Tensor, factors: Tensor) -> Tensor:
    """Pixels, (B, S, S, 3) uint8, with so many times the brightness, (B,)."""
    return _blended(pixels, torch.zeros((), device=pixels.device), factors)


def contrasted(pixels: Tensor, factors: Tensor) -> Tensor:
    """Pixels, (B, S, S, 3) uint8, with so many times the contrast, (B,)."""
    gray = _gray(pixels).long()
    mean = gray.sum((1, 2, 3), keepdim=True).double() / gray[0].numel()
    return _blended(pixels, mean.float(), factors)


def saturated(pixels: Tensor, factors: Tensor) -> Tensor:
    """Pixels, (B, S, S, 3) uint8, with so many times the colour, (B,)."""
    return _blended(pixels, _gray(pixels), factors)


def _gray(pixels: Tensor) -> Tensor:
    """(B, S, S, 1), whole numbers."""
    red, green, blue = (pixels[..., channel].float() for channel in range(3))
    # Product after product and sum after sum: a fused operation would round otherwise in some places of a batch.
    gray: Tensor = red * 0.2989 + green * 0.587 + blue * 0.114
    return gray.floor_()[..., None]


def _blended(pixels: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    share = factors.view(-1, 1, 1, 1)
    return (pixels.float() * share + other * (1 - share)).clamp_(0, 255).to(torch.uint8)
