"""How the pool is shared out: weights and quotas of projects, and the account of what each has used."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from podium.jobs.store import Usage

#: (pool, project) -> slots or slot-seconds.
ByProject = Mapping[tuple[str, str], float]

#: What has aged to less, in slot-seconds, is forgotten.
_NOTHING = 0.1
_PROJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What the operator says about projects."""

    half_life: float = 86_400.0
    """PODIUM_SHARE_HALF_LIFE: after so many seconds, what was used counts half."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """PODIUM_SHARES, "vision=2 nlp=1": with twice the weight a project gets twice the slots. 1 for all others."""
    quotas: Mapping[str, int] = field(default_factory=dict)
    """PODIUM_QUOTAS, "vision=8": slots of each pool; beyond them a project only borrows. Without one there is none."""


def sharing_from_environment(environ: Mapping[str, str] = os.environ) -> Sharing:
    """The operator's word.

    Raises:
        ValueError: a variable is not what it is to be, with the remedy.
    """
    half_life = environ.get("PODIUM_SHARE_HALF_LIFE") or str(Sharing.half_life)
    if not (seconds := _number(half_life)) > 0:
        raise ValueError(f"PODIUM_SHARE_HALF_LIFE={half_life!r} is not a number of seconds above 0")
    weights = _pairs(environ, "PODIUM_SHARES", "vision=2 nlp=1")
    quotas = _pairs(environ, "PODIUM_QUOTAS", "vision=8")
    for project, weight in weights.items():
        if not weight > 0:
            raise ValueError(f"PODIUM_SHARES: the weight of {project} is not a number above 0")
    for project, quota in quotas.items():
        if not quota >= 0 or quota != int(quota):
            raise ValueError(f"PODIUM_QUOTAS: the quota of {project} is not a whole number of slots from 0")
    return Sharing(half_life=seconds, weights=weights, quotas={name: int(quota) for name, quota in quotas.items()})


def _pairs(environ: Mapping[str, str], variable: str, example: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for word in re.findall(r"[^\s,]+", environ.get(variable, "")):
        project, equals, value = word.partition("=")
        if not (equals and _PROJECT.fullmatch(project)):
            raise ValueError(f"{variable}: {word!r} is not PROJECT=NUMBER; set it to something like {example!r}")
        if project in found:
            raise ValueError(f"{variable} names {project} twice")
        found[project] = _number(value)
    return found


def _number(text: str) -> float:
    """The number; -1, which none may be, where it is none."""
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if math.isfinite(value) else -1.0


def aged(usage: Usage | None, held: ByProject, now: datetime, half_life: float) -> Usage:
    """The account at another time: what was used counts less, and what is held since is added.

    It comes to the same however many steps it takes.

    Args:
        usage: the account; None: nobody has used anything.
        held: slots that are held all the time from `usage.time` to `now`.
        now: the time.
        half_life: seconds after which what was used counts half.
    """
    seconds = max((now - usage.time).total_seconds(), 0.0) if usage else 0.0
    kept = 0.5 ** (seconds / half_life)
    gained = half_life / math.log(2) * -math.expm1(-math.log(2) * seconds / half_life)
    before = usage.seconds if usage else {}
    after = {key: before.get(key, 0.0) * kept + held.get(key, 0) * gained for key in before.keys() | held.keys()}
    time = max(usage.time, now) if usage else now
    return Usage(time=time, seconds={key: used for key, used in after.items() if used > _NOTHING or held.get(key)})
