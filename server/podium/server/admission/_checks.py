"""What rules on fields cannot say: sums, orders, names and what depends on the number of classes.

Every check takes the spec as the caller sent it, so that one wrong field does not hide another.
"""

import difflib
from collections.abc import Iterable, Iterator

from podium.api.v1.spec_pb2 import JobSpec
from podium.jobs.catalogue import PACKAGES, BackboneCard, backbones, find_backbone
from podium.jobs.spec import JobSpec as JobDefaults
from podium.jobs.spec import Resources
from podium.server.admission._findings import Findings

_SUM_TOLERANCE = 1e-4


def check_arithmetic(spec: JobSpec, findings: Findings) -> None:
    """The weights of the k-distribution, the lengths of mean and std, and the parts of a batch."""
    # Not fsum, which raises where this overflows; the rules on fields name weights that are no numbers.
    total = sum(spec.k.values())
    if spec.k and abs(total - 1) > _SUM_TOLERANCE:
        findings.invalid("spec.k", f"the weights sum to {total:.6g}, not to 1; scale them, such as {{1: 0.5, 5: 0.5}}")
    for name in ("mean", "std"):
        if len(getattr(spec.preprocessing, name)) not in (0, 3):
            findings.invalid(f"spec.preprocessing.{name}", "give three numbers, one a channel, or none")
    _check_parts(spec, findings)


def _check_parts(spec: JobSpec, findings: Findings) -> None:
    nodes, gpus = spec.resources.nodes or Resources.nodes, spec.resources.gpus or Resources.gpus
    batch, parts = spec.batch_size or JobDefaults.batch_size, spec.accumulation_steps or JobDefaults.accumulation_steps
    least = nodes * gpus * parts
    # For one GPU the contract's own rule says it.
    if nodes * gpus > 1 and batch < least:
        machines, less = (f"{nodes} machines of ", "resources.nodes, ") if nodes > 1 else ("", "")
        findings.invalid(
            "spec.batch_size",
            f"is {batch}, but {machines}{gpus} GPUs with {parts} parts each need an image for each part; "
            f"write {least} or more, or less of {less}resources.gpus or accumulation_steps",
        )


def check_monitors(spec: JobSpec, findings: Findings) -> None:
    """Every monitor that is a top-k accuracy is one of those that are evaluated."""
    top_k = {f"top{k}" for k in spec.evaluation.top_k}
    for field, monitor in _monitors(spec):
        if top_k and monitor.startswith("top") and monitor not in top_k:
            findings.invalid(field, f"{monitor} is not evaluated; add {monitor[3:]} to top_k, or choose another")


def _monitors(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Field and metric of everything that a best checkpoint or a best model is chosen by."""
    yield "spec.evaluation.monitor", spec.evaluation.monitor
    for place, monitor in enumerate(spec.evaluation.also_monitor):
        yield f"spec.evaluation.also_monitor[{place}]", monitor


def check_backbone(spec: JobSpec, findings: Findings) -> BackboneCard | None:
    """The backbone is known, and so are its weights, where a tag or a package names them."""
    card = find_backbone(spec.backbone)
    if card is None:
        if not findings.about("spec.backbone"):
            findings.invalid("spec.backbone", f"{spec.backbone!r} is not in the catalogue; {_alike(spec.backbone)}")
        return None
    tag = spec.weights.tag
    if tag and tag not in card.tags:
        known = ", ".join(sorted(card.tags)) or "none at all"
        findings.invalid("spec.weights.tag", f"{card.name} has no weights {tag!r}; it has {known}")
    if spec.weights.package:
        _check_package(spec.weights.package, card, findings)
    return card


def _check_package(name: str, card: BackboneCard, findings: Findings) -> None:
    field, package = "spec.weights.package", PACKAGES.get(name)
    if package is None:
        if not findings.about(field):
            findings.invalid(field, f"{name!r} is none of the known packages; choose one of {', '.join(PACKAGES)}")
    elif package.backbone != card.name:
        findings.invalid(
            field, f"{name} has weights of {package.backbone}; write backbone: {package.backbone}, or choose another"
        )


def check_classes(spec: JobSpec, classes: int, findings: Findings) -> None:
    """What depends on the number of classes."""
    if classes < 2:
        field = "spec.classes" if spec.classes else f"spec.{spec.WhichOneof('dataset')}.train"
        findings.invalid(field, "has only one class; add images of another, a classifier needs two or more")
        return
    largest = max(spec.k, default=1)
    _check_k(spec, largest, classes, findings)
    if spec.HasField("m") and spec.m > classes:
        findings.invalid("spec.m", f"is {spec.m}, but there are {classes} classes; write at most {classes}")
    for place, k in enumerate(spec.evaluation.top_k):
        if k > classes:
            findings.invalid(f"spec.evaluation.top_k[{place}]", f"is {k}, but there are only {classes} classes")
    _check_monitored_k(spec, classes, findings)


def _check_k(spec: JobSpec, largest: int, classes: int, findings: Findings) -> None:
    if largest > classes:
        findings.invalid("spec.k", f"the largest k is {largest}, but there are only {classes} classes")
    elif largest == classes:
        findings.invalid(
            "spec.k", f"the largest k is {largest}, and of {classes} classes each is among the top {largest}; drop it"
        )


def _check_monitored_k(spec: JobSpec, classes: int, findings: Findings) -> None:
    # Without a top_k of its own the spec gets 1 to 10, as far as there are classes.
    if spec.evaluation.top_k:
        return
    for field, monitor in _monitors(spec):
        k = monitor.removeprefix("top")
        # int() refuses thousands of digits.
        if k.isdecimal() and not 1 <= int(k[:5]) <= min(10, classes):
            findings.invalid(field, f"{monitor[:8]} is not evaluated; add {k[:5]} to top_k")


def _alike(name: str) -> str:
    known = [card.name for card in backbones()]
    if "/" not in name:
        known = sorted({full.partition("/")[2] for full in known})
    close: Iterable[str] = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "`podium backbones` lists it"
