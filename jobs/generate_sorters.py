"""Writes podium/jobs/sorters.json from the registry of podium.topk: `python jobs/generate_sorters.py`.

The server tells what a spec may choose without torch; this is how it can.
"""

import json
from enum import Enum
from pathlib import Path
from typing import Any

from podium.topk import BASELINES, SORTERS, Parameter, Surrogate, parameters

TARGET = Path(__file__).parent / "podium" / "jobs" / "sorters.json"
_BOUNDS = ("above", "at_least", "below", "at_most")


def document() -> str:
    """The text of the file: every sorter, then every baseline, in the order of the registry."""
    rows = [
        _row(name, family, baseline=registry is BASELINES)
        for registry in (SORTERS, BASELINES)
        for name, family in registry.items()
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _row(name: str, family: type[Surrogate], *, baseline: bool) -> dict[str, Any]:
    card = family.card
    return {
        "name": name,
        "baseline": baseline,
        "summary": card.summary,
        "citation": card.citation,
        "cost": card.cost,
        "caveats": list(card.caveats),
        "parameters": [_parameter(item) for item in parameters(family)],
    }


def _parameter(item: Parameter) -> dict[str, Any]:
    """What binds, and nothing else; a choice goes by its names in the contract."""
    row = {"name": item.name, "default": item.default, "summary": item.summary}
    if isinstance(item.default, Enum):
        members = type(item.default)
        return row | {"default": _in_contract(item.default), "choices": [_in_contract(each) for each in members]}
    return row | {bound: limit for bound in _BOUNDS if (limit := getattr(item, bound)) is not None}


def _in_contract(member: Enum) -> str:
    """Distribution.CAUCHY -> "DISTRIBUTION_CAUCHY"."""
    return f"{type(member).__name__.upper()}_{member.name}"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
