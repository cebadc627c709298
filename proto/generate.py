"""Generates proto/gen from the .proto files: `python proto/generate.py OUTPUT_DIRECTORY`.

The validation rules stay in the descriptors as bytes, but the import of buf/validate/validate.proto is taken out, so
that the generated code (and with it every client) needs no `buf` package. The server's validator reads the bytes.
The JSON Schema of a job.yaml is made here, too, as comments are in the .proto files alone, and so are the rules as
plain data, for who wants to read them without a validator.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import contract_rules
import grpc_tools
import spec_schema
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
RULES = "buf/validate/validate.proto"
PACKAGE = "podium.api.v1"
SCHEMA = "podium/api/v1/job_spec.schema.json"
PLAIN_RULES = "podium/api/v1/rules.json"


def main(output: Path) -> None:
    """Replaces everything under `output` by freshly generated code."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("podium/**/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch) / "descriptors.binpb"
        _compile_descriptors(files, descriptors)
        _write_data(descriptors, output)
        _take_out_rules_import(descriptors)
        _generate(files, descriptors, output)
    services = {name for name in files if name.endswith("_service.proto")}
    for path in output.glob("**/*_pb2_grpc.py*"):
        if path.name.split("_pb2_grpc")[0] + ".proto" not in {Path(name).name for name in services}:
            path.unlink()
    (output / "podium/api/py.typed").touch()


def _compile_descriptors(files: list[str], target: Path) -> None:
    _protoc(
        f"-I{PROTO}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={target}",
        *files,
    )


def _write_data(descriptors: Path, output: Path) -> None:
    whole = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    _write_json(output / SCHEMA, spec_schema.schema_of(whole, f"{PACKAGE}.JobSpec", "A job for Podium"))
    _write_json(output / PLAIN_RULES, contract_rules.rules_of(whole, PACKAGE))


def _write_json(target: Path, content: Mapping[str, object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _take_out_rules_import(descriptors: Path) -> None:
    # The options' extensions are unknown to this parser, which therefore keeps them as they are.
    whole = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    kept = [file for file in whole.file if file.name != RULES]
    for file in kept:
        remaining = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(remaining)
    descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=kept).SerializeToString())


def _generate(files: list[str], descriptors: Path, output: Path) -> None:
    _protoc(
        f"--descriptor_set_in={descriptors}",
        f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out={output}",
        f"--mypy_grpc_out={output}",
        *files,
    )


def _protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        sys.exit("proto/generate.py: protoc failed; its message is above")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
