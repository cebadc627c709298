"""The filter of ListJobs: what it means, what it may ask, and what it says of what it cannot read."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.api.v1 import job_pb2
from podium.jobs import wire
from podium.jobs.errors import InvalidSpecError
from podium.jobs.job import Cause, Job, JobError, Progress
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, OddEven, Priority, Resources, Weights
from podium.jobs.states import State
from podium.server.services.filters import compile_filter


def job(**changes: Any) -> Job:
    spec = JobSpec(
        backbone="timm/resnet50",
        weights=Weights(tag="a1_in1k"),
        tuning=LinearHead(),
        dataset=ImageFolder(train="/data/pets/train"),
        sorter=OddEven(),
        labels={"team": "vision", "night-run": "", "a.b": "c"},
        display_name='The "Big" Run',
        priority=Priority.HIGH,
        resources=Resources(gpus=4, pool="h100"),
    )
    born = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    known: dict[str, Any] = {"id": "job-abc", "project": "default", "spec": spec, "state": State.RUNNING, "attempt": 2}
    return Job(**{**known, "create_time": born, **changes})


MESSAGE: job_pb2.Job = wire.to_proto(job())


def matches(text: str, message: job_pb2.Job = MESSAGE) -> bool:
    found = compile_filter(text)
    assert found is not None
    return found.matches(message)


def complaint(text: str) -> str:
    with pytest.raises(InvalidSpecError) as caught:
        compile_filter(text)
    (violation,) = caught.value.violations
    assert violation.field == "filter"
    return violation.description


@pytest.mark.parametrize(
    "text",
    [
        "id = job-abc",
        "id: BC",
        "state = RUNNING",
        "state = running",
        'state = "STATE_RUNNING"',
        "state != PAUSED",
        "terminal = false",
        "attempt > 1",
        "attempt >= 2.0",
        "attempt <= 2e0",
        "attempt != -1",
        "create_time > 2026-03-01",
        "create_time > 2026-03-01T11:59:59Z",
        'create_time = "2026-03-01T13:00:00.25+01:00"',
        'create_time < "2026-03-01T12:00:00.250000001Z"',
        "create_time:*",
        "spec.backbone = timm/resnet50",
        "backbone:ResNet",
        "spec.labels.team = vision",
        'labels."team" = "vision"',
        "labels.a.b = c",
        'labels.night-run = ""',
        "labels.night-run:*",
        'display_name = "The \\"Big\\" Run"',
        "display_name = 'The \"Big\" Run'",
        "priority = HIGH",
        "spec.priority = PRIORITY_HIGH",
        "resources.gpus > 2",
        "resources.pool != default",
        "sorter = odd_even",
        "tuning = head",
        "dataset != torchvision_dataset",
        "seed = 0",
        'created_by = ""',
        "id:job state=RUNNING",
        "NOT error.cause = DATA",
        "-error.cause:*",
    ],
)
def test_a_job_is_found_by(text):
    assert matches(text)


@pytest.mark.parametrize(
    "text",
    [
        "id = JOB-ABC",
        "state = PAUSED",
        "terminal != false",
        "attempt < 2",
        "create_time < 2026-03-01",
        "start_time:*",
        "start_time > 2020-01-01",
        "labels.other = x",
        "labels.other:*",
        "error.cause = DATA",
        "progress.step >= 0",
        "created_by:*",
    ],
)
def test_a_job_is_not_found_by(text):
    assert not matches(text)


@pytest.mark.parametrize("text", ["labels.other != x", "error.cause != DATA", "start_time != 2020-01-01"])
def test_what_is_not_set_is_not_unequal_either_as_google_aip_dev_160_has_it(text):
    assert not matches(text)
    assert matches(f"NOT ({text})")


def test_a_failed_job_is_found_by_its_cause_and_its_step():
    failed = job(
        state=State.FAILED,
        error=JobError(cause=Cause.OOM_HOST, message="the machine ran out of memory"),
        progress=Progress(phase="training", step=300),
    )

    text = 'error.cause = OOM_HOST AND error.message:"out of memory" AND progress.step > 299'
    assert matches(text, wire.to_proto(failed))


def test_or_binds_tighter_than_and():
    assert not matches("attempt = 2 OR attempt = 3 AND attempt = 9")
    assert matches("(attempt = 2) OR (attempt = 3 AND attempt = 9)")
    assert not matches("attempt = 9 AND attempt = 3 OR attempt = 2")


@dataclass(frozen=True)
class Node:
    """A filter that the test itself makes, with what it is written as and what it means."""

    text: str
    means: Callable[[Job], bool]
    is_and: bool = False
    is_single: bool = True
    """One comparison, which needs no parentheses anywhere."""


_SIGNS = {"=": operator.eq, ">": operator.gt, "!=": operator.ne}


def _by_attempt(sign: str, number: int) -> Node:
    return Node(f"attempt {sign} {number}", lambda one: bool(_SIGNS[sign](one.attempt, number)))


def _by_state(state: State) -> Node:
    return Node(f"state={state.name}", lambda one: one.state is state)


_LEAVES = [
    *(_by_attempt(sign, number) for sign in _SIGNS for number in range(3)),
    *map(_by_state, State),
    Node("terminal=true", lambda one: one.state.terminal),
    Node('labels.team:"i"', lambda one: "i" in one.spec.labels["team"]),
]


def _negated(sign: str, inner: Node) -> Node:
    text = f"{sign}{inner.text}" if inner.is_single else f"{sign}({inner.text})"
    return Node(text, lambda one: not inner.means(one), is_single=False)


def _either(parts: list[Node]) -> Node:
    text = " OR ".join(f"({part.text})" if part.is_and else part.text for part in parts)
    return Node(text, lambda one: any(part.means(one) for part in parts), is_single=False)


def _both(joint: str, parts: list[Node]) -> Node:
    return Node(
        joint.join(part.text for part in parts), lambda one: all(part.means(one) for part in parts), True, False
    )


_NODES = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: st.one_of(
        st.builds(_negated, st.sampled_from(["NOT ", "-"]), inner.filter(lambda node: not node.text.startswith("-"))),
        st.builds(_either, st.lists(inner, min_size=2, max_size=3)),
        st.builds(_both, st.sampled_from([" AND ", "\nAND  "]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=12,
)
_JOBS = st.sampled_from(
    [
        (one, wire.to_proto(one))
        for state in State
        for one in [job(state=state, terminal=state.terminal, attempt=state.value % 3)]
    ]
)


@settings(max_examples=60)
@given(node=_NODES, of=_JOBS)
def test_and_or_not_and_parentheses_mean_what_an_evaluator_of_our_own_says(node, of):
    one, message = of
    found = compile_filter(node.text)
    assert found is not None

    assert found.matches(message) == node.means(one)
    # The states that it leaves are enough.
    assert one.state in found.states or not node.means(one)


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("state = RUNNING", {State.RUNNING}),
        ("state = RUNNING OR state = PAUSED AND attempt > 1", {State.RUNNING, State.PAUSED}),
        ("terminal = true AND NOT state = FAILED", {State.CANCELLED, State.SUCCEEDED}),
        ("state = RUNNING AND state = PAUSED", set()),
        ("attempt > 1 OR state = RUNNING", set(State)),
    ],
)
def test_the_state_alone_rules_most_jobs_out(text, states):
    found = compile_filter(text)
    assert found is not None
    assert states == found.states


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("state =", "at character 8: it ends where a value should follow"),
        ("attempt = 1 b", "at character 14: it ends where one of = != < <= > >= : should follow"),
        ("attempt = 1 and id = 2", "at character 13: write AND for and"),
        ("attempt = 1 or id = 2", "at character 13: write OR for or"),
        ("(attempt = 1", "at character 13: it ends where ) should follow"),
        ("attempt = 1)", "at character 12: there is ')' where the end should follow"),
        ("attempt == 1", "at character 10: there is '=' where a value should follow"),
        ('id = "x', 'at character 6: the text that begins with " does not end'),
        ("id = AND", "at character 6: there is 'AND' where a value should follow"),
        ("NOT NOT id = x", "at character 9: there is 'id'"),
        ("create_time > 5", "create_time is a time"),
        ("create_time > 2026-01-01T00:00:00", "create_time is a time, with its zone"),
        ("create_time > 2026-02-30", "create_time is a time"),
        ("terminal = yes", "terminal is true or false, not 'yes'"),
        ("attempt = two", "attempt is a number, not 'two'; write attempt = 2"),
        ("state = RUNING", "state is one of QUEUED, STARTING, RUNNING"),
        ("state:RUNNING", ": does not go with state, a name; use one of = != :*"),
        ("id < job-a", "< does not go with id, a text; use one of = != :"),
        ("attempt:*", ": does not go with attempt, a number"),
        ('id = "job-*"', "where * stands for no other text"),
        ("id:job-*", "where * stands for no other text"),
        ("id = x AND stat = RUNNING", "at character 12: there is no field 'stat'; did you mean state?"),
        ("labels = x", "name a label, such as labels.team"),
        ("project = x", "there is no field 'project'; there are id, state, "),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place_and_an_example(text, said):
    assert said in complaint(text)


@pytest.mark.parametrize("text", ["(" * 1000 + "id:a" + ")" * 1000, "id:a " * 399, "NOT (" * 400, "x" * 2001])
def test_what_is_too_long_or_too_deep_is_refused_at_once(text):
    assert "the most" in complaint(text) or "more than" in complaint(text)


@given(
    text=st.text(alphabet=st.sampled_from(list("ai1*=<>!:()-.\"'\\ \nANDORT_é\0😀")), max_size=40)
    | st.text(max_size=40)
)
def test_whatever_is_written_it_is_a_filter_or_named_as_wrong(text):
    fields: set[str] = set()
    try:
        found = compile_filter(text)
    except InvalidSpecError as error:
        fields = {violation.field for violation in error.violations}
    else:
        assert found is None or found.matches(MESSAGE) in (True, False)
    assert fields <= {"filter"}


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_blank_filter_is_none(text):
    assert compile_filter(text) is None
