"""What a top-k loss adds to a step of a ResNet-18 at 224 px, batch 64, 1000 classes, over cross-entropy's step."""

import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rows import Row, turns
from podium.topk import OddEven, TopKCrossEntropy

_BATCH, _SIDE, _CLASSES, _CALLS = 64, 224, 1000, 20


def rows(device: torch.device, count: int) -> list[Row]:
    """The share, from the medians of so many turns."""
    loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=OddEven(), m=16)
    model = torchvision.models.resnet18(num_classes=_CLASSES).to(device)
    images = torch.randn(_BATCH, 3, _SIDE, _SIDE, device=device)
    labels = torch.arange(_BATCH, device=device) % _CLASSES
    logits = torch.randn(_BATCH, _CLASSES, device=device, requires_grad=True)

    def alone(objective: Callable[[Tensor, Tensor], Tensor]) -> float:
        return _timed(lambda: torch.autograd.grad(objective(logits, labels), logits), device, _CALLS)

    def step() -> float:
        return _timed(lambda: torch.autograd.backward(F.cross_entropy(model(images), labels)), device, 1)

    ours, theirs, whole = turns(count, lambda: alone(loss), lambda: alone(F.cross_entropy), step)
    extra = statistics.median(ours) - statistics.median(theirs)
    total = statistics.median(whole)
    return [
        Row(
            what=f"step of resnet18, {_SIDE} px, batch {_BATCH}, odd-even m 16 over cross-entropy's",
            ours=f"loss {statistics.median(ours) * 1e3:.2f} ms",
            peer=f"loss {statistics.median(theirs) * 1e3:.2f} ms of a step of {total * 1e3:.0f} ms",
            ratio=1 + extra / total,
            bar="<= 1.01",
        )
    ]


def _timed(call: Callable[[], object], device: torch.device, calls: int) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls
