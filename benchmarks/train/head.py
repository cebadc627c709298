"""An epoch of a head on cached features against one that runs the backbone, an EfficientNet-Lite0 at 224 px."""

import statistics
import time
from pathlib import Path

import timm
import torch
from torch import nn

from benchmarks.train.rows import Row, ratios, turns
from podium.topk import OddEven, TopKCrossEntropy

_IMAGES, _BATCH, _SIDE, _CLASSES = 2560, 128, 224, 81
_SHOWN = 64
"""Images that the backbone is run on; an epoch of all of them would only repeat it."""


def rows(_folder: Path, count: int) -> list[Row]:
    """Epochs a second, medians of so many turns."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(device)
    images = torch.randn(_SHOWN, 3, _SIDE, _SIDE, device=device)
    features = torch.randn(_IMAGES, backbone.num_features, device=device)
    labels = torch.randint(0, _CLASSES, (_IMAGES,), device=device)
    head = nn.Linear(backbone.num_features, _CLASSES, device=device)
    optimizer = torch.optim.AdamW(head.parameters())
    loss = TopKCrossEntropy(k={1: 0.5, 5: 0.5}, sorter=OddEven(), m=16)

    def epoch() -> float:
        start = time.perf_counter()
        for batch in torch.randperm(_IMAGES, device=device).split(_BATCH):
            loss(head(features[batch]), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
        _wait(device)
        return 1 / (time.perf_counter() - start)

    def backbone_epoch() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            backbone(images)
        _wait(device)
        # And the head's own share on top.
        return 1 / ((time.perf_counter() - start) * _IMAGES / _SHOWN + 1 / epoch())

    ours, peers = turns(count, epoch, backbone_epoch)
    ratio, spread = ratios(ours, peers)
    return [
        Row(
            what=f"head of {_CLASSES} classes, {_IMAGES} images: cached features against the backbone in each epoch, epochs/s",
            ours=f"{statistics.median(ours):.2f}",
            peer=f"{statistics.median(peers):.4f}",
            ratio=ratio,
            bar=">= 100",
            spread=spread,
        )
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
