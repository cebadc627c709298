"""What a server says of itself and of what a spec may name."""

from dataclasses import dataclass
from typing import Any

from podium.jobs.spec import Dataset, ImageFolder, ImageManifest, TorchvisionDataset, WebDataset


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


_DATASETS = {
    "image_folder": ImageFolder,
    "torchvision_dataset": TorchvisionDataset,
    "image_manifest": ImageManifest,
    "web_dataset": WebDataset,
}


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Something that a spec's dataset may name."""

    path: str
    """Where it lies."""
    kind: str
    """Its field in a job.yaml, such as `image_folder`."""
    splits: tuple[str, ...] = ()
    """Its parts below the path; empty: the path is all of it."""
    classes: int = 0
    """How many it has; 0: that cannot be told without reading it."""
    name: str = ""
    """In torchvision.datasets; empty: it is none of torchvision."""

    @property
    def fields(self) -> dict[str, Any]:
        """What stands under its kind in a job.yaml.

        >>> DatasetInfo(path="/data/pets", kind="image_folder", splits=("train", "test")).fields
        {'train': '/data/pets/train', 'test': '/data/pets/test'}
        """
        from podium.jobs.datasets import role_of

        if self.kind == "torchvision_dataset":
            return {"name": self.name, "root": self.path}
        parts: dict[str, list[str]] = {} if self.splits else {"train": [self.path]}
        for part in self.splits:
            parts.setdefault(role_of(part), []).append(f"{self.path}/{part}")
        return parts if self.kind == "web_dataset" else {role: paths[0] for role, paths in parts.items()}

    @property
    def dataset(self) -> Dataset:
        """For a spec: `JobSpec(dataset=info.dataset, ...)`. Shards need the spec's `classes` beside it."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in self.fields.items()}
        dataset: Dataset = _DATASETS[self.kind](**given)
        return dataset


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """What a server found below its allowed roots."""

    datasets: tuple[DatasetInfo, ...]
    """By path."""
    truncated: bool
    """Whether there are more than it was ready to look for."""


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
    allowed_uri_prefixes: tuple[str, ...]
    """What URIs in a spec must lie below."""
    tokens_required: bool
    """Whether every call needs a token."""
    max_calls_per_second: int
    """Of one caller; 0: no limit."""
    max_streams: int
    """That one caller may hold open; 0: no limit."""
    max_watched_jobs: int
    """On one stream."""
