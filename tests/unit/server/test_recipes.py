"""The recipes and examples, as the server sees them."""

from pathlib import Path

import pytest

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.client import load_spec
from podium.jobs import wire
from podium.jobs.catalogue import find_backbone
from podium.server.admission._checks import check_arithmetic, check_backbone, check_classes, check_monitors
from podium.server.admission._findings import Findings
from podium.server.admission.rules import violations

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
CLASSES = {"cifar100": 100, "imagenet1k": 1000, "imagenet21kp": 10_450, "grocery": 81, "full": 102, "two": 1000}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_recipe_breaks_no_rule_and_names_what_exists(file):
    spec = load_spec(file)
    message = wire.to_proto(spec)
    findings = Findings()

    assert violations(CreateJobRequest(spec=message)) == ()
    check_arithmetic(message, findings)
    check_monitors(message, findings)
    check_backbone(message, findings)
    check_classes(message, CLASSES[file.stem.partition("-")[0]], findings)
    findings.conclude()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_recipe_says_how_it_is_submitted(file):
    assert f"podium submit {file.relative_to(ROOT)} --follow" in file.read_text()


def test_the_papers_settings_are_those_of_the_paper():
    cifar = load_spec(ROOT / "examples/recipes/cifar100-scratch.yaml")
    imagenet = load_spec(ROOT / "examples/recipes/imagenet1k-head.yaml")
    large = load_spec(ROOT / "examples/recipes/imagenet21kp-head.yaml")

    assert (cifar.epochs, cifar.batch_size, cifar.optimizer.learning_rate, cifar.m) == (200, 128, 1e-3, 100)
    assert (imagenet.epochs, imagenet.batch_size, imagenet.m) == (20, 500, 16)
    assert imagenet.optimizer.learning_rate == pytest.approx(10**-4.5)
    assert (large.epochs, large.batch_size, large.m, large.optimizer.learning_rate) == (40, 500, 50, 1e-4)
    # Images held out, of how many there are.
    assert [2_500, 50_000, 100_000] == [
        pytest.approx(spec.dataset.val_fraction * images, abs=10)
        for spec, images in ((cifar, 50_000), (imagenet, 1_281_167), (large, 11_060_239))
    ]
    card = find_backbone(imagenet.backbone)
    assert card is not None
    assert imagenet.weights is not None
    assert card.tags[imagenet.weights.tag or ""].image_size == 800
