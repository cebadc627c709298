"""The rules of buf.validate as plain data, from a set of descriptors.

The generated code keeps them as bytes that only a validator understands; the server's own quick look at a message
(podium.server.admission) reads these.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

Rules = dict[str, Any]


class Reader:
    """Reads the rules of descriptors.

    Args:
        files: everything that the contract imports, buf/validate/validate.proto among it.
    """

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        # A pool of its own knows the rules as extensions; the default one has descriptor.proto without them.
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)

    def of_message(self, message: Any) -> Any:
        """buf.validate.MessageRules."""
        return self._read(message, "MessageOptions", "message")

    def of_oneof(self, oneof: Any) -> Any:
        """buf.validate.OneofRules."""
        return self._read(oneof, "OneofOptions", "oneof")

    def of_field(self, field: Any) -> Any:
        """buf.validate.FieldRules."""
        return self._read(field, "FieldOptions", "field")

    def _read(self, descriptor: Any, options: str, extension: str) -> Any:
        kind = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"google.protobuf.{options}"))
        told = kind.FromString(descriptor.GetOptions().SerializeToString())
        return told.Extensions[self.pool.FindExtensionByName(f"buf.validate.{extension}")]


def rules_of(files: descriptor_pb2.FileDescriptorSet, package: str) -> dict[str, Rules]:
    """By a message's full name its expressions, the oneofs that must be set, the rules of its fields; if it has any."""
    reader = Reader(files)
    names = (
        f"{package}.{message.name}" for file in files.file if file.package == package for message in file.message_type
    )
    messages = (reader.pool.FindMessageTypeByName(name) for name in names)
    return {message.full_name: rules for message in messages if (rules := dict(_rules(reader, message)))}


def _rules(reader: Reader, message: Any) -> Iterator[tuple[str, Any]]:
    if expressions := [rule.expression for rule in reader.of_message(message).cel]:
        yield "cel", expressions
    if oneofs := [oneof.name for oneof in message.oneofs if reader.of_oneof(oneof).required]:
        yield "oneofs", oneofs
    fields = {field.name: _plain(reader.of_field(field)) for field in message.fields}
    if found := {name: rules for name, rules in fields.items() if rules}:
        yield "fields", found


def _plain(rules: Any) -> Rules:
    told: Rules = json_format.MessageToDict(rules, preserving_proto_field_name=True)
    return told
