"""The JSON Schema of a message, from a set of descriptors: types, rules of buf.validate, comments as descriptions.

What it cannot say (sums, sizes that hang together, what exists) the server says. Defaults are not in the .proto files;
podium.server.services.schema adds them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import contract_rules
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_UINT32 = 2**32 - 1
_BOUNDS = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
_LENGTHS = {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"}
#: Rules on a whole message that JSON Schema has words for, by the shape of their expression.
_NEEDS = re.compile(r"!has\(this\.(\w+)\) \|\| (?:has\(this\.(\w+)\)|this\.(\w+)\.size\(\) > 0)")
_EXCLUDES = re.compile(r"!has\(this\.(\w+)\) \|\| !has\(this\.(\w+)\)")
Schema = dict[str, Any]


def schema_of(files: descriptor_pb2.FileDescriptorSet, message: str, title: str) -> Schema:
    """The schema of a message.

    Args:
        files: everything that it imports, buf/validate/validate.proto among it, with source info.
        message: its full name.
        title: what a document of it is called.
    """
    maker = _Maker(files)
    whole = maker.message(message)
    return {"$schema": DRAFT, "title": title, **whole, "$defs": dict(sorted(maker.parts.items()))}


class _Maker:
    """Makes the schema of one message after the other, those that it meets on its way too."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self._rules = contract_rules.Reader(files)
        self._comments = dict(_comments(files))
        self.parts: dict[str, Schema] = {}
        """By the message's name, what "$ref" refers to."""

    def message(self, name: str) -> Schema:
        """The schema of a message, without those that it refers to."""
        message = self._rules.pool.FindMessageTypeByName(name)
        oneofs = [oneof for oneof in message.oneofs if not oneof.name.startswith("_")]
        rules = [rule.expression for rule in self._rules.of_message(message).cel]
        needs = {found[1]: [found[2] or found[3]] for rule in rules if (found := _NEEDS.fullmatch(rule))}
        apart = [[found[1], found[2]] for rule in rules if (found := _EXCLUDES.fullmatch(rule))]
        schema: Schema = {
            "type": "object",
            "description": self._comments.get(name, ""),
            "properties": {field.name: self._field(field) for field in message.fields},
            "required": [field.name for field in message.fields if self._is_required(field)],
            "dependentRequired": needs,
            "allOf": [*map(self._one_of, oneofs), *({"not": {"required": pair}} for pair in apart)],
            "additionalProperties": False,
        }
        return {key: value for key, value in schema.items() if value or value is False}

    def _one_of(self, oneof: Any) -> Schema:
        members: list[Schema] = [{"required": [field.name]} for field in oneof.fields]
        if not self._rules.of_oneof(oneof).required:
            members.append({"not": {"anyOf": list(members)}})
        return {"oneOf": members}

    def _is_required(self, field: Any) -> bool:
        rules = self._rules.of_field(field)
        # Of what has no presence, a rule on the length is also one on its absence.
        bare = field.containing_oneof is None and not field.has_presence
        return bool(rules.required or (bare and (rules.string.min_len or rules.repeated.min_items)))

    def _field(self, field: Any) -> Schema:
        rules = self._rules.of_field(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            schema = self._map(field.message_type, rules.map)
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, rules.repeated.items)}
            schema |= _set(minItems=rules.repeated.min_items, maxItems=rules.repeated.max_items)
            schema |= _set(uniqueItems=rules.repeated.unique)
        else:
            schema = self._single(field, rules)
        words = [self._comments.get(field.full_name, "")]
        if field.enum_type is not None:
            names = _names(field)
            words += [f"{name}: {self._comments[f'{field.enum_type.full_name}.{name}']}" for name in names.values()]
            told = re.compile(rf"\b({'|'.join(names.values())})\b")
            short = {name: short for short, name in names.items()}
            words = [told.sub(lambda found: short[found[1]], text) for text in words]
        return {"description": "\n\n".join(words), **schema}

    def _single(self, field: Any, rules: Any) -> Schema:
        if field.message_type is not None:
            name = field.message_type.name
            if name not in self.parts:
                self.parts[name] = {}  # so that a message within itself ends
                self.parts[name] = self.message(field.message_type.full_name)
            return {"$ref": f"#/$defs/{name}"}
        if field.enum_type is not None:
            return {"enum": [*_names(field), *_names(field).values()]}
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return {"type": "boolean"}
            case FieldDescriptor.CPPTYPE_STRING:
                return {"type": "string", **_words(rules.string, _LENGTHS)}
            case FieldDescriptor.CPPTYPE_DOUBLE:
                return {"type": "number", **_words(rules.double, _BOUNDS)}
            case FieldDescriptor.CPPTYPE_UINT32:
                return {"type": "integer", "minimum": 0, "maximum": _UINT32, **_words(rules.uint32, _BOUNDS)}
            case FieldDescriptor.CPPTYPE_UINT64:
                return {"type": "integer", "minimum": 0, **_words(rules.uint64, _BOUNDS)}
        raise NotImplementedError(f"{field.full_name}: say here what its type is in JSON Schema")

    def _map(self, entry: Any, rules: Any) -> Schema:
        key, value = (entry.fields_by_name[name] for name in ("key", "value"))
        if key.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            names: Schema = _words(rules.keys.string, _LENGTHS)
        else:
            names = {"pattern": f"^({'|'.join(_from_one_to(rules.keys.uint32.lte))})$"}
        schema = {"type": "object", "propertyNames": names, "additionalProperties": self._single(value, rules.values)}
        return schema | _set(minProperties=rules.min_pairs, maxProperties=rules.max_pairs)


def _names(field: Any) -> dict[str, str]:
    """What an enum may be: its short name, as podium.client reads it -> the contract's; 0 is what nobody writes."""
    prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.name for value in field.enum_type.values if value.number}


def _words(rules: Any, words: Mapping[str, str]) -> Schema:
    """The rules that are set, in the words of JSON Schema."""
    known = {field.name for field in rules.DESCRIPTOR.fields}
    return {word: getattr(rules, name) for name, word in words.items() if name in known and rules.HasField(name)}


def _set(**bounds: int) -> Schema:
    return {name: value for name, value in bounds.items() if value}


def _from_one_to(largest: int) -> Iterator[str]:
    """Patterns that the numbers from 1 to `largest` match, and no others, as names of a JSON object are text.

    >>> list(_from_one_to(1000))
    ['[1-9][0-9]{0,2}', '1000']
    """
    digits = str(largest)
    if len(digits) > 1:
        yield f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    for place, digit in enumerate(digits):
        low, high, rest = int(place == 0), int(digit) - 1, len(digits) - place - 1
        if low <= high:
            yield digits[:place] + f"[{low}-{high}]" + (f"[0-9]{{{rest}}}" if rest else "")
    yield digits


def _comments(files: descriptor_pb2.FileDescriptorSet) -> Iterator[tuple[str, str]]:
    """Full name -> the comment before it, of messages, fields, enums and their values."""
    for file in files.file:
        told = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for path, name in _places(file):
            if comment := told.get(path):
                yield f"{file.package}.{name}", " ".join(comment.split())


def _places(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    messages, enums = file.DESCRIPTOR.fields_by_name["message_type"], file.DESCRIPTOR.fields_by_name["enum_type"]
    yield from _within(file.message_type, (messages.number,), "", ("field", "enum_type"))
    yield from _within(file.enum_type, (enums.number,), "", ("value",))


def _within(
    items: Iterable[Any], path: tuple[int, ...], above: str, parts: Sequence[str]
) -> Iterator[tuple[tuple[int, ...], str]]:
    """The places of things and of their parts, by the rule of SourceCodeInfo: numbers of fields and places in lists."""
    for index, item in enumerate(items):
        place, name = (*path, index), f"{above}{item.name}"
        yield place, name
        for part in parts:
            number = item.DESCRIPTOR.fields_by_name[part].number
            below = ("value",) if part == "enum_type" else ()
            yield from _within(getattr(item, part), (*place, number), f"{name}.", below)
