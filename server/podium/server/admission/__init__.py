"""Whether a spec can be accepted: everything that is wrong with it at once, or the spec with its defaults filled in."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.api.v1.spec_pb2 import JobSpec as JobSpecMessage
from podium.jobs.catalogue import BackboneCard, find_backbone
from podium.jobs.datasets import scan_split
from podium.jobs.errors import NotFoundError
from podium.jobs.store import JobStore
from podium.server.access import Ownership, facts
from podium.server.admission._checks import check_arithmetic, check_backbone, check_classes, check_monitors
from podium.server.admission._datasets import Datasets
from podium.server.admission._findings import Findings
from podium.server.admission._looks import Looks
from podium.server.admission._paths import Places
from podium.server.admission._resolve import resolve
from podium.server.admission._scans import CachedScan, Scan
from podium.server.admission._weights import check_weights_file
from podium.server.admission.rules import violations


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A spec that can run."""

    spec: JobSpecMessage
    """Every default filled in."""
    classes: tuple[str, ...]
    """In the order of the model's outputs."""


class Admission:
    """Rules on requests for a new job. Blocks: it reads datasets.

    Args:
        roots: where paths may point to.
        store: knows the checkpoints.
        uri_prefixes: what URIs must lie below.
        scan: reads the classes of a split.
    """

    def __init__(
        self, *, roots: Sequence[str], store: JobStore, uri_prefixes: Sequence[str] = (), scan: Scan = scan_split
    ) -> None:
        self._places = Places(roots=tuple(roots), uri_prefixes=tuple(uri_prefixes))
        self._store = store
        self._looks = Looks()
        self._datasets = Datasets(self._places, CachedScan(scan), self._looks)

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
        check_monitors(spec, findings)
        card = check_backbone(spec, findings)
        self._check_weights(spec, card, findings)
        classes = self._datasets.classes(spec, findings)
        if classes is not None:
            check_classes(spec, len(classes), findings)
        findings.conclude()
        if card is None or classes is None:
            raise AssertionError("a spec without backbone or classes passed the checks")
        return Admitted(spec=resolve(spec, card, len(classes)), classes=classes)

    def _check_weights(self, spec: JobSpecMessage, card: BackboneCard | None, findings: Findings) -> None:
        weights = spec.weights
        if file := weights.file:
            check = functools.partial(check_weights_file, self._places, file)
            findings.include(self._looks.faults(("weights", file), check))
        if not weights.checkpoint:
            return
        field = "spec.weights.checkpoint"
        try:
            Ownership(self._store).check_checkpoint(facts().caller, weights.checkpoint)
            earlier = self._store.get(self._store.checkpoint(weights.checkpoint).job_id).spec.backbone
        except NotFoundError as error:
            findings.missing(field, error.message, reason="CHECKPOINT_NOT_FOUND")
        else:
            if card is not None and find_backbone(earlier) != card:
                findings.invalid(field, f"is a checkpoint of {earlier}; write backbone: {earlier}, or choose another")


__all__ = ["Admission", "Admitted"]
