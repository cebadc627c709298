"""Optimal-transport top-k: how much of a class an entropic transport plan carries to the anchor of the top.

Xie, Dai, Chen, Dai, Zhao, Zha, Wei and Pfister, "Differentiable Top-k with Optimal Transport", NeurIPS 2020 (arXiv
2002.06504): sources x_i of mass 1/m, targets 1 and 0 of mass k/m and (m - k)/m, cost (x_i - y_j)^2, entropy epsilon.
The plan's share at target 1 is sigmoid((x_i - t) / (epsilon / 2)) with all shares summing to k, which needs no
Sinkhorn. The published code divides the cost by its maximum over the batch, which makes one sample's answer depend on
the others and its temperature drift; here the cost is what it is.
"""

from dataclasses import dataclass
from typing import ClassVar

from podium.topk._card import Card, parameter
from podium.topk._sigmoid import LogisticThreshold


@dataclass(frozen=True, kw_only=True)
class OptimalTransport(LogisticThreshold):
    """SOFT top-k (Xie et al. 2020), solved by its threshold."""

    card: ClassVar[Card] = Card(
        summary="Entropic optimal transport of the scores to two anchors, the top k and the rest.",
        citation="Xie, Dai, Chen, Dai, Zhao, Zha, Wei, Pfister: Differentiable Top-k with Optimal Transport, NeurIPS "
        "2020",
        cost="O(m), times seven Newton steps for each k.",
        caveats=("The same operator as sigmoid with temperature = regularization / 2.",),
    )

    regularization: float = parameter(
        2.0,
        "The entropic regularization epsilon: twice the softness in units of the scores.",
        at_least=1e-6,
        at_most=1e6,
    )

    @property
    def scale(self) -> float:
        """Return half the regularization."""
        return self.regularization / 2
