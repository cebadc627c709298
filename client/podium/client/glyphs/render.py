"""Renders the glyph set into an ImageFolder, in parallel and all or nothing."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from podium.client.glyphs.catalogue import PACKAGES, class_name, select

MARKER = "glyphs.json"
"""Name of the file that says a set is finished and how it was rendered."""

_RECIPE = 1  # to be raised with every change of the drawing, so that older sets are rendered anew
_QUALITY = 80  # of the JPEG files: pictures of about 5 kB
_SMALL = 400  # pictures, below which a worker process costs more than it brings

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PerClass:
    """How many pictures a class has in each split.

    Attributes:
        train: Pictures to learn from, 1 or more.
        val: Pictures to choose settings by, 0 or more.
        test: Pictures to report on, 0 or more.
    """

    train: int = 30
    val: int = 4
    test: int = 10

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: For a negative number, or none to learn from.
        """
        if self.train < 1 or min(self.val, self.test) < 0:
            raise ValueError(f"a class needs at least one training picture: {self}")


@dataclass(frozen=True)
class _Job:
    """All pictures of one class."""

    root: Path
    character: str
    seed: int
    per_class: PerClass
    size: int


def render_glyphs(
    directory: Path,
    *,
    seed: int = 0,
    classes: int | None = None,
    per_class: PerClass | None = None,
    size: int = 96,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Renders the glyph set to ``directory/{train,val,test}/<class>/<n>.jpg``.

    The pictures depend on the seed and on the versions of Pillow, numpy and the fonts alone,
    neither on the number of classes or pictures nor on that of the workers. They are rendered
    beside the directory, which then appears at once; a finished set of the same request is kept.

    Args:
        directory: Where the set goes: absent, empty, or an earlier set, which is then replaced.
        seed: Decides every picture, 0 or more.
        classes: How many classes, 2 up to ``len(GLYPHS)``; None for all.
        per_class: Pictures per class and split; None for the default numbers.
        size: Side of a picture in pixels, 32 or more.
        workers: Processes to render with; None for one per available core.
        on_progress: Called with the pictures finished and the pictures in all, class by class.

    Returns:
        The directory.

    Raises:
        ImportError: When the demo's packages are not installed.
        FileExistsError: When the directory holds something else than a glyph set.
        ValueError: For a number out of its range.
    """
    _check_installed()
    if seed < 0 or size < 32:
        raise ValueError(f"seed must be 0 or more and size 32 or more, not {seed} and {size}")
    counts = per_class or PerClass()
    characters = select(classes)
    marker = _marker(seed, len(characters), counts, size)
    if _is_finished(directory, marker):
        return directory
    _check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # On the directory's own file system, as only there a rename is all or nothing.
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".glyphs-") as temporary:
        root = Path(temporary) / "set"
        _render([_Job(root, c, seed, counts, size) for c in characters], workers, on_progress)
        (root / MARKER).write_text(json.dumps(marker, indent=2), encoding="utf-8")
        _move(root, directory, Path(temporary) / "old")
    return directory


def _check_installed() -> None:
    missing = [name for name in ("PIL", *PACKAGES[1:]) if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ImportError(f'rendering glyphs needs {names}: pip install "podium[demo]"')


def _marker(seed: int, classes: int, counts: PerClass, size: int) -> dict[str, object]:
    """What a finished set says of itself: everything its pixels depend on."""
    return {
        "recipe": _RECIPE,
        "seed": seed,
        "classes": classes,
        "per_class": asdict(counts),
        "size": size,
        "packages": {name: version(name) for name in PACKAGES},
    }


def _is_finished(directory: Path, marker: dict[str, object]) -> bool:
    try:
        found: object = json.loads((directory / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == marker


def _check_replaceable(directory: Path) -> None:
    """Refuses to replace what this module has not written."""
    if not directory.exists() or (directory / MARKER).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not a glyph set; remove it or choose another place")


def _move(source: Path, target: Path, aside: Path) -> None:
    if target.exists():
        target.rename(aside)
    source.rename(target)


def _render(jobs: list[_Job], workers: int | None, on_progress: Progress | None) -> None:
    """Runs the jobs, in this process where others would not pay."""
    each = sum(asdict(jobs[0].per_class).values())
    count = _cores() if workers is None else workers
    small = each * len(jobs) < _SMALL
    finished = _inline(jobs) if count < 2 or small else _pooled(jobs, count)
    for done, _ in enumerate(finished, start=1):
        if on_progress is not None:
            on_progress(done * each, len(jobs) * each)


def _cores() -> int:
    """Cores this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _inline(jobs: list[_Job]) -> Iterator[None]:
    for job in jobs:
        _run(job)
        yield


def _pooled(jobs: list[_Job], workers: int) -> Iterator[None]:
    # Spawned, as a forked child of a caller with threads (torch, rich) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        for future in as_completed([pool.submit(_run, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(job: _Job) -> None:
    """Renders all pictures of one class."""
    from podium.client.glyphs.draw import draw_glyph

    for number, (split, count) in enumerate(asdict(job.per_class).items()):
        folder = job.root / split / class_name(job.character)
        folder.mkdir(parents=True)
        for index in range(count):
            entropy = (job.seed, number, ord(job.character), index)
            picture = draw_glyph(job.character, entropy, job.size)
            picture.save(folder / f"{index:04d}.jpg", quality=_QUALITY)
