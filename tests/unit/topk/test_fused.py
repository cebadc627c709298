"""The kernels against the same losses in plain torch.

Without a GPU, Triton's interpreter runs them: in a process of its own, because Triton decides when it is loaded. It
takes half a second a row, so that every row here is one that could go wrong.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from podium.topk import (
    Bitonic,
    ClosedFormSorter,
    DFTopK,
    Distribution,
    LapSum,
    NeuralSort,
    OddEven,
    OptimalTransport,
    Sigmoid,
    SoftSort,
    Sparse,
    SplitterSelection,
    Subset,
    topk_cross_entropy,
)
from podium.topk._selection import rank

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

_WORKER = """
import os, pickle, sys, traceback
import torch
from triton.runtime import interpreter
from podium.topk import fused

# For every call of a function the interpreter patches Triton's language again, and spends most of its time on it.
patch, patched = interpreter._patch_lang, set()

def call(function, *args, **kwargs):
    module = function.fn.__globals__["__name__"]
    if module not in patched:
        patch(function.fn)
        patched.add(module)
    return function.rewrite()(*args, **kwargs)

interpreter.InterpretedFunction.__call__ = call
while True:
    try:
        case = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        if "loss" in case:
            leaf = case.pop("logits").requires_grad_()
            answer = case.pop("loss")(leaf, **case)
            answer = answer.detach(), *torch.autograd.grad(answer, leaf)
        else:
            answer = fused.losses(**case)
        if "gradient" in case and answer and answer[1] is not None:
            logits, upstream = case["logits"], torch.arange(1.0, 1 + answer[0].numel()).view_as(answer[0])
            answer = *answer, fused.scatter(upstream, answer[1], answer[2], logits.shape, logits.dtype)
    except Exception:
        answer = traceback.format_exc()
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
os._exit(0)  # to take down what torch has built up takes long
"""

_COMPILER = """
import sys
import torch
import podium.topk

print("triton" in sys.modules)
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver
from podium.topk import SoftSort, Sigmoid, SplitterSelection, Subset
from podium.topk.fused import _launch

class Hopper:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

def compile_only(function, *args, warmup, **kwargs):
    compiled = run(function, *args, warmup=True, **kwargs)
    assert compiled.asm["cubin"]
    print(compiled.metadata.name)

run, JITFunction.run = JITFunction.run, compile_only
driver.set_active(Hopper())
logits, labels, weights = torch.zeros(2, 20), torch.zeros(2, dtype=torch.int64), torch.ones(2)
for sorter in (SplitterSelection(), Sigmoid(), Subset(), SoftSort()):
    answer = _launch.losses(sorter, logits, labels, m=5, ks=(1, 3), weights=weights, gradient=True)
_launch.scatter(*answer, logits.shape, logits.dtype)
"""

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Ask]:
    """Asks `fused` in a process with Triton's interpreter."""
    command = [sys.executable, "-W", "ignore", "-c", _WORKER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "TRITON_INTERPRET": "1"}
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked
        assert answered

        def ask(**case: Any) -> Any:
            pickle.dump(case, asked)
            asked.flush()
            answer = pickle.load(answered)
            if isinstance(answer, str):
                pytest.fail(answer)
            return answer

        yield ask
        asked.close()


def _ask_gpu(**case: Any) -> Any:
    from podium.topk import fused

    case = {name: value.cuda() if isinstance(value, Tensor) else value for name, value in case.items()}
    answer = fused.losses(**case)
    if answer is None:
        return None
    losses, gradient, classes = answer
    if gradient is None:
        return losses.cpu(), None, classes.cpu()
    logits, upstream = case["logits"], torch.arange(1.0, 1 + losses.numel(), device="cuda").view_as(losses)
    spread = fused.scatter(upstream, gradient, classes, logits.shape, logits.dtype)
    assert spread is not None
    return losses.cpu(), gradient.cpu(), classes.cpu(), spread.cpu()


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks `fused`, for tensors on the CPU."""
    if request.param == "interpreter":
        asks: Ask = request.getfixturevalue("interpreter")
        return asks
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return _ask_gpu


class Expected(NamedTuple):
    """What torch says, by slot: the label first, then its rivals by falling score."""

    losses: Tensor
    gradient: Tensor


def _in_double_precision(case: dict[str, Any]) -> Expected:
    leaf = case["logits"].detach().to(torch.float64, copy=True).requires_grad_()
    settings = {"m": case["m"], "ks": case["ks"], "weights": case["weights"].double()}
    losses = case["sorter"].sample_losses(leaf, case["labels"], **settings)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    classes = rank(case["logits"], case["labels"], case["m"]).classes
    return Expected(losses.detach().float(), gradient.gather(-1, classes).float())


def _agree(ask: Ask, **case: Any) -> None:
    """Compare slot by slot: which class has which slot is open where scores tie."""
    logits, labels, m = case["logits"], case["labels"], case["m"]
    case.setdefault("weights", torch.full((len(case["ks"]),), 1 / len(case["ks"])))
    expected = _in_double_precision(case)

    losses, gradient, classes, spread = ask(**case, gradient=True)

    # Of scores around 1e4 nobody knows the difference to better than a thousandth.
    kept = logits.gather(-1, classes).float()
    ulp = torch.finfo(torch.float32).eps * kept.nan_to_num(neginf=0.0).abs().amax(-1)
    loss_slack = 1e-5 * expected.losses.abs() + 2e-6 + 4 * ulp
    gradient_slack = 1e-4 * expected.gradient.abs() + 2e-6 + 4 * ulp.unsqueeze(-1)
    assert torch.all((losses - expected.losses).abs() <= loss_slack)
    assert torch.all((gradient - expected.gradient).abs() <= gradient_slack)
    assert torch.equal(labels, classes[..., 0])
    assert torch.equal(logits.gather(-1, rank(logits, labels, m).classes), logits.gather(-1, classes))
    assert all(len(row.unique()) == m for row in classes.reshape(-1, m))
    upstream = torch.arange(1.0, 1 + losses.numel()).view_as(losses).unsqueeze(-1)
    # Not equal: to half precision the interpreter cuts digits off instead of rounding.
    torch.testing.assert_close(
        spread, torch.zeros_like(logits).scatter(-1, classes, (upstream * gradient).to(logits.dtype))
    )


def _logits(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _hard_rows() -> tuple[Tensor, Tensor]:
    """Ten classes: a leading label, a hopeless one, ties with the label, scores far apart, classes ruled out."""
    inf = torch.inf
    rows = [
        [2, 0.3, -1, 1.5, 0.1, -0.4, 0.9, -2, 0.2, 5],
        [2, 0.3, -1, 1.5, 0.1, -0.4, 0.9, -2, 0.2, -5],
        [1, 0, 1, 0, 1, 1, 0, 0, 1, 1],
        [1e4, 0, -1e4, 3, 1e4, 0.001, -3, 0, -1e4, 0],
        [-inf, 0.5, -inf, 1, -inf, 2, -inf, -0.5, 3, 1.5],
    ]
    return torch.tensor(rows), torch.tensor([9, 9, 9, 9, 9])


_LAWS: list[ClosedFormSorter] = [OddEven(distribution=law, steepness=1.0) for law in Distribution]
_NETWORK = SplitterSelection()
_FRACTIONAL = [OptimalTransport(), LapSum(temperature=0.3), Sparse(p=1.5)]
_FAMILIES: list[ClosedFormSorter] = [
    Bitonic(),
    _NETWORK,
    Sigmoid(),
    LapSum(),
    DFTopK(),
    Sparse(),
    Sparse(p=2.0),
    Subset(),
    NeuralSort(),
    SoftSort(),
]


def _name(value: Any) -> str | None:
    return (
        f"{type(value).__name__}-{getattr(value, 'distribution', '')}" if isinstance(value, ClosedFormSorter) else None
    )


@pytest.mark.parametrize("sorter", _LAWS + _FAMILIES, ids=_name)
def test_every_family_agrees_with_torch_where_it_is_hard(ask: Ask, sorter: ClosedFormSorter):
    logits, labels = _hard_rows()

    _agree(ask, sorter=sorter, logits=logits, labels=labels, m=10, ks=(1, 3))


@pytest.mark.parametrize("sorter", _FAMILIES, ids=_name)
def test_every_family_agrees_with_torch_on_the_strongest_of_many(ask: Ask, sorter: ClosedFormSorter):
    _agree(ask, sorter=sorter, logits=_logits(2, 150), labels=torch.tensor([3, 149]), m=17, ks=(2, 5))


@pytest.mark.parametrize("sorter", _FRACTIONAL, ids=_name)
def test_fractions_of_k(ask: Ask, sorter: ClosedFormSorter):
    _agree(ask, sorter=sorter, logits=_logits(1, 12), labels=torch.tensor([3]), m=8, ks=(1.25, 2, 4.75))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(ask: Ask, dtype: torch.dtype):
    _agree(ask, sorter=_NETWORK, logits=_logits(2, 40).to(dtype), labels=torch.tensor([0, 39]), m=6, ks=(1, 3))


def test_every_sample_may_have_its_own_p_k_and_any_leading_dimensions(ask: Ask):
    weights = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])

    _agree(
        ask,
        sorter=_NETWORK,
        logits=_logits(1, 2, 12),
        labels=torch.tensor([[3, 4]]),
        m=5,
        ks=(1, 2, 4),
        weights=weights,
    )


@pytest.mark.parametrize("ks", [(1,), (1, 5), (5,), (2, 5)])
def test_the_top_m_of_m_hold_the_label_for_certain(ask: Ask, ks: tuple[float, ...]):
    _agree(ask, sorter=_NETWORK, logits=_logits(1, 5), labels=torch.tensor([2]), m=5, ks=ks)


def test_a_long_row_is_read_in_tiles(ask: Ask):
    logits = _logits(1, 10450)
    logits[0, [10449, 0, 1024]] = 50.0

    _agree(ask, sorter=_NETWORK, logits=logits, labels=torch.tensor([10449]), m=20, ks=(1, 5))


def test_nothing_but_losses_where_no_gradient_is_wanted(ask: Ask):
    logits, labels, weights = _logits(2, 12), torch.tensor([3, 4]), torch.tensor([1.0])
    expected = _NETWORK.sample_losses(logits, labels, m=5, ks=(2,), weights=weights)

    losses, gradient, _ = ask(
        sorter=_NETWORK, logits=logits, labels=labels, m=5, ks=(2,), weights=weights, gradient=False
    )

    assert gradient is None
    torch.testing.assert_close(losses, expected)


def test_rows_of_a_wider_tensor_are_read_where_they_lie(ask: Ask):
    logits = _logits(2, 20)[:, 3:13]

    _agree(ask, sorter=_NETWORK, logits=logits, labels=torch.tensor([3, 4]), m=5, ks=(2,))


def test_a_row_without_an_answer_is_nan_and_others_are_not(ask: Ask):
    logits = _logits(4, 12)
    logits[0, 7] = torch.nan
    logits[1, 3] = -torch.tensor(torch.nan)
    logits[2, 7] = torch.inf
    labels = torch.tensor([3, 3, 3, 12])

    losses, gradient, classes, _ = ask(
        sorter=_NETWORK,
        logits=torch.cat([logits, _logits(1, 12)]),
        labels=torch.cat([labels, torch.tensor([3])]),
        m=5,
        ks=(2,),
        weights=torch.ones(1),
        gradient=True,
    )

    assert [True, True, True, True, False] == losses.isnan().tolist()
    assert [True, True, True, True, False] == gradient.isnan().all(-1).tolist()
    assert (classes >= 0).all()
    assert (classes < 12).all()


def test_a_label_that_is_ruled_out_is_a_hopeless_one(ask: Ask):
    logits = _logits(1, 12)
    logits[0, 3:5] = -torch.inf

    _agree(ask, sorter=_NETWORK, logits=logits, labels=torch.tensor([3]), m=12, ks=(1, 2))


def test_what_has_no_kernel_is_left_to_torch(ask: Ask):
    case = {"sorter": _NETWORK, "labels": torch.tensor([3]), "m": 5, "ks": (2,), "weights": torch.ones(1)}
    long = _logits(1, 200)

    assert ask(**case, logits=_logits(1, 12).double(), gradient=False) is None
    assert ask(**{**case, "m": 129}, logits=long, gradient=False) is None
    assert ask(**{**case, "weights": torch.ones(1).double()}, logits=long, gradient=False) is None
    assert ask(**{**case, "logits": _logits(1, 1).expand(1, (1 << 17) + 1)}, gradient=False) is None


def test_the_loss_takes_the_kernels_both_ways(interpreter: Ask):
    logits, labels = _logits(3, 12), torch.tensor([3, -100, 7])
    settings: dict[str, Any] = {"labels": labels, "sorter": _NETWORK, "k": {1: 0.5, 3: 0.5}, "m": 5}
    leaf = logits.clone().requires_grad_()
    expected = topk_cross_entropy(leaf, **settings)
    (expected_gradient,) = torch.autograd.grad(expected, leaf)

    loss, gradient = interpreter(loss=topk_cross_entropy, logits=logits, **settings)

    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, expected_gradient)


def test_transforms_of_functions_are_left_to_torch(monkeypatch: pytest.MonkeyPatch):
    logits, labels, weights = _logits(2, 12), torch.tensor([3, 4]), torch.ones(1)
    expected = Sigmoid().sample_losses(logits, labels, m=5, ks=(2,), weights=weights)
    # As if kernels ran on the CPU.
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def loss(scores: Tensor, label: Tensor) -> Tensor:
        return Sigmoid().sample_losses(scores, label, m=5, ks=(2,), weights=weights)

    torch.testing.assert_close(torch.func.vmap(loss)(logits, labels), expected)
    assert torch.func.vmap(torch.func.grad(loss))(logits, labels).shape == logits.shape


def test_triton_is_loaded_late_and_compiles_for_a_gpu_that_is_not_there():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _COMPILER], capture_output=True, text=True, check=False
    )

    assert 0 == result.returncode, result.stderr
    loaded_by_import, *kernels = result.stdout.split()
    assert "False" == loaded_by_import
    assert ["network_loss", "threshold_loss", "subset_loss", "rows_loss", "scatter_gradient"] == kernels
