"""What is compared: cross entropy, torch.topk, every loss of podium.topk, and what the paper's package has against it.

difftopk 0.2.0 (https://github.com/Felix-Petersen/difftopk) belongs to the paper. It is used as its README shows, with
`top1_mode="sm"`, which is also what our loss does for rank one, and with the hyper-parameters that are our defaults.
"""

import contextlib
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from podium.topk import BASELINES, SORTERS, TopKCrossEntropy

P_K = {1: 0.5, 5: 0.5}
CROSS_ENTROPY = "cross_entropy"
TORCH_TOPK = "torch.topk"

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A batch of logits, (batch, n), of which m are sorted; None sorts all."""

    batch: int
    n: int
    m: int | None

    def __str__(self) -> str:
        return f"batch {self.batch}, n {self.n}, " + (f"m {self.m}" if self.m else "no truncation")

    @property
    def selected(self) -> int:
        """How many scores must be selected at least: m, or the largest k where nothing is truncated."""
        return self.m or max(P_K)

    def data(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return logits as a trained classifier gives them (two in five right) and labels."""
        generator = torch.Generator().manual_seed(0)
        logits = 3 * torch.randn(self.batch, self.n, generator=generator)
        labels = torch.randint(self.n, (self.batch,), generator=generator)
        logits[torch.arange(self.batch), labels] += 9
        return logits.to(device).requires_grad_(), labels.to(device)


SIZES = (
    Size(batch=500, n=1000, m=16),  # the paper's ImageNet-1K
    Size(batch=500, n=10450, m=50),  # the paper's ImageNet-21K-P
    Size(batch=128, n=100, m=None),  # the paper's CIFAR-100
    Size(batch=16, n=1000, m=None),
)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row: its name, how it is built, and for a rival the name of our row that it competes with."""

    name: str
    build: Callable[[Size, torch.device], Loss]
    against: str | None = None


class Unavailable(Exception):
    """This contender cannot run here; the message says why."""


def contenders() -> dict[str, Contender]:
    """Return every row by its name, each of ours followed by its rivals."""
    rows = [
        Contender(name=CROSS_ENTROPY, build=lambda size, device: nn.functional.cross_entropy),
        Contender(name=TORCH_TOPK, build=lambda size, device: partial(_topk, size.selected)),
    ]
    for name in [*SORTERS, *BASELINES]:
        rows.append(Contender(name=name, build=partial(_ours, name)))
        if name == "smooth_svm":
            # The rivals know one k and sort all scores; so ours is asked for the same.
            name = _SMOOTH_SVM
            rows.append(Contender(name=name, build=_smooth_svm))
        rows += [
            Contender(name=f"difftopk {method}", build=partial(build, method), against=name)
            for method, build in _RIVALS.get(name, {}).items()
        ]
    return {row.name: row for row in rows}


def _topk(k: int, logits: Tensor, labels: Tensor) -> Tensor:
    return logits.detach().topk(k).values


def _ours(name: str, size: Size, device: torch.device) -> Loss:
    k = {1: 1.0} if name == "softmax" else P_K
    family = SORTERS[name] if name in SORTERS else BASELINES[name]
    return TopKCrossEntropy(k=k, sorter=family(), m=size.m).to(device)


def _smooth_svm(size: Size, device: torch.device) -> Loss:
    return TopKCrossEntropy(k={max(P_K): 1.0}, sorter=BASELINES["smooth_svm"](), m=None).to(device)


def _difftopk() -> Any:
    # It prints when torch-sparse is missing, and the depth of each network.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return importlib.import_module("difftopk")
        except (ImportError, OSError) as error:
            raise Unavailable(f"difftopk is missing ({error})") from error


def _published(inverse_temperature: float, method: str, size: Size, device: torch.device) -> Loss:
    difftopk = _difftopk()
    if method in ("bitonic", "splitter_selection") and not difftopk.functional.SPARSE_INSTALLED:
        raise Unavailable("needs torch-sparse")
    with contextlib.redirect_stdout(io.StringIO()):
        loss: Loss = difftopk.TopKCrossEntropyLoss(
            method,
            inverse_temperature=inverse_temperature,
            p_k=[P_K.get(k, 0.0) for k in range(1, max(P_K) + 1)],
            n=size.n,
            m=size.m,
            distribution="cauchy",
            art_lambda=None,
            device=device.type,
            top1_mode="sm",
        )
    return loss


def _smooth(method: str, size: Size, device: torch.device) -> Loss:
    loss: Loss = getattr(_difftopk(), method)(num_classes=size.n, k=max(P_K), tau=1, device=device.type)
    return loss


_SMOOTH_SVM = f"smooth_svm, k {max(P_K)}, all n"
_network = partial(_published, 2.0)
_rows = partial(_published, 1.0)
_RIVALS: dict[str, dict[str, Callable[[str, Size, torch.device], Loss]]] = {
    "odd_even": {"odd_even": _network},
    "bitonic": {"bitonic": _network, "bitonic__non_sparse": _network},
    "splitter_selection": {"splitter_selection": _network},
    "neural_sort": {"neuralsort": _rows},
    "soft_sort": {"softsort": _rows},
    _SMOOTH_SVM: {"SmoothTopKLoss": _smooth, "SmoothHardTopKLoss": _smooth},
}
