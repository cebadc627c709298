"""What a filter may ask for: a closed table of fields. Their types and the names to choose from are the contract's."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from podium.api.v1 import job_pb2
from podium.server.services.filters._parse import unquoted, wrong

#: A job as the contract has it.
JobMessage = job_pb2.Job


class Kind(Enum):
    """How the values of a field are compared; the value is what the documents call it."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    TRUTH = "truth value"
    NAME = "name"


#: The fields that a filter may name. "spec." may be left out everywhere, "labels." is followed by a label's key.
FIELDS = (
    "id",
    "state",
    "terminal",
    "state_reason",
    "attempt",
    "error.cause",
    "error.message",
    "progress.step",
    "create_time",
    "start_time",
    "end_time",
    "created_by",
    "spec.backbone",
    "spec.weights.checkpoint",
    "spec.tuning",
    "spec.dataset",
    "spec.sorter",
    "spec.optimizer",
    "spec.epochs",
    "spec.batch_size",
    "spec.seed",
    "spec.precision",
    "spec.resources.pool",
    "spec.resources.gpus",
    "spec.resources.nodes",
    "spec.priority",
    "spec.display_name",
    "spec.labels",
)
_LABELS = "spec.labels"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of the table."""

    name: str
    kind: Kind
    get: Callable[[JobMessage], Any]
    """The value of a job; None where it is not set. Of a time: seconds and nanoseconds. Of a name: its number."""
    choices: Mapping[str, Any]
    """Of a name: what it may be, as written in a filter -> as `get` gives it."""


def find_field(written: str, position: int) -> Field:
    """The field that a filter names.

    Raises:
        InvalidSpecError: there is none of that name.
    """
    name = written.removeprefix("spec.")
    if name.startswith("labels."):
        key = unquoted(name.removeprefix("labels."))
        return Field(name=written, kind=Kind.TEXT, get=lambda job: _label(job, key), choices={})
    found = table().get(written) or table().get(f"spec.{name}")
    if found is None:
        raise wrong(f"there is no field {written[:60]!a}; {_alike(written)}", position)
    return found


@cache
def table() -> Mapping[str, Field]:
    """The fields by name, labels apart."""
    return {path: _described(path) for path in FIELDS if path != _LABELS}


def _described(path: str) -> Field:
    *above, last = path.split(".")
    message: Any = JobMessage.DESCRIPTOR
    for name in above:
        message = message.fields_by_name[name].message_type
    if last in message.oneofs_by_name and last not in message.fields_by_name:
        members = {field.name: field.name for field in message.oneofs_by_name[last].fields}
        return Field(name=path, kind=Kind.NAME, get=_walk(above, lambda part: part.WhichOneof(last)), choices=members)
    field = message.fields_by_name[last]
    choices = _names(field.enum_type) if field.enum_type is not None else {}
    return Field(name=path, kind=_kind(field), get=_walk(above, _reader(field)), choices=choices)


def _kind(field: Any) -> Kind:
    if field.enum_type is not None:
        return Kind.NAME
    if field.message_type is not None:
        return Kind.TIME
    return {field.CPPTYPE_STRING: Kind.TEXT, field.CPPTYPE_BOOL: Kind.TRUTH}.get(field.cpp_type, Kind.NUMBER)


def _names(enum: Any) -> Mapping[str, int]:
    # The name of 0 is the prefix of all names and a word that says nothing.
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix): value.number for value in enum.values if value.number}


def _reader(field: Any) -> Callable[[Any], Any]:
    name = field.name
    if field.message_type is not None:
        return lambda part: (getattr(part, name).seconds, getattr(part, name).nanos) if part.HasField(name) else None
    if field.enum_type is not None:
        return lambda part: getattr(part, name) or None
    if field.has_presence:
        return lambda part: getattr(part, name) if part.HasField(name) else None
    return lambda part: getattr(part, name)


def _walk(above: list[str], read: Callable[[Any], Any]) -> Callable[[JobMessage], Any]:
    def get(job: JobMessage) -> Any:
        part: Any = job
        for name in above:
            if not part.HasField(name):
                return None
            part = getattr(part, name)
        return read(part)

    return get


def _label(job: JobMessage, key: str) -> str | None:
    # Not labels[key], which would make the label.
    return job.spec.labels.get(key)


def _alike(written: str) -> str:
    if re.fullmatch(r"(spec\.)?labels", written):
        return "name a label, such as labels.team"
    known = [*table(), *(name.removeprefix("spec.") for name in table())]
    close = difflib.get_close_matches(written, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(name.removeprefix('spec.') for name in table())} and labels.KEY"
