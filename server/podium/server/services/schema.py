"""The JSON Schema of a job.yaml: what proto/generate.py made of the contract, with the defaults of podium.jobs.spec."""

import dataclasses
import json
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

from podium.jobs.spec import JobSpec
from podium.jobs.wire import DATACLASSES


@cache
def spec_schema() -> str:
    """The schema, as JSON, draft 2020-12."""
    text = files("podium.api.v1").joinpath("job_spec.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    for name, part in {JobSpec.__name__: schema, **schema["$defs"]}.items():
        for field in dataclasses.fields(DATACLASSES[name]):
            # A oneof is one field there, and none of the schema's.
            if (shown := part.get("properties", {}).get(field.name)) and (
                default := _default(field, shown)
            ) is not None:
                shown["default"] = default
    return json.dumps(schema, ensure_ascii=False)


def _default(field: dataclasses.Field[Any], shown: dict[str, Any]) -> Any:
    """What a field is where nobody says anything, as JSON; None: it must be said, or depends on the rest."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if isinstance(default, Enum):
        return default.name.lower()
    if isinstance(default, dict):
        return {str(key): value for key, value in default.items()} or None
    return default if isinstance(default, (bool, int, float, str)) and default != "" else None
