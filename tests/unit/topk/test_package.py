"""What the package publishes."""

from pathlib import Path

import pytest

import podium.topk
from podium.topk import BASELINES, SORTERS, Sorter


def test_everything_published_exists():
    assert [] == [name for name in podium.topk.__all__ if not hasattr(podium.topk, name)]


def test_sorters_are_known_by_their_api_names():
    expected = {"softmax", "odd_even", "bitonic", "splitter_selection", "neural_sort", "soft_sort", "sinkhorn_sort"}
    expected |= {"subset", "optimal_transport", "sigmoid", "lap_sum", "sparse", "df_top_k"}

    assert expected == set(SORTERS)
    assert {"smooth_svm", "noised_hinge", "imbalanced_noised_hinge"} == set(BASELINES)


@pytest.mark.parametrize("family", SORTERS.values(), ids=SORTERS)
def test_every_family_has_defaults_and_shows_its_name(family: type[Sorter]):
    assert repr(family()).startswith(family.__name__)


def test_the_namespace_has_no_init_file():
    assert not (Path(podium.topk.__file__).parent.parent / "__init__.py").exists()
