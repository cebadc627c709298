"""All sorters by the names they have in the API."""

from collections.abc import Mapping
from types import MappingProxyType

from podium.topk._bitonic import Bitonic
from podium.topk._neural_sort import NeuralSort
from podium.topk._odd_even import OddEven
from podium.topk._soft_sort import SoftSort
from podium.topk._softmax import Softmax
from podium.topk._sorter import Sorter
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
        "subset": Subset,
    }
)
"""Every family; all hyper-parameters have defaults, so `SORTERS[name]()` works."""
