"""The losses on a CUDA device: the same numbers as on the CPU, by kernels, without waiting for the device."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from podium.topk import BASELINES, SORTERS, ClosedFormSorter, Distribution, SortingNetwork, topk_cross_entropy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

# The noise of a CPU is not that of a GPU.
_QUIET = {"noised_hinge": {"noise": 1e-6}, "imbalanced_noised_hinge": {"noise": 1e-6}}
_FAMILIES: dict[str, Any] = {name: family(**_QUIET.get(name, {})) for name, family in {**SORTERS, **BASELINES}.items()}
_LAWS: dict[str, Any] = {
    f"{name}-{law}": family(distribution=law)
    for name, family in SORTERS.items()
    if issubclass(family, SortingNetwork)
    for law in Distribution
}
_SORTERS = {**_FAMILIES, **_LAWS}
# Sinkhorn's iterations are the only closed form without a kernel.
_BY_KERNEL = [name for name, sorter in _SORTERS.items() if isinstance(sorter, ClosedFormSorter)]
_BY_KERNEL.remove("sinkhorn_sort")

every_family = pytest.mark.parametrize("name", _FAMILIES)
every_sorter = pytest.mark.parametrize("name", _SORTERS)


def _p_k(name: str) -> dict[int, float]:
    if name == "softmax":
        return {1: 1.0}
    return {5: 1.0} if name in BASELINES else {1: 0.4, 3: 0.2, 5: 0.4}


def _loss(name: str, logits: Tensor, labels: Tensor, m: int) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    loss = topk_cross_entropy(leaf, labels, k=_p_k(name), sorter=_SORTERS[name], m=m)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def _data(batch: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return 3 * torch.randn(batch, n, generator=generator), torch.randint(n, (batch,), generator=generator)


@every_sorter
@pytest.mark.parametrize(("n", "m"), [(100, 100), (1000, 16), (10450, 50)])
def test_cpu_and_cuda_agree(name: str, n: int, m: int):
    logits, labels = _data(32, n)
    loss, gradient = _loss(name, logits, labels, m)

    loss_on_cuda, gradient_on_cuda = _loss(name, logits.cuda(), labels.cuda(), m)

    torch.testing.assert_close(loss_on_cuda.cpu(), loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient_on_cuda.cpu(), gradient, rtol=1e-3, atol=2e-6)


@every_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cpu_and_cuda_agree_in_half_precision(name: str, dtype: torch.dtype):
    logits, labels = _data(32, 1000)
    loss, gradient = _loss(name, logits.to(dtype), labels, 16)

    loss_on_cuda, gradient_on_cuda = _loss(name, logits.to(dtype).cuda(), labels.cuda(), 16)

    torch.testing.assert_close(loss_on_cuda.cpu(), loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient_on_cuda.cpu(), gradient)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@every_sorter
@pytest.mark.usefixtures("no_waiting")
def test_nothing_waits_for_the_device(name: str):
    logits, labels = (tensor.cuda() for tensor in _data(32, 1000))
    # The first call compiles kernels and puts tables on the device.
    _loss(name, logits, labels, 16)

    torch.cuda.set_sync_debug_mode("error")

    _loss(name, logits, labels, 16)


@pytest.mark.parametrize("name", _BY_KERNEL)
def test_kernels_are_really_taken(name: str, monkeypatch: pytest.MonkeyPatch):
    def by_torch(*_: Any, **__: Any) -> None:
        raise AssertionError("the loss was computed by torch")

    monkeypatch.setattr(ClosedFormSorter, "_losses", by_torch)
    monkeypatch.setattr(Tensor, "scatter", by_torch)
    logits, labels = (tensor.cuda() for tensor in _data(32, 1000))

    loss, gradient = _loss(name, logits, labels, 16)

    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", ["splitter_selection", "sigmoid", "subset"])
def test_a_compiled_loss_is_the_same(name: str):
    logits, labels = (tensor.cuda() for tensor in _data(8, 100))
    loss, gradient = _loss(name, logits, labels, 16)

    def compute(scores: Tensor) -> Tensor:
        return topk_cross_entropy(scores, labels, k=_p_k(name), sorter=_SORTERS[name], m=16)

    leaf = logits.clone().requires_grad_()
    compiled = torch.compile(compute)(leaf)
    (compiled_gradient,) = torch.autograd.grad(compiled, leaf)

    torch.testing.assert_close(compiled.detach(), loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-3, atol=2e-6)
