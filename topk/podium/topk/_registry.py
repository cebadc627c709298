"""All families by the names they have in the API."""

from collections.abc import Mapping
from types import MappingProxyType

from podium.topk._bitonic import Bitonic
from podium.topk._df_top_k import DFTopK
from podium.topk._lap_sum import LapSum
from podium.topk._neural_sort import NeuralSort
from podium.topk._noised_hinge import ImbalancedNoisedHinge, NoisedHinge
from podium.topk._odd_even import OddEven
from podium.topk._optimal_transport import OptimalTransport
from podium.topk._sigmoid import Sigmoid
from podium.topk._sinkhorn_sort import SinkhornSort
from podium.topk._smooth_svm import SmoothSVM
from podium.topk._soft_sort import SoftSort
from podium.topk._softmax import Softmax
from podium.topk._sorter import Sorter, Surrogate
from podium.topk._sparse import Sparse
from podium.topk._splitter_selection import SplitterSelection
from podium.topk._subset import Subset

SORTERS: Mapping[str, type[Sorter]] = MappingProxyType(
    {
        "softmax": Softmax,
        "odd_even": OddEven,
        "bitonic": Bitonic,
        "splitter_selection": SplitterSelection,
        "neural_sort": NeuralSort,
        "soft_sort": SoftSort,
        "sinkhorn_sort": SinkhornSort,
        "subset": Subset,
        "optimal_transport": OptimalTransport,
        "sigmoid": Sigmoid,
        "lap_sum": LapSum,
        "sparse": Sparse,
        "df_top_k": DFTopK,
    }
)
"""Every sorter; all hyper-parameters have defaults, so `SORTERS[name]()` works."""

BASELINES: Mapping[str, type[Surrogate]] = MappingProxyType(
    {
        "smooth_svm": SmoothSVM,
        "noised_hinge": NoisedHinge,
        "imbalanced_noised_hinge": ImbalancedNoisedHinge,
    }
)
"""Losses of others that are no cross entropy of a sorter; they stand where a sorter stands."""
