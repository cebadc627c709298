"""The contract's own rules (buf.validate), as violations that name their fields."""

import re
from typing import Any

import protovalidate
from google.protobuf.message import Message

from podium.jobs.errors import FieldViolation
from podium.server.admission._keeping import keeps

#: A rule on a whole message begins its sentence with the field that it is about, relative to the message.
_NAMED = re.compile(r"([a-z][a-z0-9_.]*): (.+)", re.DOTALL)


#: Compiles the rules of a message once, when it first sees one.
_collect = protovalidate.Validator().collect_violations


def violations(message: Message) -> tuple[FieldViolation, ...]:
    """Everything in which a message breaks the contract's rules."""
    return () if keeps(message) else tuple(_violation(found.proto) for found in _collect(message))


def _violation(found: Any) -> FieldViolation:
    path = _path(found.field.elements) if found.field is not None else ""
    description = str(found.message) or f"breaks the rule {found.rule_id}"
    if (named := _NAMED.fullmatch(description)) is not None:
        return FieldViolation(field=f"{path}.{named[1]}" if path else named[1], description=named[2])
    return FieldViolation(field=path, description=description)


def _path(elements: Any) -> str:
    text = ""
    for element in elements:
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            text += _subscript(element.subscript)
    return text


def _subscript(subscript: Any) -> str:
    quoted = subscript.field == "string_key"
    return f'["{subscript.value}"]' if quoted else f"[{subscript.value}]"
