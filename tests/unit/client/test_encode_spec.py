import re
from typing import Any

import pytest

from podium.client import (
    AdamW,
    FullFineTuning,
    ImageFolder,
    InvalidSpecError,
    JobSpec,
    Preprocessing,
    Resources,
    Subset,
)
from podium.client._wire import encode_spec


def told(**fields: Any) -> dict[str, str]:
    """Field -> what is wrong with it, of a good spec with these fields."""
    good: dict[str, Any] = {
        "backbone": "resnet50",
        "tuning": FullFineTuning(),
        "dataset": ImageFolder(train="/data"),
        "sorter": Subset(),
    }
    with pytest.raises(InvalidSpecError) as error:
        encode_spec(JobSpec(**good | fields))
    return {violation.field: violation.description for violation in error.value.violations}


def test_a_word_where_one_of_the_classes_belongs_is_told_all_of_them_for_every_field_at_once():
    found = told(tuning="full", sorter=Subset, dataset="/data", optimizer="adamw", weights="/w.pth")

    assert {"spec.tuning", "spec.sorter", "spec.dataset", "spec.optimizer", "spec.weights"} == set(found)
    assert "'full' should be LinearHead(...) or FullFineTuning(...) or LastBlocks(...)" == found["spec.tuning"]
    assert " or Subset(...) or " in found["spec.sorter"]
    assert "'/w.pth' should be Weights(...)" == found["spec.weights"]


@pytest.mark.parametrize(
    ("fields", "field", "description"),
    [
        ({"priority": "high"}, "priority", "'high' should be Priority.LOW or Priority.NORMAL or Priority.HIGH or "),
        ({"preprocessing": Preprocessing(resize="crop")}, "preprocessing.resize", "'crop' should be Resize.CROP or "),  # type: ignore[arg-type]  # the mistake
        ({"epochs": "3"}, "epochs", "'3' should be int"),
        ({"backbone": 50}, "backbone", "50 should be str"),
        ({"k": [1, 5]}, "k", "[1, 5] should be Mapping[int, float]"),
        ({"optimizer": AdamW(learning_rate="1e-3")}, "optimizer.learning_rate", "'1e-3' should be float"),  # type: ignore[arg-type]  # the mistake
        ({"resources": Resources(gpus=-1)}, "resources.gpus", "Value out of range: -1"),
    ],
)
def test_a_value_of_another_type_is_told_what_the_field_takes(fields, field, description):
    assert told(**fields)[f"spec.{field}"].startswith(description)


def test_what_is_no_spec_is_told_how_to_make_one():
    with pytest.raises(TypeError, match=re.escape("'job.yaml' is no JobSpec; write JobSpec(...), or load_spec(FILE)")):
        encode_spec("job.yaml")  # type: ignore[arg-type]  # the mistake
