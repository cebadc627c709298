"""The reference loss in its own vocabulary; the numbers themselves are in tests/agreement."""

import math
from typing import Any

import pytest
import torch

from podium.topk.compat import reference_loss

_P_K = [0.5, 0, 0, 0, 0.5]
# Recorded from difftopk 0.2.0: sm, smce, sort for X[i,j] = 2 sin(1+j+3i) + cos(i j), i < 4, j < 20, m = 8.
_RECORDED = [
    ("neuralsort", 0.5, None, (3.150744, 4.068498, 4.330411)),
    ("softsort", 0.5, None, (1.688315, 2.761333, 1.629315)),
    ("odd_even", 1.0, "logistic_phi", (2.073080, 2.993075, 2.208896)),
    ("bitonic", 1.0, "logistic_phi", (1.117207, 2.467106, 1.019858)),
    ("splitter_selection", 1.0, "logistic_phi", (1.512332, 2.672530, 1.502900)),
    ("splitter_selection", 0.5, "logistic", (1.426463, 2.630096, 1.388042)),
    ("splitter_selection", 2.0, "cauchy", (1.948553, 2.896957, 1.967379)),
]


def _loss(**choices: Any) -> torch.Tensor:
    i, j = torch.arange(4.0).unsqueeze(1), torch.arange(20.0)
    arguments = {
        "sorter": "odd_even",
        "p_k": _P_K,
        "m": 8,
        "top1_mode": "sm",
        "inverse_temperature": 1.0,
        "distribution": "cauchy",
        "art_lambda": 0.5,
        **choices,
    }
    logits = 2 * torch.sin(1 + j + 3 * i) + torch.cos(i * j)
    return reference_loss(logits, torch.tensor([0, 5, 11, 19]), **arguments)


@pytest.mark.parametrize(("sorter", "inverse_temperature", "distribution", "expected"), _RECORDED)
def test_recorded_losses(
    sorter: str, inverse_temperature: float, distribution: str | None, expected: tuple[float, ...]
):
    losses = [
        _loss(sorter=sorter, inverse_temperature=inverse_temperature, distribution=distribution, top1_mode=mode).item()
        for mode in ("sm", "smce", "sort")
    ]

    assert pytest.approx(expected, rel=2e-5) == losses


def test_the_loss_of_a_hopeless_sample_is_capped_as_in_the_package():
    loss = reference_loss(
        torch.tensor([[-1e4, *range(20)]]),
        torch.tensor([0]),
        sorter="softsort",
        p_k=_P_K,
        m=8,
        top1_mode="sm",
        inverse_temperature=1.0,
    )

    assert pytest.approx(-math.log(1e-7), rel=1e-6) == loss.item()


def test_class_mass_may_exceed_one_as_in_the_package():
    scores = 2 * torch.sin(1 + torch.arange(8.0)).unsqueeze(0)

    loss = reference_loss(
        scores,
        torch.tensor([0]),
        sorter="neuralsort",
        p_k=[0, 0, 0, 0, 1],
        m=None,
        top1_mode="sort",
        inverse_temperature=0.5,
    )

    assert pytest.approx(-math.log(1.1236), abs=1e-4) == loss.item()


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"sorter": "sinkhorn"}, "choose one of odd_even, bitonic, splitter_selection, neuralsort, softsort"),
        ({"top1_mode": "softmax"}, "choose one of sm, smce, sort"),
        ({"m": 21}, "at most 20, the number of classes"),
        ({"m": 5}, "above len"),
        ({"distribution": None}, "odd_even needs a distribution"),
        ({"distribution": "laplace"}, "laplace"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(choices: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        _loss(**choices)
