"""Fills in what a spec leaves to the server."""

from dataclasses import replace

from podium.jobs.catalogue import BackboneCard, Card
from podium.jobs.spec import Evaluation, JobSpec, Preprocessing


def resolve(spec: JobSpec, card: BackboneCard, classes: int) -> JobSpec:
    """The spec with every default written out."""
    tag = spec.weights.tag if spec.weights is not None else None
    own = card.tags.get(tag, card) if tag is not None else card
    return replace(
        spec,
        m=min(classes, max(16, 2 * max(spec.k))) if spec.m is None else spec.m,
        preprocessing=_preprocessing(spec.preprocessing, own),
        evaluation=_evaluation(spec.evaluation, classes),
    )


def _preprocessing(wanted: Preprocessing, own: Card) -> Preprocessing:
    return replace(
        wanted,
        image_size=wanted.image_size or own.image_size,
        crop_fraction=wanted.crop_fraction or own.crop_fraction,
        interpolation=wanted.interpolation or own.interpolation,
        mean=wanted.mean or own.mean,
        std=wanted.std or own.std,
    )


def _evaluation(wanted: Evaluation, classes: int) -> Evaluation:
    return replace(wanted, top_k=wanted.top_k or tuple(range(1, min(10, classes) + 1)))
