"""Whose fault an exception is, as data."""

import pytest
import torch

from podium.jobs.datasets import DatasetError
from podium.jobs.errors import DataLossError, NotFoundError
from podium.jobs.job import Cause
from podium.worker.fit import describe
from podium.worker.fit._failures import FitError
from podium.worker.fit._run import choose_device

HARDWARE = [
    "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error: uncorrectable NVLink error",
    "CUDA error: hardware stack error",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "No CUDA-capable device is detected",
    "CUDA error: no CUDA-capable device is detected",
    "CUDA driver initialization failed, you might not have a CUDA gpu.",
    "CUDA unknown error - this may be due to an incorrectly set up environment",
    "CUDA error: unknown error",
    "CUDA error: initialization error",
    "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
    "CUDA error: system has unsupported display driver / cuda driver combination",
]
#: What a wrong program does to a sound machine.
PROGRAM = [
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: misaligned address",
    "CUDA error: invalid configuration argument",
    "CUDA error: unspecified launch failure",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
]


@pytest.mark.parametrize("said", HARDWARE)
def test_what_only_the_machine_can_be_at_fault_for_is_tried_on_another_one(said):
    assert Cause.NODE_LOST is describe(RuntimeError(said)).cause


@pytest.mark.parametrize("said", PROGRAM)
def test_what_a_program_can_cause_is_no_fault_of_the_machine(said):
    assert Cause.INTERNAL is describe(RuntimeError(said)).cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (FitError(Cause.NON_FINITE, "the loss is nan"), Cause.NON_FINITE),
        (DatasetError("no images in /data"), Cause.DATA),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.OOM_DEVICE),
        (RuntimeError("CUDA error: out of memory"), Cause.OOM_DEVICE),
        (MemoryError(), Cause.OOM_HOST),
        (OSError(28, "No space left on device"), Cause.STORAGE),
        (OSError("GPU has fallen off the bus"), Cause.STORAGE),
        (DataLossError("model.safetensors no longer has its digest"), Cause.STORAGE),
        (NotFoundError("no such checkpoint"), Cause.USER_CONFIG),
        (KeyError("x"), Cause.INTERNAL),
    ],
)
def test_every_kind_of_error_has_its_cause_and_says_what_to_do(error, cause):
    described = describe(error)

    assert cause is described.cause
    assert described.message
    assert described.remedy or isinstance(error, FitError)


def test_a_slot_whose_gpu_cannot_be_used_is_the_machines_fault(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine's GPUs can be used")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-broken")

    with pytest.raises(FitError, match="cannot use GPU-broken") as raised:
        choose_device()
    assert Cause.NODE_LOST is raised.value.cause
