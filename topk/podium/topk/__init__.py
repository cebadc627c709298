"""Differentiable top-k classification: sorters, the top-k cross entropy and top-k metrics. Pure torch.

Petersen, Kuehne, Borgelt and Deussen, "Differentiable Top-k Classification Learning", ICML 2022 (arXiv 2206.07290).
"""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError('podium.topk needs torch; pip install "podium[topk]"', name="torch")

from podium.topk._baseline import Baseline
from podium.topk._bitonic import Bitonic
from podium.topk._card import Card, Parameter, parameters
from podium.topk._checks import NonFiniteLogitsError
from podium.topk._df_top_k import DFTopK
from podium.topk._distributions import Distribution
from podium.topk._k_distribution import KDistribution
from podium.topk._lap_sum import LapSum
from podium.topk._loss import TopKCrossEntropy, topk_cross_entropy
from podium.topk._network import SortingNetwork
from podium.topk._neural_sort import NeuralSort
from podium.topk._noised_hinge import ImbalancedNoisedHinge, NoisedHinge
from podium.topk._odd_even import OddEven
from podium.topk._optimal_transport import OptimalTransport
from podium.topk._registry import BASELINES, SORTERS
from podium.topk._sigmoid import Sigmoid
from podium.topk._sinkhorn_sort import SinkhornSort
from podium.topk._smooth_svm import SmoothSVM
from podium.topk._soft_sort import SoftSort
from podium.topk._softmax import Softmax
from podium.topk._sorter import ClosedFormSorter, Sorter, Surrogate, Terms
from podium.topk._sparse import Sparse
from podium.topk._splitter_selection import SplitterSelection
from podium.topk._subset import Subset
from podium.topk.metrics import TopKCounts, expected_topk_accuracy, topk_accuracy

__all__ = [
    "BASELINES",
    "SORTERS",
    "Baseline",
    "Bitonic",
    "Card",
    "ClosedFormSorter",
    "DFTopK",
    "Distribution",
    "ImbalancedNoisedHinge",
    "KDistribution",
    "LapSum",
    "NeuralSort",
    "NoisedHinge",
    "NonFiniteLogitsError",
    "OddEven",
    "OptimalTransport",
    "Parameter",
    "Sigmoid",
    "SinkhornSort",
    "SmoothSVM",
    "SoftSort",
    "Softmax",
    "Sorter",
    "SortingNetwork",
    "Sparse",
    "SplitterSelection",
    "Subset",
    "Surrogate",
    "Terms",
    "TopKCounts",
    "TopKCrossEntropy",
    "expected_topk_accuracy",
    "parameters",
    "topk_accuracy",
    "topk_cross_entropy",
]
