"""The top-k hinge, smoothed by noise.

Garcin, Servajean, Joly and Salmon, "Stochastic Smoothing of the Top-K Calibrated Hinge Loss for Deep Imbalanced
Classification", ICML 2022 (arXiv 2202.02193): relu(1 + E_Z[(x + epsilon Z)_[k+1]] - x_y) with Z standard normal. The
derivative of the expectation is how often each score is the (k+1)-th, counted over the same draws.

Shape legend: `...` any leading dimensions, m kept scores, S draws, K values of k.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from podium.topk._baseline import Baseline
from podium.topk._card import Card, parameter
from podium.topk._constants import constant
from podium.topk._selection import Ranked

_CITATION = (
    "Garcin, Servajean, Joly, Salmon: Stochastic Smoothing of the Top-K Calibrated Hinge Loss for Deep Imbalanced "
    "Classification, ICML 2022"
)
_CAVEAT = "Random: it draws noise in every call, from torch's generator."


class _Hinge(Baseline):
    """A hinge at a noised order statistic."""

    noise: float
    draws: int

    @abstractmethod
    def margins(self, ranked: Ranked) -> tuple[Tensor | float, float]:
        """Return each sample's margin, (...), and the scale of the loss."""

    def losses_by_k(self, ranked: Ranked, ks: tuple[int, ...], *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return scale relu(margin + E (x + epsilon Z)_[k+1] - x_y); see `Baseline.losses_by_k`."""
        scores = ranked.scores
        margin, scale = self.margins(ranked)
        noise = torch.randn(self.draws, *scores.shape, dtype=scores.dtype, device=scores.device)
        m = scores.shape[-1]
        top = (scores + self.noise * noise).topk(min(ks[-1] + 1, m), dim=-1)
        losses, slopes = [], []
        for k in ks:
            if k == m:
                # The top m of m scores hold the label for certain.
                losses.append(torch.zeros_like(scores[..., 0]))
                slopes.append(torch.zeros_like(scores))
                continue
            excess = margin + top.values[..., k].mean(0) - scores[..., 0]
            losses.append(scale * excess.clamp(min=0))
            if gradient:
                often = torch.zeros_like(scores).scatter_add(
                    -1,
                    top.indices[..., k].movedim(0, -1),
                    torch.full_like(noise[..., 0], 1 / self.draws).movedim(0, -1),
                )
                often[..., 0] -= 1
                slopes.append(scale * often * (excess > 0).unsqueeze(-1))
        return torch.stack(losses, dim=-1), torch.stack(slopes, dim=-2) if gradient else None


@dataclass(frozen=True, kw_only=True)
class NoisedHinge(_Hinge):
    """The balanced noised top-k hinge."""

    card: ClassVar[Card] = Card(
        summary="The top-k hinge loss, its order statistic smoothed by Gaussian noise.",
        citation=_CITATION,
        cost="O(draws m log m).",
        caveats=(_CAVEAT,),
    )

    noise: float = parameter(1.0, "The standard deviation of the noise, epsilon.", above=0, at_most=1e6)
    draws: int = parameter(5, "How many draws are averaged.", at_least=1, at_most=1000)

    def margins(self, ranked: Ranked) -> tuple[Tensor | float, float]:
        """Return a margin of 1."""
        return 1.0, 1.0


@dataclass(frozen=True, kw_only=True)
class ImbalancedNoisedHinge(_Hinge):
    """The noised top-k hinge with larger margins for rarer classes; without `class_counts` all margins are the same."""

    card: ClassVar[Card] = Card(
        summary="The noised top-k hinge for imbalanced data: the rarer the class, the larger its margin.",
        citation=_CITATION,
        cost="O(draws m log m).",
        caveats=(_CAVEAT, "Meant for normalised features and a normalised last layer, whose scores lie in [-1, 1]."),
    )

    noise: float = parameter(0.01, "The standard deviation of the noise, epsilon.", above=0, at_most=1e6)
    draws: int = parameter(5, "How many draws are averaged.", at_least=1, at_most=1000)
    max_margin: float = parameter(0.2, "The margin of the rarest class.", above=0, at_most=1e6)
    loss_scale: float = parameter(60.0, "What the hinge is multiplied by.", above=0, at_most=1e6)
    class_counts: tuple[int, ...] = ()
    """Training samples of every class, in the order of the classes, each at least 1."""

    def __post_init__(self) -> None:
        """Check the hyper-parameters and the counts."""
        super().__post_init__()
        if any(count < 1 for count in self.class_counts):
            raise ValueError("class_counts holds a count below 1; count an absent class as 1.")

    def sample_losses(
        self, logits: Tensor, labels: Tensor, *, m: int, ks: tuple[float, ...], weights: Tensor
    ) -> Tensor:
        """Check that there is a count for every class; see `Baseline.sample_losses`."""
        if self.class_counts and len(self.class_counts) != logits.shape[-1]:
            raise ValueError(
                f"class_counts has {len(self.class_counts)} counts for {logits.shape[-1]} classes; give one a class."
            )
        return super().sample_losses(logits, labels, m=m, ks=ks, weights=weights)

    def margins(self, ranked: Ranked) -> tuple[Tensor | float, float]:
        """Return max_margin (smallest count / count)^(1/4)."""
        if not self.class_counts:
            return self.max_margin, self.loss_scale
        scores = ranked.scores
        margins = constant(self._margins, scores.dtype, scores.device)
        return margins[ranked.classes[..., 0]], self.loss_scale

    @property
    def _margins(self) -> tuple[float, ...]:
        rarest = min(self.class_counts)
        return tuple(self.max_margin * (rarest / count) ** 0.25 for count in self.class_counts)
