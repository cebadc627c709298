"""Features of images that cannot be read, and of ranks that share the work."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch

from podium.jobs.datasets import DatasetError, index
from podium.jobs.job import Cause
from podium.jobs.spec import Interpolation, Precision, Preprocessing, Resize, Unreadable
from podium.worker.fit import backbones
from podium.worker.fit._failures import FitError
from podium.worker.fit.data import IndexedImages, Split
from podium.worker.fit.features import Extractor, Recipe, unread
from podium.worker.fit.learners import HeadLearner
from podium.worker.fit.local import LocalContext

CPU = torch.device("cpu")
HOW = Preprocessing(image_size=32, resize=Resize.SQUASH, interpolation=Interpolation.BILINEAR)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    net: torch.nn.Module = timm.create_model("test_resnet", num_classes=2)
    return net


def extractor(model, root, unreadable=Unreadable.FAIL, **ranks) -> Extractor:
    recipe = Recipe(
        backbone=backbones.resolve("timm/test_resnet"),
        weights="w",
        preprocessing=HOW,
        precision=Precision.FP32,
        device="cpu",
    )
    context = LocalContext(root)
    return Extractor(model, "fc", recipe, device=CPU, threads=2, context=context, unreadable=unreadable, **ranks)


def opened(path: str) -> IndexedImages:
    return IndexedImages(index(path))


def spoiled(path: str, name: str = "class0/3.png") -> IndexedImages:
    (Path(path) / name).write_bytes(b"no image")
    return opened(path)


def head(source: IndexedImages, features: torch.Tensor) -> HeadLearner:
    labels = (torch.arange(len(source)) >= 100).long()
    split = Split(images=source, positions=torch.arange(len(source)), labels=labels, classes=2)
    return HeadLearner({}, "fc", {"train": split}, {"train": features}, standardize=True, classes=2, device=CPU)


def test_an_image_that_cannot_be_read_is_left_out_of_a_heads_split_and_named(images, model, tmp_path):
    source = spoiled(images("train", classes=2, each=100))
    place = [source.name(n) for n in range(200)].index("class0/3.png")

    (features,) = extractor(model, tmp_path / "run", Unreadable.SKIP).features([source])
    learner = head(source, features)

    assert [place] == unread(features).nonzero().flatten().tolist()
    assert 199 == len(learner.splits["train"])
    assert {"train": ("class0/3.png",)} == learner.unreadable()
    (batch,) = learner.training(0, [torch.arange(199)])
    assert batch.inputs.isfinite().all()
    assert [99, 100] == torch.bincount(batch.targets).tolist()


def test_the_last_chunk_may_have_nothing_that_can_be_read(images, model, tmp_path):
    path = images("train", classes=3, each=171, side=8)
    source = spoiled(path, opened(path).name(512))

    (features,) = extractor(model, tmp_path / "run", Unreadable.SKIP).features([source])

    assert [512] == unread(features).nonzero().flatten().tolist()


def test_too_many_unreadable_images_end_a_heads_job_though_their_features_were_kept(images, model, tmp_path):
    source = opened(images("train", classes=2, each=100))
    (features,) = extractor(model, tmp_path / "run").features([source])
    features[:3] = torch.nan

    with pytest.raises(FitError, match="3 of 200 images cannot be read"):
        head(source, features)


def test_kept_features_of_an_unreadable_image_still_end_a_job_that_will_not_skip_it(images, model, tmp_path):
    source = spoiled(images("train", classes=2, each=100))
    extractor(model, tmp_path / "run", Unreadable.SKIP).features([source])

    with pytest.raises(DatasetError, match=r"class0/3\.png"):
        extractor(model, tmp_path / "run").features([source])


def test_an_image_that_can_be_read_again_gets_its_features(images, model, tmp_path):
    path = images("train", classes=2, each=100)
    whole, shown = opened(path), opened(path)
    (Path(path) / "class0" / "3.png").rename(tmp_path / "away.png")
    extractor(model, tmp_path / "run", Unreadable.SKIP).features([whole])
    (tmp_path / "away.png").rename(Path(path) / "class0" / "3.png")

    (features,) = extractor(model, tmp_path / "run", Unreadable.SKIP).features([shown])

    assert not unread(features).any()


def test_ranks_that_share_the_work_find_what_one_alone_would(images, model, tmp_path):
    source = opened(images("train", classes=2, each=300, side=8))
    (alone,) = extractor(model, tmp_path / "alone").features([source])

    for rank in range(2):
        extractor(model, tmp_path / "shared", rank=rank, size=2).share([source])
        written = len(list((tmp_path / "shared" / "features").glob("*/*.safetensors")))
        assert (2, 3)[rank] == written
    (shared,) = extractor(model.apply(_broken), tmp_path / "shared").features([source])

    assert torch.equal(alone, shared)


def test_features_that_are_no_numbers_end_the_job(images, model, tmp_path):
    with pytest.raises(FitError, match="no numbers") as caught:
        extractor(model.apply(_broken), tmp_path / "run").features([opened(images("train"))])

    assert caught.value.cause is Cause.NON_FINITE


def _broken(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.fill_(torch.nan)


@contextmanager
def _no_file_larger_than(size: int) -> Iterator[None]:
    """As on a disk that fills up while a file is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_chunk_that_the_disk_refuses_leaves_nothing_behind(images, model, tmp_path):
    source = opened(images("train", classes=2, each=20))

    with _no_file_larger_than(1024), pytest.raises(OSError, match=r"000000\.safetensors could not be written"):
        extractor(model, tmp_path / "run").features([source])

    assert [] == [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
