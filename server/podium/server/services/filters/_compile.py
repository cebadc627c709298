"""From the tree of a filter to what can be asked of a job, its types checked."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from podium.jobs.errors import InvalidSpecError
from podium.jobs.states import State
from podium.server.services.filters._fields import Field, JobMessage, Kind, find_field
from podium.server.services.filters._parse import Comparison, Conjunction, Negation, Tree, parse, wrong

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
#: What each kind can be asked with, and an example of a value. `:*` asks whether it is set at all.
OPERATORS: Mapping[Kind, tuple[str, ...]] = {
    Kind.TEXT: ("=", "!=", ":"),
    Kind.NUMBER: ("=", "!=", "<", "<=", ">", ">="),
    Kind.TIME: ("=", "!=", "<", "<=", ">", ">=", ":*"),
    Kind.TRUTH: ("=", "!="),
    Kind.NAME: ("=", "!=", ":*"),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})([Tt][0-9]{2}:[0-9]{2}:[0-9]{2})?(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
Test = Callable[[JobMessage], bool]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a list is asked for."""

    states: frozenset[State]
    """No job in another state can match."""
    matches: Test


def compile_filter(text: str) -> Filter | None:
    """The filter of a text; None where it is blank, so that every job will do.

    Raises:
        InvalidSpecError: it cannot be read, or asks for what there is not; says where.
    """
    if not text.strip():
        return None
    tree = parse(text)
    test = _test(tree)
    return Filter(states=frozenset(state for state in State if _may_hold(tree, state)), matches=test)


def _test(tree: Tree) -> Test:
    match tree:
        case Comparison():
            return _compared(tree)
        case Negation():
            inner = _test(tree.operand)
            return lambda job: not inner(job)
    tests = tuple(map(_test, tree.operands))
    if isinstance(tree, Conjunction):
        return lambda job: all(test(job) for test in tests)
    return lambda job: any(test(job) for test in tests)


def _may_hold(tree: Tree, state: State) -> bool:
    """Whether a job in this state can match, by what the state alone decides."""
    job = JobMessage(state=state.value, terminal=state.terminal)  # type: ignore[arg-type]  # numbers are enum values
    return _verdict(tree, job) is not False


def _verdict(tree: Tree, job: JobMessage) -> bool | None:
    """The tree's truth where only `state` and `terminal` are known of a job; None: it depends."""
    match tree:
        case Comparison():
            return _compared(tree)(job) if tree.field in ("state", "terminal") else None
        case Negation():
            inner = _verdict(tree.operand, job)
            return None if inner is None else not inner
    verdicts = {_verdict(operand, job) for operand in tree.operands}
    decisive = not isinstance(tree, Conjunction)
    if decisive in verdicts:
        return decisive
    return None if None in verdicts else not decisive


def _compared(comparison: Comparison) -> Test:
    field = find_field(comparison.field, comparison.position)
    if comparison.operator == ":":
        return _has(field, comparison)
    if comparison.operator not in OPERATORS[field.kind]:
        raise _refused(field, comparison)
    get, compare, value = field.get, _ORDER[comparison.operator], _value(field, comparison)

    def test(job: JobMessage) -> bool:
        held = get(job)
        return held is not None and compare(held, value)

    return test


def _has(field: Field, comparison: Comparison) -> Test:
    get = field.get
    if comparison.value == "*" and not {":", ":*"}.isdisjoint(OPERATORS[field.kind]):
        is_label = "labels." in field.name
        return lambda job: get(job) is not None if is_label else bool(get(job))
    if ":" not in OPERATORS[field.kind]:
        raise _refused(field, comparison)
    part = _value(field, comparison).casefold()
    return lambda job: part in (get(job) or "").casefold()


def _refused(field: Field, comparison: Comparison) -> InvalidSpecError:
    allowed = " ".join(OPERATORS[field.kind])
    return wrong(
        f"{comparison.operator} does not go with {field.name}, a {field.kind.value}; use one of {allowed}, "
        f"such as {comparison.field} = {_example(field)}",
        comparison.position,
    )


def _value(field: Field, comparison: Comparison) -> Any:
    """The value as `field.get` gives it.

    Raises:
        InvalidSpecError: it is none of the field's type.
    """
    text = comparison.value
    try:
        match field.kind:
            case Kind.TEXT:
                return _plain(text)
            case Kind.NUMBER:
                return _number(text)
            case Kind.TIME:
                return _time(text)
            case Kind.TRUTH:
                return {"true": True, "false": False}[text.lower()]
            case Kind.NAME:
                return _choice(field, text)
    except (ValueError, LookupError, OverflowError):
        raise wrong(
            f"{field.name} is {_described(field)}, not {text[:60]!a}; "
            f"write {comparison.field} {comparison.operator} {_example(field)}",
            comparison.position,
        ) from None


def _plain(text: str) -> str:
    if "*" in text:
        raise ValueError("no wildcards")
    return text


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("no number")
    return float(text) if re.search("[.eE]", text) else int(text)


def _time(text: str) -> tuple[int, int]:
    """Seconds since 1970 and nanoseconds; of a date alone its first moment in UTC."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("no time")
    date, clock, fraction, zone = found.groups()
    if (clock is None) != (zone is None) or (fraction and not clock):
        raise ValueError("a time of day needs its zone")
    moment = datetime.fromisoformat(f"{date}{clock or 'T00:00:00'}{(zone or 'Z').upper()}")
    return (moment - _EPOCH) // timedelta(seconds=1), int((fraction or ".0")[1:].ljust(9, "0"))


def _choice(field: Field, text: str) -> Any:
    # An enum's names are written in capitals, with or without what all of them begin with; a oneof's are small.
    by_letters = {name.lower(): value for name, value in field.choices.items()}
    prefix = f"{field.name.rpartition('.')[2]}_"
    return by_letters[text.lower().removeprefix(prefix)]


def _described(field: Field) -> str:
    match field.kind:
        case Kind.TEXT:
            return "a text, where * stands for no other text (: asks for a part of it)"
        case Kind.NAME:
            return f"one of {', '.join(field.choices)}"
        case Kind.TIME:
            return "a time, with its zone where it has a time of day"
        case Kind.TRUTH:
            return "true or false"
    return "a number"


def _example(field: Field) -> str:
    match field.kind:
        case Kind.TEXT:
            return '"some text"'
        case Kind.NUMBER:
            return "2"
        case Kind.TIME:
            return '"2026-01-31T09:00:00Z"'
        case Kind.TRUTH:
            return "true"
        case Kind.NAME:
            return next(iter(field.choices))
