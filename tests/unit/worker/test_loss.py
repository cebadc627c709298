"""From what a spec says to the loss that trains."""

import dataclasses
import math
from enum import Enum
from typing import get_args

import pytest
import torch

from podium.jobs.spec import (
    Distribution,
    ImbalancedNoisedHinge,
    NeuralSort,
    OddEven,
    SinkhornSort,
    SmoothSVM,
    Softmax,
    Sorter,
    Sparse,
    Subset,
)
from podium.worker.fit.loss import criterion

EVERY_SORTER: list[Sorter] = [
    *(family() for family in get_args(Sorter)),
    *(OddEven(distribution=law, steepness=3.0, art_lambda=0.25) for law in Distribution),
    NeuralSort(temperature=3.0),
    SinkhornSort(regularization=0.2, iterations=20),
    Subset(temperature=0.5),
    Sparse(p=2.0, regularization=4.0),
    SmoothSVM(margin=0.5, temperature=0.5),
    ImbalancedNoisedHinge(noise=0.1, draws=3, max_margin=0.5, loss_scale=1.0),
]


@pytest.mark.parametrize("sorter", EVERY_SORTER, ids=repr)
def test_every_sorter_of_the_spec_is_a_loss_with_its_parameters(job, images, sorter):
    k = {1: 1.0} if isinstance(sorter, Softmax) else {1: 0.5, 2: 0.5}
    loss = criterion(job(images("train"), sorter=sorter, k=k).spec, (6, 6, 6))
    scores = torch.linspace(-0.1, 0.1, 12).view(4, 3).to(torch.bfloat16).requires_grad_()

    value = loss(scores, torch.tensor([0, 1, 2, 0]))
    value.backward()

    assert value.dtype is torch.float32
    assert value.isfinite()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad.any()
    assert type(sorter).__name__ == type(loss.sorter).__name__
    for field in dataclasses.fields(sorter):
        asked, given = getattr(sorter, field.name), getattr(loss.sorter, field.name)
        assert (asked.name == given.name) if isinstance(asked, Enum) else (asked == given)


def test_rarer_classes_get_the_larger_margins_of_the_imbalanced_hinge(job, images):
    spec = job(images("train"), sorter=ImbalancedNoisedHinge(noise=1e-6), k={1: 1.0}).spec
    scores = torch.zeros(1, 3)

    of_rare, of_common = (criterion(spec, (81, 1, 81))(scores, torch.tensor([label])).item() for label in (1, 0))

    assert of_rare == pytest.approx(60 * 0.2, rel=1e-3)
    assert of_common == pytest.approx(60 * 0.2 / 3, rel=1e-3)  # 81 ** (1 / 4)


def test_a_class_that_lost_its_images_counts_as_one_image(job, images):
    spec = job(images("train"), sorter=ImbalancedNoisedHinge(), k={1: 1.0}).spec

    assert criterion(spec, (5, 0, 5))(torch.zeros(3, 3), torch.tensor([0, 1, 2])).isfinite()


def test_scores_that_are_not_finite_make_the_loss_nan_and_no_error_as_on_a_gpu(job, images):
    loss = criterion(job(images("train")).spec, (6, 6, 6))

    for wrong in (math.nan, math.inf):
        assert loss(torch.tensor([[0.0, wrong, 1.0]]), torch.tensor([0])).isnan()


def test_top1_apart_is_cross_entropy_and_the_rest_of_the_k_distribution_each_with_its_weight(job, images):
    parts = {"m": 6, "sorter": OddEven(), "k": {1: 0.25, 2: 0.25, 3: 0.5}}
    apart = criterion(job(images("train"), top1_apart=True, **parts).spec, (6,) * 6)
    rest = criterion(job(images("train2"), **parts | {"k": {2: 1 / 3, 3: 2 / 3}}).spec, (6,) * 6)
    scores = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(8) % 6

    expected = 0.25 * torch.nn.functional.cross_entropy(scores, labels) + 0.75 * rest(scores, labels)

    assert torch.allclose(apart(scores, labels), expected)
    (ours,) = torch.autograd.grad(apart(scores, labels), scores)
    (theirs,) = torch.autograd.grad(expected, scores)
    assert torch.allclose(ours, theirs)
