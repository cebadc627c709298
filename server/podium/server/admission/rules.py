"""The contract's own rules (buf.validate), as violations that name their fields."""

import re
from typing import Any

import protovalidate
from google.protobuf.message import Message

from podium.jobs.errors import FieldViolation
from podium.server.admission._keeping import keeps
from podium.server.admission._words import described

#: A rule on a whole message begins its sentence with the field that it is about, relative to the message.
_NAMED = re.compile(r"([a-z][a-z0-9_.]*): (.+)", re.DOTALL)
_FINITE = "double.finite"


#: Compiles the rules of a message once, when it first sees one.
_collect = protovalidate.Validator().collect_violations


def violations(message: Message) -> tuple[FieldViolation, ...]:
    """Everything in which a message breaks the contract's rules."""
    if keeps(message):
        return ()
    found: list[Any] = _collect(message)
    ranged = {_path(each) for each in found if each.proto.rule_id.startswith("double.gt")}
    # Of what is no finite number the rule on its range says more.
    told = [each for each in found if each.proto.rule_id != _FINITE or _path(each) not in ranged]
    return tuple(_violation(each, message.DESCRIPTOR) for each in told)


def _violation(found: Any, kind: Any) -> FieldViolation:
    path, description = _path(found), described(found, kind)
    if (named := _NAMED.fullmatch(description)) is not None:
        return FieldViolation(field=f"{path}.{named[1]}" if path else named[1], description=named[2])
    return FieldViolation(field=path, description=description)


def _path(found: Any) -> str:
    text = ""
    # A rule on the whole of a request is about no field.
    for element in found.proto.field.elements if found.proto.field is not None else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            text += _subscript(element.subscript)
    return text


def _subscript(subscript: Any) -> str:
    quoted = subscript.field == "string_key"
    return f'["{subscript.value}"]' if quoted else f"[{subscript.value}]"
