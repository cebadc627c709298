import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from podium.jobs.errors import NotFoundError
from podium.jobs.job import Cause
from podium.jobs.spec import Weights
from podium.worker.fit import FitError, weights
from podium.worker.fit._fuse import fused
from podium.worker.fit.backbones import check_input, resolve, restore
from podium.worker.fit.features import linear_classifier
from podium.worker.fit.local import LocalContext


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("timm/test_resnet", "fc"),
        ("timm/test_vit", "head"),
        ("shufflenet_v2_x0_5", "fc"),
        ("torchvision/mobilenet_v3_small", "classifier.3"),
        ("regnet_y_400mf", "fc"),
    ],
)
def test_the_classifier_is_found_and_has_the_jobs_classes(name, classifier):
    backbone = resolve(name)
    model = backbone.build(7).eval()
    side = 160 if "vit" in name else 64

    found, layer = linear_classifier(model, backbone, torch.rand(1, 3, side, side))

    assert classifier == found
    assert layer.out_features == 7


def test_a_plain_name_that_both_libraries_know_is_torchvisions():
    assert resolve("resnet18").library == "torchvision"
    assert resolve("timm/resnet18").library == "timm"
    assert resolve("test_resnet").library == "timm"


def test_an_unknown_name_is_the_users_mistake():
    with pytest.raises(FitError, match="know no backbone 'resnet5000'") as caught:
        resolve("resnet5000")

    assert caught.value.cause is Cause.USER_CONFIG


def test_a_model_that_does_not_end_in_one_linear_layer_has_no_head_to_train():
    backbone = resolve("squeezenet1_1")
    model = backbone.build(7).eval()

    with pytest.raises(FitError, match="does not end in one linear layer"):
        linear_classifier(model, backbone, torch.rand(1, 3, 64, 64))


def test_a_side_that_the_backbone_does_not_take_is_told_before_training():
    with pytest.raises(FitError, match="does not take images of 32 x 32"):
        check_input(resolve("timm/deit_tiny_patch16_224").build(3), 32, 3)


def test_the_error_names_a_side_that_the_backbone_takes():
    with pytest.raises(FitError) as caught:
        check_input(resolve("timm/test_vit").build(3), 150, 3)

    assert "image_size to 160" in caught.value.remedy


def test_a_model_that_is_built_for_one_image_size_is_built_for_the_jobs():
    check_input(resolve("timm/test_vit", 96).build(3), 96, 3)
    assert not resolve("timm/test_vit", 160).options
    assert not resolve("timm/test_resnet", 96).options


def test_an_image_size_for_which_a_model_cannot_be_built_is_the_users_mistake():
    with pytest.raises(FitError, match="cannot be built for images of 100 x 100") as caught:
        resolve("timm/xcit_nano_12_p16_224", 100).build(3)

    assert caught.value.cause is Cause.USER_CONFIG
    assert "image_size to 224" in caught.value.remedy


def test_the_papers_net_for_cifar_is_torchvisions_resnet18_with_a_small_stem():
    ours = resolve("podium/cifar_resnet18").build(100).eval()
    # As its docstring says that a checkpoint is loaded without Podium.
    theirs = torchvision.models.resnet18(num_classes=100)
    theirs.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    pictures = torch.rand(2, 3, 32, 32)

    assert torch.equal(ours(pictures), theirs.eval()(pictures))
    stem = [ours.get_submodule(name) for name in ("conv1", "maxpool", "layer1")]
    assert torch.nn.Sequential(*stem)(pictures).shape == (2, 64, 16, 16)
    assert ours.get_parameter("conv1.weight").std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["mnasnet0_5", "googlenet", "timm/test_resnet", "podium/cifar_resnet18"])
def test_a_model_is_restored_from_a_file_that_keeps_no_versions(name, tmp_path):
    backbone = resolve(name)
    model, other = backbone.build(3), backbone.build(3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")

    restore(other, load_file(tmp_path / "model.safetensors"))

    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_state_dict_fills_everything_but_the_classifier(tmp_path):
    backbone = resolve("timm/test_resnet")
    given, model = backbone.build(1000), backbone.build(5)
    classifier = model.get_parameter("fc.weight").clone()
    path = tmp_path / "weights.safetensors"
    save_file(given.state_dict(), path)

    source = weights.load(model, backbone, Weights(file=str(path)), LocalContext(tmp_path))

    assert len(source.sha256) == 64
    assert torch.equal(given.get_parameter("conv1.0.weight"), model.get_parameter("conv1.0.weight"))
    assert torch.equal(classifier, model.get_parameter("fc.weight"))


def test_a_wrong_shape_names_its_layer(tmp_path):
    backbone = resolve("timm/test_resnet")
    state = backbone.build(5).state_dict()
    state["conv1.0.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(state, tmp_path / "w.pth")

    with pytest.raises(FitError, match=r"conv1\.0\.weight has shape \(1, 2, 3, 3\)"):
        weights.load(backbone.build(5), backbone, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))


def test_a_missing_layer_is_named(tmp_path):
    backbone = resolve("timm/test_resnet")
    state = backbone.build(5).state_dict()
    del state["conv1.0.weight"]
    torch.save({"state_dict": state}, tmp_path / "w.pth")

    with pytest.raises(FitError, match=r"lacks conv1\.0\.weight"):
        weights.load(backbone.build(5), backbone, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def test_code_in_a_weights_file_is_not_run(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"conv1.0.weight": _Touch(str(trap))}, tmp_path / "w.pth")
    backbone = resolve("timm/test_resnet")

    with pytest.raises(FitError, match="cannot be read"):
        weights.load(backbone.build(5), backbone, Weights(file=str(tmp_path / "w.pth")), LocalContext(tmp_path))

    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "tag", "where"),
    [
        ("resnet18", "IMAGENET1K_V1", "download.pytorch.org"),
        ("timm/test_resnet", "r160_in1k", "timm/test_resnet.r160_in1k"),
    ],
)
def test_weights_that_are_not_cached_are_not_downloaded_but_asked_for(tmp_path, monkeypatch, name, tag, where):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    backbone = resolve(name)

    with pytest.raises(FitError, match="not in this worker's cache") as caught:
        weights.load(backbone.build(5), backbone, Weights(tag=tag), LocalContext(tmp_path))

    assert where in caught.value.remedy


def test_a_cached_torchvision_file_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    given = torchvision.models.resnet18()
    torch.save(given.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    backbone = resolve("resnet18")
    model = backbone.build(5)

    weights.load(model, backbone, Weights(tag="IMAGENET1K_V1"), LocalContext(tmp_path))

    assert torch.equal(given.conv1.weight, model.get_parameter("conv1.weight"))


def test_an_unknown_checkpoint_is_not_found(tmp_path):
    backbone = resolve("timm/test_resnet")

    with pytest.raises(NotFoundError):
        weights.load(backbone.build(5), backbone, Weights(checkpoint="7"), LocalContext(tmp_path))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_a_fused_backbone_gives_the_same_answers(name):
    model = timm.create_model(name, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.get_buffer("running_mean"))
            torch.nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    pictures = torch.rand(2, 3, 64, 64)

    faster = fused(model, pictures)

    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in faster.modules())
    assert torch.allclose(model(pictures), faster(pictures), atol=1e-4)
