"""Whether a message plainly keeps the contract's rules: a first look, which is enough for nearly every message.

What it says no of, protovalidate judges: it may say no of a message that is good, but never yes of one that is not. Of
a rule that it does not know it says no. protovalidate alone was a sixth of a CreateJob (docs/decisions/0004).
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.message import Message

Check = Callable[[Any], object]
Rules = Mapping[str, Any]
_NUMBERS = frozenset({"double", "int32", "int64", "uint32", "uint64"})
_UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _knows_soft_targets(spec: Any) -> bool:
    return not any(map(spec.HasField, ("smooth_svm", "noised_hinge", "imbalanced_noised_hinge")))


#: The contract's expressions, word for word, and the same in Python. One that changes there is no longer known here.
_IN_PYTHON: Mapping[str, Check] = {
    "this == '' || this.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')": (
        lambda this: this == "" or _UUID.fullmatch(this)
    ),
    "!has(this.last_step) || this.last_step >= this.first_step": (
        lambda this: not this.HasField("last_step") or this.last_step >= this.first_step
    ),
    "!has(this.m) || this.k.all(k, k < this.m)": lambda this: not this.HasField("m") or all(k < this.m for k in this.k),
    "!has(this.softmax) || this.k.all(k, k == 1u)": (
        lambda this: not this.HasField("softmax") or all(k == 1 for k in this.k)
    ),
    "!has(this.augmentation) || !has(this.head)": (
        lambda this: not this.HasField("augmentation") or not this.HasField("head")
    ),
    "!has(this.head) || has(this.weights)": lambda this: not this.HasField("head") or this.HasField("weights"),
    "!has(this.last_blocks) || has(this.weights)": (
        lambda this: not this.HasField("last_blocks") or this.HasField("weights")
    ),
    "!has(this.web_dataset) || this.classes.size() > 0": lambda this: not this.HasField("web_dataset") or this.classes,
    "!(has(this.smooth_svm) || has(this.noised_hinge) || has(this.imbalanced_noised_hinge)) || "
    "(this.label_smoothing == 0.0 && this.augmentation.mixup_alpha == 0.0 && this.augmentation.cutmix_alpha == 0.0)": (
        lambda this: (
            _knows_soft_targets(this)
            or this.label_smoothing == this.augmentation.mixup_alpha == this.augmentation.cutmix_alpha == 0
        )
    ),
    "!this.top1_apart || (1u in this.k && this.k[1u] > 0.0 && this.k[1u] < 1.0 && "
    "!has(this.smooth_svm) && !has(this.noised_hinge) && !has(this.imbalanced_noised_hinge))": (
        lambda this: not this.top1_apart or (1 in this.k and 0 < this.k[1] < 1 and _knows_soft_targets(this))
    ),
    "!has(this.accumulation_steps) || this.accumulation_steps <= (has(this.batch_size) ? this.batch_size : 128u)": (
        lambda this: (
            not this.HasField("accumulation_steps")
            or this.accumulation_steps <= (this.batch_size if this.HasField("batch_size") else 128)
        )
    ),
}


def keeps(message: Message) -> bool:
    """Whether a message of the contract plainly keeps its rules, and so do all messages in it."""
    kind: Any = type(message)
    return _keeper_of(kind).keeps(message)


@cache
def _keeper_of(kind: Any) -> "_Keeper":
    return _Keeper(kind.DESCRIPTOR, _rules().get(kind.DESCRIPTOR.full_name, {}))


@cache
def _rules() -> Mapping[str, Rules]:
    """By the full name of a message, as proto/contract_rules.py wrote them."""
    rules: Mapping[str, Rules] = json.loads(files("podium.api.v1").joinpath("rules.json").read_text(encoding="utf-8"))
    return rules


class _Keeper:
    """The rules of one kind of message."""

    def __init__(self, kind: Any, rules: Rules) -> None:
        self._checks: dict[int, Check] = {}
        self._needed: set[int] = set()
        for field in kind.fields:
            its = dict(rules.get("fields", {}).get(field.name, {}))
            required = its.pop("required", False)
            if field.message_type is not None or its:
                check = self._checks[field.number] = _all(_of_field(field, its))
                # Without presence, a field that is not there is judged as the empty one that it is.
                required |= not field.has_presence and not check({} if field.is_repeated else field.default_value)
            if required:
                self._needed.add(field.number)
        self._one_of = [
            frozenset(field.number for field in kind.oneofs_by_name[name].fields) for name in rules.get("oneofs", ())
        ]
        self._expressions = [_in_python(expression) for expression in rules.get("cel", ())]

    def keeps(self, message: Any) -> bool:
        there = set()
        for field, value in message.ListFields():
            there.add(field.number)
            if (check := self._checks.get(field.number)) is not None and not check(value):
                return False
        return (
            self._needed <= there
            and not any(map(there.isdisjoint, self._one_of))
            and all(expression(message) for expression in self._expressions)
        )


def _of_field(field: Any, rules: dict[str, Any]) -> Iterator[Check]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from _of_map(field.message_type, dict(rules.pop("map", {})))
    elif field.is_repeated:
        yield from _of_repeated(field, dict(rules.pop("repeated", {})))
    else:
        yield from _of_value(field, rules)
        return
    if rules:
        yield _unknown


def _of_map(entry: Any, rules: dict[str, Any]) -> Iterator[Check]:
    of_key, of_value = (
        _all(_of_value(entry.fields_by_name[name], rules.pop(f"{name}s", {}))) for name in ("key", "value")
    )
    yield from _lengths(rules, "pairs")
    yield lambda pairs: all(map(of_key, pairs)) and all(map(of_value, pairs.values()))


def _of_repeated(field: Any, rules: dict[str, Any]) -> Iterator[Check]:
    of_item = _all(_of_value(field, rules.pop("items", {})))
    if rules.pop("unique", False):
        yield lambda items: len(set(items)) == len(items)
    yield from _lengths(rules, "items")
    yield lambda items: all(map(of_item, items))


def _of_value(field: Any, rules: Rules) -> Iterator[Check]:
    if field.message_type is not None:
        yield keeps
    for kind, rule in rules.items():
        if kind == "cel":
            yield from (_in_python(expression["expression"]) for expression in rule)
        elif kind == "string":
            yield from _of_string(dict(rule))
        elif kind == "enum" and rule == {"defined_only": True}:
            yield frozenset(field.enum_type.values_by_number).__contains__
        elif kind in _NUMBERS:
            yield from (_of_number(name, limit) for name, limit in rule.items())
        else:
            yield _unknown


def _of_string(rules: dict[str, Any]) -> Iterator[Check]:
    pattern = rules.pop("pattern", None)
    yield from _lengths(rules, "len")
    if pattern is not None:
        # Whatever the whole of matches, is matched within, too. After the length, as it may take time in its square.
        yield re.compile(pattern, re.ASCII).fullmatch


def _of_number(rule: str, limit: Any) -> Check:
    if rule == "finite":
        return math.isfinite
    # JSON has the larger integers in words.
    limit = int(limit) if isinstance(limit, str) else limit
    compare: Mapping[str, Check] = {
        "gt": lambda value: value > limit,
        "gte": lambda value: value >= limit,
        "lt": lambda value: value < limit,
        "lte": lambda value: value <= limit,
    }
    return compare.get(rule, _unknown)


def _lengths(rules: dict[str, Any], what: str) -> Iterator[Check]:
    least, most = int(rules.pop(f"min_{what}", 0)), int(rules.pop(f"max_{what}", 1 << 32))
    if rules:
        yield _unknown
    yield lambda value: least <= len(value) <= most


def _in_python(expression: str) -> Check:
    return _IN_PYTHON.get(expression, _unknown)


def _unknown(value: Any) -> bool:
    return False


def _all(checks: Iterable[Check]) -> Check:
    of = tuple(checks)

    def check_all(value: Any) -> bool:
        for check in of:  # noqa: SIM110  # all() of a generator takes twice as long
            if not check(value):
                return False
        return True

    return of[0] if len(of) == 1 else check_all
