"""Whether a spec can be accepted: everything that is wrong with it at once, or the spec with its defaults filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.api.v1.spec_pb2 import JobSpec as JobSpecMessage
from podium.jobs import wire
from podium.jobs.catalogue import BackboneCard, find_backbone
from podium.jobs.datasets import DatasetError, scan_classes
from podium.jobs.errors import NotFoundError
from podium.jobs.spec import JobSpec
from podium.jobs.store import JobStore
from podium.server.admission._checks import check_arithmetic, check_backbone, check_classes, check_monitor
from podium.server.admission._findings import Findings
from podium.server.admission._paths import check_path
from podium.server.admission._resolve import resolve
from podium.server.admission._scans import CachedScan, Scan
from podium.server.admission.rules import violations


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A spec that can run."""

    spec: JobSpec
    """Every default filled in."""
    classes: tuple[str, ...]
    """In the order of the model's outputs."""


class Admission:
    """Rules on requests for a new job. Blocks: it reads datasets.

    Args:
        roots: where paths may point to.
        store: knows the checkpoints.
        scan: reads the classes of a dataset.
    """

    def __init__(self, *, roots: Sequence[str], store: JobStore, scan: Scan = scan_classes) -> None:
        self._roots = tuple(roots)
        self._store = store
        self._scan = CachedScan(scan)

    def admit(self, request: CreateJobRequest) -> Admitted:
        """The spec, resolved.

        Raises:
            InvalidSpecError: something is wrong with it; lists everything, each naming its field.
            NotFoundError: a path or a checkpoint does not exist, and nothing else is wrong.
        """
        findings = Findings()
        for violation in violations(request):
            findings.add(violation)
        if not request.HasField("spec"):
            findings.conclude()
        spec = request.spec
        check_arithmetic(spec, findings)
        check_monitor(spec, findings)
        card = check_backbone(spec, findings)
        self._check_weights(spec, card, findings)
        classes = self._classes(spec, findings)
        if classes is not None:
            check_classes(spec, len(classes), findings)
        findings.conclude()
        if card is None or classes is None:
            raise AssertionError("a spec without backbone or classes passed the checks")
        return Admitted(spec=resolve(wire.from_proto(JobSpec, spec), card, len(classes)), classes=classes)

    def _check_weights(self, spec: JobSpecMessage, card: BackboneCard | None, findings: Findings) -> None:
        weights = spec.weights
        if weights.file:
            check_path("spec.weights.file", weights.file, self._roots, findings)
        if not weights.checkpoint:
            return
        field = "spec.weights.checkpoint"
        try:
            earlier = self._store.get(self._store.checkpoint(weights.checkpoint).job_id).spec.backbone
        except NotFoundError as error:
            findings.missing(field, error.message, reason="CHECKPOINT_NOT_FOUND")
        else:
            if card is not None and find_backbone(earlier) != card:
                findings.invalid(field, f"is a checkpoint of {earlier}; write backbone: {earlier}, or choose another")

    def _classes(self, spec: JobSpecMessage, findings: Findings) -> tuple[str, ...] | None:
        """The classes of the training split; None where they cannot be told."""
        if spec.WhichOneof("dataset") is None:
            return None
        splits = {
            name: self._scanned(f"spec.image_folder.{name}", getattr(spec.image_folder, name), findings)
            for name in ("train", "val", "test")
        }
        train = splits.pop("train")
        for name, found in splits.items():
            if train and found and (unknown := sorted(found.keys() - train.keys())):
                findings.invalid(
                    f"spec.image_folder.{name}",
                    f"has the class {unknown[0]!r}, which train lacks; add it to train or take it out",
                )
        return tuple(sorted(train)) if train else None

    def _scanned(self, field: str, path: str, findings: Findings) -> Mapping[str, int] | None:
        if not path or not check_path(field, path, self._roots, findings):
            return None
        try:
            return self._scan(path)
        except DatasetError as error:
            findings.invalid(field, error.message)
            return None


__all__ = ["Admission", "Admitted"]
