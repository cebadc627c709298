"""Checks a document from outside against a message's descriptor, and says every mistake in the user's words."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from podium.jobs.errors import FieldViolation
from podium.jobs.wire import DATACLASSES

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
#: As text; with more digits no integer type of protobuf holds it.
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)

Violations = list[FieldViolation]


def check(message: Descriptor, value: Any, path: str, violations: Violations) -> dict[str, Any]:
    """The document as protobuf's JSON reader takes it; what is wrong with it is added to `violations`, and left out."""
    if not isinstance(value, dict):
        _say(violations, path, f"{in_short(value)} should be fields, such as {_example(message)}")
        return {}
    clean: dict[str, Any] = {}
    unreadable = set()
    for key, child in value.items():
        field = message.fields_by_name.get(str(key)) or message.fields_by_camelcase_name.get(str(key))
        if field is None:
            _say(violations, f"{path}.{key}", _unknown(str(key), child, message))
        elif field.name in clean:
            _say(violations, f"{path}.{key}", f"is written twice, as {field.name} and as {field.camelcase_name}")
        else:
            known = len(violations)
            clean[field.name] = given = _field(field, child, f"{path}.{field.name}", violations)
            # Of a message its own parts were left out, and the rest of it is good.
            if len(violations) > known and not (_is_part(field) and given is not None):
                unreadable.add(field.name)
    _check_presence(message, clean, path, violations)
    return {name: given for name, given in clean.items() if name not in unreadable}


def _is_part(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.is_repeated


def _field(field: FieldDescriptor, value: Any, path: str, violations: Violations) -> Any:
    if value is None:
        remedy = f"write `{field.name}: {{}}`" if field.message_type is not None else "write a value"
        _say(violations, path, f"has no value; {remedy}, or remove the line")
        return None
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return _map(entry, value, path, violations)
    if field.is_repeated:
        if not isinstance(value, list):
            _say(violations, path, f"{in_short(value)} should be a list, such as [{in_short(value)}]")
            return []
        return [_single(field, item, f"{path}[{index}]", violations) for index, item in enumerate(value)]
    return _single(field, value, path, violations)


def _map(entry: Descriptor, value: Any, path: str, violations: Violations) -> dict[str, Any]:
    key_field, value_field = (entry.fields_by_name[name] for name in ("key", "value"))
    if not isinstance(value, dict):
        example = "{1: 0.5, 5: 0.5}" if key_field.cpp_type in _INTEGERS else "{name: value}"
        _say(violations, path, f"{in_short(value)} should be pairs, such as {example}")
        return {}
    clean = {}
    for key, child in value.items():
        name = _single(key_field, key, f"{path}[{key}]", violations)
        if str(name) in clean:
            _say(violations, f"{path}[{key}]", "stands here twice")
        clean[str(name)] = _single(value_field, child, f"{path}[{key}]", violations)
    return clean


def _single(field: FieldDescriptor, value: Any, path: str, violations: Violations) -> Any:
    if field.message_type is not None:
        return check(field.message_type, value, path, violations)
    if field.enum_type is not None:
        return _enum(field.enum_type, value, path, violations)
    if field.cpp_type in _INTEGERS:
        return _integer(value, *_INTEGERS[field.cpp_type], path, violations)
    if field.cpp_type in _FLOATS:
        return _float(value, path, violations)
    wanted, name = (bool, "true or false") if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else (str, "text")
    if not isinstance(value, wanted):
        quoted = f', such as "{value}"' if wanted is str else ""
        _say(violations, path, f"{in_short(value)} should be {name}{quoted}")
    return value


def _enum(enum: EnumDescriptor, value: Any, path: str, violations: Violations) -> Any:
    names = short_names(enum)
    if value in names.values():
        return value
    if value not in names:
        near = _nearest(str(value).lower(), names)
        _say(violations, path, f"{in_short(value)} is none of {', '.join(names)}{near}")
        return value
    return names[value]


def short_names(enum: EnumDescriptor) -> dict[str, str]:
    """What may be written -> what the contract calls it: high -> PRIORITY_HIGH."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {name.removeprefix(prefix).lower(): name for name, member in enum.values_by_name.items() if member.number}


def shortened(message: Descriptor, document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as protobuf writes it, with the short names of enums."""
    return {name: _shortened(message.fields_by_name[name], value) for name, value in document.items()}


def _shortened(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return {name: short for short, name in short_names(field.enum_type).items()}.get(value, value)
    part = field.message_type
    # Neither a map nor a list of the spec holds an enum.
    if part is None or part.GetOptions().map_entry or not isinstance(value, dict):
        return value
    return shortened(part, value)


def _integer(value: Any, low: int, high: int, path: str, violations: Violations) -> Any:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        _say(violations, path, f"{in_short(value)} should be a whole number")
    elif not low <= value <= high:
        _say(violations, path, f"{in_short(value)} should be from {low} to {high}")
    return value


def _float(value: Any, path: str, violations: Violations) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        _say(violations, path, f"{in_short(value)} should be a number")
        return value
    try:
        # YAML reads 1e-3, without a point, as text.
        number = float(value)
    except ValueError:
        _say(violations, path, f"{in_short(value)} should be a number")
        return value
    except OverflowError:
        number = -math.inf if value < 0 else math.inf  # type: ignore[operator]  # text overflows to infinity by itself
    if math.isfinite(number):
        return number
    # Whether it may be is the server's to say; JSON has these three as text only.
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _check_presence(message: Descriptor, clean: dict[str, Any], path: str, violations: Violations) -> None:
    required = _required(message)
    # Who wrote `sorter: subset` was told what to write.
    told = {violation.field.removeprefix(f"{path}.") for violation in violations}
    for oneof in _oneofs(message):
        named = [field.name for field in oneof.fields if field.name in clean]
        if len(named) > 1:
            _say(violations, f"{path}.{oneof.name}", f"name one of {_listed(named, 'and')}, not {_all_of(named)}")
        elif not named and oneof.name in required and oneof.name not in told:
            options = [field.name for field in oneof.fields]
            what = "is missing; write" if len(options) == 1 else "is missing; name one of"
            _say(violations, f"{path}.{oneof.name}", f"{what} {_listed(options, 'and')}")
    for name in required & set(message.fields_by_name) - set(clean):
        _say(violations, f"{path}.{name}", "is missing")


def _oneofs(message: Descriptor) -> list[OneofDescriptor]:
    """Those of the .proto files; a field marked `optional` is a oneof of its own to protobuf."""
    return [oneof for oneof in message.oneofs if not oneof.name.startswith("_")]


def _required(message: Descriptor) -> set[str]:
    """What the dataclass has no default for; a oneof that is no field of the dataclass must always be decided."""
    described = {field.name: field for field in fields(DATACLASSES[message.name])}
    return {
        name for name, field in described.items() if field.default is MISSING and field.default_factory is MISSING
    } | {oneof.name for oneof in _oneofs(message) if oneof.name not in described}


def _unknown(key: str, value: Any, message: Descriptor) -> str:
    for oneof in _oneofs(message):
        if oneof.name == key:
            names = {field.name: f"`{field.name}: {'{}' if field.message_type else '...'}`" for field in oneof.fields}
            if isinstance(value, str) and value in names:
                return f"there is no such field; write {names[value]} in its place"
            return f"there is no such field; write one of {_listed(list(names.values()), 'and')} in its place"
    near = _nearest(key, message.fields_by_name)
    known = "" if near else f"; {message.name} has {', '.join(message.fields_by_name) or 'no fields'}"
    return f"there is no such field{near}{known}"


def _nearest(word: str, words: Iterable[str]) -> str:
    # What was written out, as "validation", is nearer to "val" than to anything of its own length.
    begun = [one for one in words if len(one) >= 3 and word.startswith(one)]
    near = begun or get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _example(message: Descriptor) -> str:
    first = next(iter(message.fields_by_name), None)
    return f"{{{first}: ...}}" if first else "{}"


def _listed(names: list[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _all_of(names: list[str]) -> str:
    return "both" if len(names) == 2 else "all of them"


def in_short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _say(violations: Violations, path: str, description: str) -> None:
    violations.append(FieldViolation(field=path, description=description))
