"""The images that a spec names: whether they may be read, and which classes they have.

Class folders and tables are read here. Shards are not: they may lie where only workers can read, and there may be
thousands; a job that has them declares its classes. A dataset of torchvision has its classes in the catalogue.
"""

import difflib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message

from podium.api.v1.spec_pb2 import JobSpec as JobSpecMessage
from podium.jobs.catalogue import datasets, find_dataset
from podium.jobs.datasets import DatasetError, Split, check_counts, expand_shards
from podium.jobs.spec import ImageManifest, TorchvisionDataset, WebDataset
from podium.jobs.wire import DATACLASSES, from_proto
from podium.server.admission._findings import Findings
from podium.server.admission._looks import Look, Looks
from podium.server.admission._paths import Places
from podium.server.admission._scans import Scan, Scanned

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
#: Bytes of all classes' names together. They go with their job into every message about it, and of more than 4 MiB gRPC
#: takes none; the 21,841 classes of ImageNet-21k are 0.4 MB.
_MOST_NAMES = 2 << 20
Classes = tuple[str, ...]


class Datasets:
    """Rules on the dataset of a spec.

    Args:
        places: where it may lie.
        scan: reads the classes of a split.
        looks: what was seen lately.
    """

    def __init__(self, places: Places, scan: Scan, looks: Looks) -> None:
        self._places = places
        self._scan = scan
        self._looks = looks

    def classes(self, spec: JobSpecMessage, findings: Findings) -> Classes | None:
        """The classes in the order of the model's outputs; None where they cannot be told."""
        kind = spec.WhichOneof("dataset")
        if kind is None:
            return None
        message: Message = getattr(spec, kind)
        field, declared = f"spec.{kind}", tuple(spec.classes)
        key = (kind, message.SerializeToString(deterministic=True), declared)
        seen = self._looks.recent(key, lambda: self._look(field, _read(message), declared))
        if seen is None:
            dataset = _read(message)
            if isinstance(dataset, TorchvisionDataset):
                return self._in_torchvision(field, dataset, declared, findings)
            seen = self._looks.take(key, lambda: self._look(field, dataset, declared))
        findings.include(seen.findings)
        return seen.classes

    def _look(self, field: str, dataset: WebDataset | Scanned, declared: Classes) -> Look:
        findings = Findings()
        if isinstance(dataset, WebDataset):
            classes = self._in_shards(field, dataset, declared, findings)
        elif isinstance(dataset, ImageManifest) and not self._finds_rows(field, dataset, findings):
            classes = None
        else:
            classes = self._scanned(field, dataset, declared, findings)
        if (size := sum(len(name.encode()) for name in classes or ())) > _MOST_NAMES:
            where = "spec.classes" if declared else f"{field}.train"
            findings.invalid(
                where, f"the names of its classes are {size} bytes, and {_MOST_NAMES} are the most; shorten them"
            )
        return Look(findings=findings, classes=classes)

    def _finds_rows(self, field: str, manifest: ImageManifest, findings: Findings) -> bool:
        if manifest.path_column == manifest.label_column:
            findings.invalid(f"{field}.label_column", "is the column of the paths; name that of the classes")
            return False
        return not manifest.root or self._places.check_path(f"{field}.root", manifest.root, findings)

    def _scanned(self, field: str, dataset: Scanned, declared: Classes, findings: Findings) -> Classes | None:
        classes = declared
        for split in _SPLITS:
            where, path = f"{field}.{split}", getattr(dataset, split)
            if not path or not self._places.check_path(where, path, findings):
                continue
            with _said_of(where, findings):
                counts = self._scan(dataset, split) or {}
                check_counts(path, counts, split, classes)
                if split == "train" and not declared:
                    classes = tuple(sorted(counts))
        return classes or None

    def _in_torchvision(
        self, field: str, dataset: TorchvisionDataset, declared: Classes, findings: Findings
    ) -> Classes | None:
        if root := dataset.root:
            check = functools.partial(self._places.check_path, f"{field}.root", root)
            findings.include(self._looks.faults(("root", root), check))
        card = find_dataset(dataset.name)
        if card is None:
            if not findings.about(f"{field}.name"):
                findings.invalid(f"{field}.name", f"{dataset.name!r} is not among the datasets; {_alike(dataset.name)}")
            return None
        if declared not in ((), card.classes):
            findings.invalid("spec.classes", f"the classes of {card.name} are its own, in its order; leave classes out")
        return card.classes

    def _in_shards(self, field: str, dataset: WebDataset, declared: Classes, findings: Findings) -> Classes | None:
        for split in _SPLITS:
            where = f"{field}.{split}"
            with _said_of(where, findings):
                shards = expand_shards(getattr(dataset, split))
                # The first that cannot be read is told, and not thousands.
                all(self._places.check(where, shard, findings) for shard in shards)
        return declared or None


def _read(message: Message) -> Any:
    return from_proto(DATACLASSES[message.DESCRIPTOR.name], message)


@contextmanager
def _said_of(field: str, findings: Findings) -> Iterator[None]:
    """Tells the findings what is wrong with a dataset."""
    try:
        yield
    except DatasetError as error:
        findings.invalid(field, error.message)


def _alike(name: str) -> str:
    known = [card.name for card in datasets()]
    by_letters = {known_name.lower(): known_name for known_name in known}
    close = difflib.get_close_matches(name.lower(), by_letters, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(by_letters[letters] for letters in close)}?"
    return f"write one of {', '.join(known)}, or name image_folder"
