"""Differentiable top-k classification: sorters, the top-k cross entropy and top-k metrics. Pure torch.

Petersen, Kuehne, Borgelt and Deussen, "Differentiable Top-k Classification Learning", ICML 2022 (arXiv 2206.07290).
"""

from podium.topk._bitonic import Bitonic
from podium.topk._distributions import Distribution
from podium.topk._k_distribution import KDistribution
from podium.topk._loss import TopKCrossEntropy, topk_cross_entropy
from podium.topk._network import SortingNetwork
from podium.topk._neural_sort import NeuralSort
from podium.topk._odd_even import OddEven
from podium.topk._registry import SORTERS
from podium.topk._soft_sort import SoftSort
from podium.topk._softmax import Softmax
from podium.topk._sorter import LogDomainSorter, Sorter
from podium.topk._splitter_selection import SplitterSelection
from podium.topk._subset import Subset
from podium.topk.metrics import TopKCounts, expected_topk_accuracy, topk_accuracy

__all__ = [
    "SORTERS",
    "Bitonic",
    "Distribution",
    "KDistribution",
    "LogDomainSorter",
    "NeuralSort",
    "OddEven",
    "SoftSort",
    "Softmax",
    "Sorter",
    "SortingNetwork",
    "SplitterSelection",
    "Subset",
    "TopKCounts",
    "TopKCrossEntropy",
    "expected_topk_accuracy",
    "topk_accuracy",
    "topk_cross_entropy",
]
