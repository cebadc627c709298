"""What a server says of itself and of what a spec may name."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ParameterInfo:
    """A parameter of a sorter; a bound that is None does not bind."""

    name: str
    default: float | str | None
    """A whole number for a parameter that takes only those; one of `choices` where there are any."""
    summary: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    """The names to choose from; empty: it is a number."""


@dataclass(frozen=True, kw_only=True)
class SorterInfo:
    """A sorter that a spec may choose, or a baseline; `name` is its field in a job.yaml."""

    name: str
    summary: str
    citation: str
    parameters: tuple[ParameterInfo, ...]
    cost: str = ""
    """What one sample costs, in n classes, the m scores that it sees and the largest k."""
    caveats: tuple[str, ...] = ()
    """What to know before choosing it."""
    baseline: bool = False
    """A loss of others that stands where a sorter stands, and estimates no probability."""


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """A backbone that a spec may name."""

    name: str
    library: str
    """Either `torchvision` or `timm`."""
    parameters: int
    """In all, the classifier included; 0: not known."""
    image_size: int
    """The side of the square input that it was made for, in pixels."""


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """A server's version and limits."""

    version: str
    max_message_bytes: int
    max_page_size: int
    max_metric_points: int
    events_kept: int
    """Events kept for each job; older ones are out of range for a watch."""
    allowed_roots: tuple[str, ...]
    """Where paths in a spec may point to."""
