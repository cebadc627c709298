"""Shards as WebDataset writes them: "000.jpg" and its label "000.cls" or "000.json" side by side in .tar files.

Only the headers and the labels are read; an image is read later, from its place in the shard.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

from podium.jobs.datasets._braces import MOST, expand
from podium.jobs.datasets._headers import members
from podium.jobs.datasets._index import EXTENSIONS, IMAGES, DatasetError, Entry, SplitIndex, shown
from podium.jobs.locations import local_path, opened

_REMEDY = "name .tar shards with an image and its label side by side, such as 000.jpg and 000.cls"
#: The extensions of labels, the one that goes first in front.
LABELS = ("cls", "json")
_MAX_LABEL_BYTES = 1 << 20
#: Latency, not the processor, is what remote shards wait for.
_THREADS = 8


def expand_shards(patterns: Sequence[str]) -> tuple[str, ...]:
    """The shards that patterns with braces stand for, in their order.

    Raises:
        DatasetError: a pattern's braces say nothing, they are too many, or a shard is named twice.
    """
    shards: dict[str, None] = {}
    for pattern in patterns:
        try:
            expanded = expand(pattern)
        except ValueError as error:
            raise DatasetError(str(error)) from error
        for shard in map(local_path, expanded):
            if shard in shards:
                raise DatasetError(f"{shown(shard)} is named twice; its images would count twice")
            shards[shard] = None
        if len(shards) > MOST:
            raise DatasetError(f"there are more than {MOST:,} shards; make larger shards")
    return tuple(shards)


def index_shards(patterns: Sequence[str], classes: Sequence[str]) -> SplitIndex:
    """The images of a split, sorted by class, shard and name.

    Raises:
        DatasetError: a shard cannot be read, or an image or a label lacks the other, or names no class.
    """
    labels = _Labels(classes)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="shards") as pool:
        found = pool.map(lambda shard: tuple(_entries(shard, labels)), expand_shards(patterns))
        entries = [entry for shard in found for entry in shard]
    if not entries:
        raise DatasetError(f"{shown(patterns[0])} holds no images; {_REMEDY}")
    entries.sort(key=lambda entry: (entry.class_name, entry.path, entry.name))
    return SplitIndex(path=shown(patterns[0]), entries=tuple(entries))


@dataclass(slots=True)
class _Sample:
    """The members of one name."""

    image: tuple[str, int, int] | None = None
    """Name, offset, size."""
    labels: dict[str, bytes] = field(default_factory=dict)


def _entries(shard: str, labels: "_Labels") -> Iterator[Entry]:
    try:
        with opened(shard) as tar:
            samples = _samples(shard, tar.file, tar.size)
            mark = tar.mark
    except FileNotFoundError as error:
        raise DatasetError(f"shard {shown(shard)} does not exist; check the name and its braces") from error
    except OSError as error:
        raise DatasetError(f"shard {shown(shard)} cannot be read: {error.strerror or error}") from error
    for key, sample in samples.items():
        where = f"{shown(key)} in {shown(shard)}"
        if sample.image is None:
            raise DatasetError(f"{where} has a label and no image; put a {IMAGES} file beside it")
        if not sample.labels:
            raise DatasetError(
                f"{where} has an image and no label; put {shown(key)}.cls or {shown(key)}.json beside it"
            )
        name, offset, size = sample.image
        class_name = labels.read(where, sample.labels)
        yield Entry(path=shard, offset=offset, size=size, name=shown(name), class_name=class_name, modified=mark)


def _samples(shard: str, file: IO[bytes], size: int) -> dict[str, _Sample]:
    """What belongs together, by the name up to the first dot, as WebDataset has it."""
    samples: dict[str, _Sample] = {}
    for member, parts in members(shown(shard), file, size, remedy=_REMEDY):
        name = "/".join(parts)
        stem, _, extension = parts[-1].partition(".") if parts else ("", "", "")
        extension = extension.lower()
        is_label = extension in LABELS
        if not member.isreg() or not (is_label or f".{extension}" in EXTENSIONS):
            continue
        sample = samples.setdefault("/".join((*parts[:-1], stem)), _Sample())
        if extension in sample.labels or (sample.image is not None and not is_label):
            raise DatasetError(
                f"{shown(name)} in {shown(shard)} is the second of its kind; give each image its own name"
            )
        if is_label:
            sample.labels[extension] = _label_bytes(shown(f"{name} in {shard}"), file, member)
        else:
            sample.image = (name, member.offset_data, member.size)
    return samples


def _label_bytes(where: str, file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_LABEL_BYTES:
        raise DatasetError(f"{where} has {member.size} bytes; a label is a class's number or name")
    file.seek(member.offset_data)
    return file.read(member.size)


class _Labels:
    """From a label's bytes to the class: a whole number is a place in the declared classes, other text a name."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._places = {name: place for place, name in enumerate(classes)}

    def read(self, where: str, labels: dict[str, bytes]) -> str:
        """The class's name; .cls goes before .json.

        Raises:
            DatasetError: the label names no class.
        """
        extension = next(name for name in LABELS if name in labels)
        where = f"the .{extension} of {where}"
        try:
            text = labels[extension].decode("utf-8")
            label = text.strip() if extension == "cls" else _of_json(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where} cannot be read ({error}); write a class's number or name") from error
        if isinstance(label, str) and re.fullmatch("[0-9]{1,9}", label) and extension == "cls":
            return self._numbered(where, int(label), told=label)
        if isinstance(label, int):
            return self._numbered(where, label)
        if label not in self._places:
            raise DatasetError(f"{where} says {label[:100]!a}, which is none of the job's classes; list it in classes")
        return label

    def _numbered(self, where: str, number: int, told: str | None = None) -> str:
        if not 0 <= number < len(self._classes):
            raise DatasetError(f"{where} says {number}, but the {len(self._classes)} classes have numbers from 0 on")
        if self._places.get(told or "", number) != number:
            raise DatasetError(
                f"{where} says {told}, which is the number of class {self._classes[number]!r} and the name of another; "
                "use .json, where a number is a number and text is a name"
            )
        return self._classes[number]


def _of_json(text: str) -> str | int:
    document = json.loads(text)
    label = (
        next((document[key] for key in ("cls", "label") if key in document), None)
        if isinstance(document, dict)
        else None
    )
    if isinstance(label, bool) or not isinstance(label, (str, int)):
        raise ValueError('there is no number or text under "cls" or "label"')
    return label
