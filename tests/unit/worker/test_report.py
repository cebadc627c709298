"""What is learned from a model's answers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from podium.worker.fit import report
from podium.worker.fit.report import Answers
from podium.worker.fit.world import alone

CLASSES = ("apple", "pear", "plum")
answered = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1, width=32)), min_size=1, max_size=200
)


def _answers(rows: list[tuple[int, int, float]]) -> Answers:
    labels, predicted, confidence = zip(*rows, strict=True)
    return Answers(labels=torch.tensor(labels), predicted=torch.tensor(predicted), confidence=torch.tensor(confidence))


@given(answered)
def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy_bin_by_bin(rows):
    answers = _answers(rows)
    labels, predicted = answers.labels.numpy(), answers.predicted.numpy()
    confidence = answers.confidence.double().numpy()
    edges = np.minimum((answers.confidence * 15).long().numpy(), 14)
    gaps = [
        (edges == place).mean() * abs(confidence[edges == place].mean() - (labels == predicted)[edges == place].mean())
        for place in np.unique(edges)
    ]

    assert answers.calibration_error() == pytest.approx(sum(gaps), abs=1e-9)
    assert 0 <= answers.calibration_error() <= 1


@given(answered)
def test_pairs_and_classes_count_every_image_once(rows):
    answers = _answers(rows)
    classes, pairs = answers.by_class(CLASSES), answers.worst_pairs(CLASSES)

    assert sum(one["images"] for one in classes.values()) == len(rows)
    right = sum(one["images"] * one["top1"] for one in classes.values())
    assert right + sum(pair["images"] for pair in pairs) == pytest.approx(len(rows))
    assert [pair["images"] for pair in pairs] == sorted((pair["images"] for pair in pairs), reverse=True)


def test_the_worst_pair_stands_first_with_its_share_of_the_class():
    answers = _answers([(0, 1, 0.9), (0, 1, 0.8), (0, 0, 0.9), (2, 0, 0.4)])

    first, second = answers.worst_pairs(CLASSES)

    assert first == {"class": "apple", "answered": "pear", "images": 2, "share": pytest.approx(2 / 3)}
    assert (second["class"], second["answered"]) == ("plum", "apple")


def test_answers_of_batches_are_those_of_the_split():
    scores, labels = torch.randn(20, 3), torch.arange(20) % 3
    whole = Answers.of(scores, labels)
    parts = Answers.joined([Answers.of(scores[:7], labels[:7]), Answers.of(scores[7:], labels[7:])])

    assert torch.equal(whole.predicted, parts.gathered(alone(torch.device("cpu"))).predicted)
    assert torch.equal(whole.predicted, scores.argmax(-1))
    assert torch.allclose(whole.confidence, scores.softmax(-1).amax(-1))


def test_scores_that_are_no_numbers_have_an_evaluation_all_the_same(tmp_path):
    answers = Answers.of(torch.full((4, 3), torch.nan), torch.tensor([0, 1, 2, 0]))

    told = report.details(answers, CLASSES, {"loss": 1.0})
    report.write(tmp_path, {"val": told})

    assert json.loads((tmp_path / report.FILE).read_text())["val"]["images"] == 4
    assert report.read(tmp_path)["val"]["classes"] == told["classes"]


def test_a_checkpoint_without_an_evaluation_has_an_empty_one(tmp_path):
    assert report.read(tmp_path) == {}
