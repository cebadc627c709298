"""Fills in what a spec leaves to the server."""

from podium.api.v1.spec_pb2 import Evaluation, JobSpec, Preprocessing
from podium.jobs import wire
from podium.jobs.catalogue import BackboneCard, Card


def resolve(spec: JobSpec, card: BackboneCard, classes: int) -> JobSpec:
    """The spec with every default written out, and what this release does not know of it."""
    whole = wire.completed(spec)
    if not whole.HasField("m"):
        whole.m = min(classes, max(16, 2 * max(whole.k)))
    _resolve_preprocessing(whole.preprocessing, card.tags.get(whole.weights.tag, card))
    _resolve_evaluation(whole.evaluation, classes)
    return whole


def _resolve_preprocessing(wanted: Preprocessing, own: Card) -> None:
    wanted.image_size = wanted.image_size or own.image_size
    wanted.crop_fraction = wanted.crop_fraction or own.crop_fraction
    if not wanted.interpolation:
        wanted.interpolation = own.interpolation.value  # type: ignore[assignment]  # numbers are enum values
    wanted.mean[:] = wanted.mean or own.mean
    wanted.std[:] = wanted.std or own.std


def _resolve_evaluation(wanted: Evaluation, classes: int) -> None:
    wanted.top_k[:] = wanted.top_k or range(1, min(10, classes) + 1)
