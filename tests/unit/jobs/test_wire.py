"""Dataclasses and messages hold together, and nothing is lost between them."""

import dataclasses
import math
import types
import typing
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.api.v1 import (
    audit_pb2,
    checkpoint_pb2,
    event_pb2,
    job_pb2,
    log_pb2,
    metric_pb2,
    node_pb2,
    sorter_pb2,
    spec_pb2,
    token_pb2,
)
from podium.jobs import wire
from podium.jobs.events import JobEvent, Keepalive, LogBatch, LogLine, MetricBatch, MetricSeries, StateChange
from podium.jobs.job import Attempt, Checkpoint, Job, Node, NodeState, Progress
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven
from podium.jobs.states import State

FILES = (
    spec_pb2,
    sorter_pb2,
    job_pb2,
    event_pb2,
    metric_pb2,
    log_pb2,
    checkpoint_pb2,
    node_pb2,
    token_pb2,
    audit_pb2,
)
MESSAGES = {name: message for file in FILES for name, message in file.DESCRIPTOR.message_types_by_name.items()}
ENUMS = {
    enum.full_name.removeprefix("podium.api.v1."): enum
    for file in FILES
    for enum in (
        *file.DESCRIPTOR.enum_types_by_name.values(),
        *(nested for message in file.DESCRIPTOR.message_types_by_name.values() for nested in message.enum_types),
    )
}


def fields_of_message(name: str) -> set[str]:
    """The names that a dataclass must have: those of fields, and of a oneof of messages in its members' place."""
    names = set()
    for field in MESSAGES[name].fields:
        oneof = field.containing_oneof
        members = oneof.fields if oneof else []
        of_messages = bool(members) and all(member.message_type for member in members)
        names.add(oneof.name if of_messages else field.name)
    return names


class TestTheTwoHoldTogether:
    def test_every_message_has_its_dataclass_and_the_other_way_round(self) -> None:
        assert set(MESSAGES) == set(wire.DATACLASSES)

    @pytest.mark.parametrize("name", MESSAGES)
    def test_their_fields_have_the_same_names(self, name: str) -> None:
        assert fields_of_message(name) == {field.name for field in dataclasses.fields(wire.DATACLASSES[name])}

    def test_every_enum_is_there(self) -> None:
        assert set(ENUMS) == set(wire.ENUMS)

    @pytest.mark.parametrize("name", ENUMS)
    def test_enums_have_the_same_names_and_numbers(self, name: str) -> None:
        last = name.rpartition(".")[2]
        prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in last).upper().lstrip("_")
        in_python = {f"{prefix}_{member.name}": member.value for member in wire.ENUMS[name]}
        in_proto = {value.name: value.number for value in ENUMS[name].values if value.number}

        assert in_proto == in_python
        assert ENUMS[name].values_by_number[0].name == f"{prefix}_UNSPECIFIED"

    @pytest.mark.parametrize("name", MESSAGES)
    def test_the_members_of_a_oneof_are_those_of_the_union(self, name: str) -> None:
        hints = typing.get_type_hints(wire.DATACLASSES[name])
        for oneof in MESSAGES[name].oneofs:
            if oneof.name in hints:
                members = {field.message_type.name for field in oneof.fields}
                assert members == {cls.__name__ for cls in alternatives(hints[oneof.name])}

    @pytest.mark.parametrize("name", MESSAGES)
    def test_a_field_that_may_be_none_can_be_left_out(self, name: str) -> None:
        hints = typing.get_type_hints(wire.DATACLASSES[name])
        for field in MESSAGES[name].fields:
            if field.name in hints and type(None) in typing.get_args(hints[field.name]):
                assert field.has_presence or field.enum_type  # an enum's 0 is None


def alternatives(hint: Any) -> tuple[type, ...]:
    """The classes of a union, or the one class."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


DOUBLES = st.floats(allow_nan=False)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 1),
    max_value=datetime(9999, 1, 1),
    timezones=st.just(UTC),
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Anything that a dataclass field of this type may hold and its message field can carry."""
    if isinstance(hint, types.UnionType):
        return st.one_of([values_of(option) for option in typing.get_args(hint)])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is not None:  # Mapping
        keys, values = (values_of(argument) for argument in arguments)
        return st.dictionaries(keys, values, min_size=1, max_size=3)
    if dataclasses.is_dataclass(hint):
        return instances(typing.cast(type, hint))
    if hint is type(None):
        return st.none()
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    plain = {bool: st.booleans(), int: st.integers(0, 2**31 - 1), float: DOUBLES, str: st.text(max_size=5)}
    return TIMES if hint is datetime else plain[hint]


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Any instance of a dataclass."""
    if cls.__name__ == "Weights":
        source = st.sampled_from(["package", "file", "checkpoint", "tag"])
        return st.builds(lambda name, text: cls(**{name: text}), source, st.text(max_size=5))
    hints = typing.get_type_hints(cls)
    fields = {field.name: values_of(hints[field.name]) for field in dataclasses.fields(cls)}
    return st.builds(cls, **fields)


def thin(message: Any, data: st.DataObject) -> None:
    """Leaves out whatever has a default, here and there, or writes 0 for an enum."""
    fields = {field.name: field for field in dataclasses.fields(wire.DATACLASSES[message.DESCRIPTOR.name])}
    for field, value in message.ListFields():
        known = fields[field.name if field.name in fields else field.containing_oneof.name]
        needed = known.default is dataclasses.MISSING and known.default_factory is dataclasses.MISSING
        needed = needed or message.DESCRIPTOR.name == "Weights"  # of which exactly one is set
        if not needed and data.draw(st.booleans(), label=f"without {field.name}"):
            message.ClearField(field.name)
            if field.enum_type and data.draw(st.booleans(), label="written out"):
                setattr(message, field.name, 0)
        elif field.message_type and not field.is_repeated:
            thin(value, data)


class TestRoundTrip:
    @pytest.mark.parametrize("cls", [JobSpec, Job, JobEvent, Node, Checkpoint], ids=lambda cls: cls.__name__)
    def test_everything_comes_back(self, cls: type) -> None:
        @given(instances(cls))
        def check(value: Any) -> None:
            assert empties_as_defaults(value) == wire.from_bytes(cls, wire.to_bytes(value))

        check()

    def test_a_spec_that_says_nothing_takes_the_defaults(self) -> None:
        message = spec_pb2.JobSpec(
            backbone="resnet50",
            head=spec_pb2.LinearHead(),
            image_folder=spec_pb2.ImageFolder(train="/data"),
            odd_even=sorter_pb2.OddEven(),
        )
        expected = JobSpec(
            backbone="resnet50", tuning=LinearHead(), dataset=ImageFolder(train="/data"), sorter=OddEven()
        )
        assert expected == wire.from_proto(JobSpec, message)

    @given(st.data())
    def test_completing_a_spec_is_reading_and_writing_it(self, data: st.DataObject) -> None:
        message = wire.to_proto(data.draw(instances(JobSpec)))
        thin(message, data)
        assert wire.to_proto(wire.from_proto(JobSpec, message)) == wire.completed(message)

    def test_what_a_newer_client_wrote_stays_where_it_was_when_a_spec_is_completed(self) -> None:
        message = spec_pb2.JobSpec(head=spec_pb2.LinearHead.FromString(b"\xa2\x06\x02hi"))
        message.MergeFromString(b"\xaa\x06\x02ho")
        completed = wire.completed(message)
        assert (128, True) == (completed.batch_size, completed.head.standardize)
        assert wire.unknown_in(message) == wire.unknown_in(completed)
        assert b"hi" in completed.head.SerializeToString()
        assert b"ho" in completed.SerializeToString()

    def test_what_is_off_by_choice_stays_off(self) -> None:
        head = LinearHead(standardize=False)
        assert head == wire.from_bytes(LinearHead, wire.to_bytes(head))

    def test_a_required_list_may_be_empty(self) -> None:
        for value in (
            MetricBatch(series=()),
            MetricSeries(name="loss", steps=(), values=()),
            LogBatch(lines=()),
            Node(id="n1", pool="default", state=NodeState.READY, slots=()),
        ):
            assert value == wire.from_bytes(type(value), wire.to_bytes(value))

    def test_not_a_number_and_infinity_are_numbers(self) -> None:
        batch = MetricBatch.at(1, {"a": math.nan, "b": -math.inf})
        back = wire.from_bytes(MetricBatch, wire.to_bytes(batch))
        assert math.isnan(back.series[0].values[0])
        assert back.series[1].values == (-math.inf,)

    def test_times_are_aware_and_keep_their_microseconds(self) -> None:
        time = datetime(2026, 11, 23, 12, 0, 0, 654321, tzinfo=UTC) + timedelta(days=1)
        assert time == wire.from_bytes(LogLine, wire.to_bytes(LogLine(text="x", time=time))).time

    @pytest.mark.parametrize("payload", [StateChange(to_state=State.QUEUED), Keepalive(), Progress(phase="training")])
    def test_an_event_knows_its_payload(self, payload: Any) -> None:
        event = JobEvent(payload=payload, job_id="job-a", sequence=3)
        assert event == wire.from_bytes(JobEvent, wire.to_bytes(event))

    def test_an_attempt_from_when_there_was_one_slot_holds_that_one(self) -> None:
        message = job_pb2.Attempt(number=1, node="n1", slot=3)
        assert (3, (3,)) == ((old := wire.from_proto(Attempt, message)).slot, old.slots)

        several = Attempt(number=2, node="n1", slot=2, slots=(2, 0))
        assert several == wire.from_bytes(Attempt, wire.to_bytes(several))

    def test_a_oneof_refuses_what_is_no_member(self) -> None:
        spec = JobSpec(backbone="r", tuning=LinearHead(), dataset=ImageFolder(train="/d"), sorter=OddEven())
        wrong = dataclasses.replace(spec, sorter=LinearHead())  # type: ignore[arg-type]  # that is the point
        with pytest.raises(TypeError, match="sorter"):
            wire.to_proto(wrong)

    def test_the_digest_knows_no_order_of_maps_and_every_value(self) -> None:
        def spec(**changes: Any) -> JobSpec:
            return JobSpec(
                backbone="r", tuning=LinearHead(), dataset=ImageFolder(train="/d"), sorter=OddEven(), **changes
            )

        many = {f"label{number}": "x" for number in range(64)}
        assert wire.digest(spec(labels=many)) == wire.digest(spec(labels=dict(reversed(many.items()))))
        one = spec(labels={"a": "1", "b": "2"}, k={1: 0.5, 5: 0.5})
        assert wire.digest(one) == wire.digest(spec(labels={"b": "2", "a": "1"}, k={5: 0.5, 1: 0.5}))
        assert wire.digest(one) != wire.digest(spec(labels={"a": "1", "b": "3"}, k={1: 0.5, 5: 0.5}))


def empties_as_defaults(value: Any) -> Any:
    """A dataclass with its empty lists replaced by the defaults, which is how they come back."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return tuple(empties_as_defaults(item) for item in value) if isinstance(value, tuple) else value
    changes = {field.name: empties_as_defaults(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **changes)
