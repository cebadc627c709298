"""Our compat loss against 264 recorded losses and gradients of difftopk 0.2.0 (float32, CPU)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from podium.topk.compat import reference_loss

_FILE = Path(__file__).parent.parent / "golden" / "difftopk_reference.json"
_CASES: list[dict[str, Any]] = json.loads(_FILE.read_text())["cases"]
_TOLERANCE = 2e-5


def _name(case: dict[str, Any]) -> str:
    keys = ("sorter", "distribution", "inverse_temperature", "art_lambda", "top1_mode", "n")
    return "-".join(str(case[key]) for key in keys) + f"-p{case['p_k'][0]}"


def _input(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    wave = case["input"]
    i = torch.arange(wave["batch"], dtype=torch.float64).unsqueeze(1)
    j = torch.arange(case["n"], dtype=torch.float64)
    logits = 2 * torch.sin(wave["a"] + wave["b"] * j + wave["c"] * i) + torch.cos(i * j + 1)
    return logits.float().requires_grad_(), (7 * torch.arange(wave["batch"]) + 3) % case["n"]


def test_the_file_holds_all_recorded_cases():
    assert len(_CASES) == 264


@pytest.mark.parametrize("case", _CASES, ids=_name)
def test_loss_and_gradient_agree_with_difftopk(case: dict[str, Any]):
    logits, labels = _input(case)
    choices = ("sorter", "p_k", "m", "top1_mode", "inverse_temperature", "distribution", "art_lambda")

    loss = reference_loss(logits, labels, **{name: case[name] for name in choices})
    torch.autograd.backward(loss)

    expected = torch.tensor(case["grad"])
    assert logits.grad is not None
    assert case["loss"] == pytest.approx(loss.item(), rel=_TOLERANCE)
    assert (expected - logits.grad).abs().max() <= _TOLERANCE * expected.abs().max()
