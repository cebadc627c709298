"""Small tensors that never change, made once per device.

Copying one to a GPU in every step would wait for the device. A compiler makes them part of its graph instead.
"""

from functools import lru_cache

import torch
from torch import Tensor

from podium.topk._eager import is_traced


def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of these values, (len(values),); nobody may write to it."""
    if is_traced():
        return torch.tensor(values, dtype=dtype, device=device)
    return _cached(values, dtype, device)


@lru_cache(maxsize=256)
def _cached(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return outlasting(values, dtype, device)


def outlasting(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor that a later training step may use, even if it is first asked for under inference_mode."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
