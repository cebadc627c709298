"""Requests that nobody should send: good ones with something wrong in them, in their fields or in their bytes."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

#: Field numbers that the contract does not use, so that what they hold is unknown to the server.
_UNKNOWN = (15_000, 2**29 - 1)
_WORDS = (
    "",
    "x",
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://169.254.169.254/latest",
    "\x00",
    "a\nb\r\nc: d",
    "\u202e\ufeff\U0001f4a9",
    "%s%n{0}{self.__class__}",
    "*",
    "podium:jobs",
    "state = RUNNING",
    "NOT " * 60 + "state = RUNNING",
    "(" * 400,
    'labels.a = "' + "\\" * 50,
    "create_time desc",
    "00000000-0000-0000-0000-000000000000",
    "__proto__",
    "9" * 400,
)
_WHOLE = (0, 1, 2, 7, 100, 1000, 2**16, 2**31 - 1, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, -1, -(2**31), -(2**63))
_REAL = (0.0, -0.0, 1.0, 1e-320, 1e308, -1.0, math.nan, math.inf, -math.inf)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_DEEPEST = 6


class Writer:
    """Writes requests.

    Args:
        seed: the same one writes the same.
        known: values for fields by name, such as ids that there are, so that calls get past the door.
        spec: a spec that is good.
    """

    def __init__(self, seed: int, known: Mapping[str, Sequence[Any]], spec: Message) -> None:
        self._random = random.Random(seed)
        self._known = known
        self._spec = spec

    def request(self, kind: type[Message]) -> bytes:
        """One request of a kind: sometimes good, mostly not."""
        chance, message = self._random.random(), kind()
        self._fill(message, 0)
        if "spec" in kind.DESCRIPTOR.fields_by_name and chance < 0.9:
            message.spec.CopyFrom(self._spec)  # type: ignore[attr-defined]  # of CreateJobRequest alone
            for _ in range(self._random.choice((0, 1, 1, 2, 5))):
                self._change(message.spec)  # type: ignore[attr-defined]  # as above
        data = message.SerializeToString()
        return data if chance < 0.6 else self._random.choice(_DAMAGES)(data, self._random)

    def _fill(self, message: Message, depth: int) -> None:
        for field in _fields(message):
            if self._random.random() < 0.7 - 0.1 * depth:
                self._set(message, field, depth)

    def _change(self, message: Message) -> None:
        """Changes one field somewhere within."""
        message.SetInParent()
        if not (fields := _fields(message)):
            return
        field = self._random.choice(fields)
        if field.message_type and not field.is_repeated and self._random.random() < 0.7:
            self._change(getattr(message, field.name))
        else:
            self._set(message, field, 1)

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        count = self._random.choice((0, 1, 2, 3, 3, 5, 1200)) if field.is_repeated else 1
        if field.message_type and field.message_type.GetOptions().map_entry:
            self._set_map(getattr(message, field.name), field, count)
        elif field.message_type:
            if depth < _DEEPEST:
                for _ in range(min(count, 5)):
                    self._fill(self._place(message, field), depth + 1)
        elif field.is_repeated:
            del getattr(message, field.name)[:]
            getattr(message, field.name).extend(self._value(field) for _ in range(count))
        else:
            setattr(message, field.name, self._value(field))

    def _place(self, message: Message, field: FieldDescriptor) -> Message:
        value = getattr(message, field.name)
        if field.is_repeated:
            added: Message = value.add()
            return added
        value.SetInParent()
        found: Message = value
        return found

    def _set_map(self, target: Any, field: FieldDescriptor, count: int) -> None:
        key, value = _fields(field)
        for number in range(count):
            word = self._value(key, field.name)
            name = f"{word}{number}" if count > 5 and isinstance(word, str) else word
            if value.message_type:
                self._fill(target[name], 2)
            else:
                target[name] = self._value(value)

    def _value(self, field: FieldDescriptor, name: str | None = None) -> Any:
        known = self._known.get(name or field.name)
        if known and self._random.random() < 0.7:
            return self._random.choice(known)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            word = self._word()
            return word.encode() if field.type == FieldDescriptor.TYPE_BYTES else word
        if field.cpp_type in _RANGES:
            low, high = _RANGES[field.cpp_type]
            return min(max(self._random.choice(_WHOLE), low), high)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        return self._random.choice(_REAL)

    def _word(self) -> str:
        chance = self._random.random()
        if chance < 0.05:
            return self._random.choice(("a", "é", "\x00", "/")) * self._random.choice((300, 5000, 70_000))
        if chance < 0.2:
            return "".join(chr(self._random.randrange(1, 0x2FF)) for _ in range(self._random.randrange(30)))
        return self._random.choice(_WORDS)


def _fields(of: Any) -> list[Any]:
    """The fields of a message, or of the message that a field holds, by number."""
    kind: Any = of.message_type if isinstance(of, FieldDescriptor) else of.DESCRIPTOR
    return list(kind.fields)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\x00")
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _repeated(data: bytes, rng: random.Random) -> bytes:
    return data * rng.choice((2, 10, 100))


def _of_another_type(data: bytes, rng: random.Random) -> bytes:
    """A field of the contract with another wire type."""
    kind = rng.choice((0, 1, 2, 5))
    value = {0: b"\xff" * 9 + b"\x01", 1: b"\xff" * 8, 2: b"\x03abc", 5: b"\xff" * 4}[kind]
    return data + _field(rng.randrange(1, 30), kind) + value


def _with_unknown(data: bytes, rng: random.Random) -> bytes:
    body = rng.randbytes(rng.choice((0, 10, 1000)))
    return data + (_field(rng.choice(_UNKNOWN), 2) + _varint(len(body)) + body) * rng.choice((1, 500))


def _nested(data: bytes, rng: random.Random) -> bytes:
    """Messages within messages, or groups, deeper than any parser follows."""
    depth = rng.choice((50, 99, 101, 5000, 200_000))
    if rng.random() < 0.5:
        return data + _field(1, 3) * depth
    body = b""
    for _ in range(min(depth, 2000)):
        body = _field(1, 2) + _varint(len(body)) + body
    return body


def _no_text(data: bytes, rng: random.Random) -> bytes:
    return (
        data
        + _field(rng.randrange(1, 8), 2)
        + b"\x04"
        + rng.choice((b"\xff\xfe\xfd\xfc", b"\xed\xa0\x80a", b"\xc0\x80\xc0\x80"))
    )


def _lying_length(data: bytes, rng: random.Random) -> bytes:
    return data + _field(rng.randrange(1, 8), 2) + _varint(rng.choice((2**31, 2**32 - 1, 2**63, len(data) + 100)))


def _noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 20, 1000, 100_000)))


def _large(data: bytes, rng: random.Random) -> bytes:
    """Just below and above what the server takes."""
    body = bytes(rng.choice(((4 << 20) - 100 - len(data), 5 << 20)))
    return data + _field(_UNKNOWN[0], 2) + _varint(len(body)) + body


#: `_large` is rare, as it is slow.
_DAMAGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(_flipped, _cut, _repeated, _of_another_type, _with_unknown, _nested, _no_text, _lying_length, _noise) * 6,
    _large,
)
