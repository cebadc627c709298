"""What every learner promises the loop, beyond the images."""

import torch
from torch import nn

from podium.jobs.datasets import index
from podium.jobs.spec import Preprocessing
from podium.worker.fit.data import IndexedImages, Split
from podium.worker.fit.learners import FullLearner, Standardizer

CPU = torch.device("cpu")


def test_frozen_parts_stay_in_evaluation_mode_while_the_rest_trains(images):
    source = IndexedImages(index(images("train")))
    split = Split(images=source, positions=torch.arange(24), labels=torch.zeros(24, dtype=torch.int64), classes=1)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    learner = FullLearner(
        model,
        {"train": split},
        Preprocessing(image_size=32),
        None,
        seed=0,
        threads=1,
        device=CPU,
        frozen=[model[0]],
    )

    learner.train()

    assert (model.training, model[0].training, model[1].training) == (True, False, True)


def test_scaling_features_takes_no_memory_beyond_theirs():
    features = 100 + torch.randn(40_000, 16, generator=torch.Generator().manual_seed(0))

    with torch.profiler.profile(profile_memory=True) as profile:
        scaled = Standardizer.of(features, True)(features)

    assert torch.allclose(scaled.mean(0), torch.zeros(16), atol=1e-4)
    assert torch.allclose(scaled.std(0), torch.ones(16), atol=1e-3)
    # The scaled features, and nothing else of their size.
    large = [event for event in profile.events() or () if event.cpu_memory_usage > features.nbytes / 2]
    assert features.nbytes == max(event.cpu_memory_usage for event in large)
