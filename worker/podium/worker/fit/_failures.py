"""From what went wrong to what the user is told: a cause from the closed list, a sentence and a remedy."""

import traceback

import torch

from podium.jobs.datasets import DatasetError, ImageError
from podium.jobs.errors import DataLossError, PodiumError
from podium.jobs.job import Cause, JobError

_TRACEBACK_CHARACTERS = 20_000
#: How CUDA and its libraries say that the device's memory is full, where torch's own allocator was not asked.
_DEVICE_FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

#: How CUDA says that the machine is at fault and not what runs there, in lower case. Not here: what a wrong program can
#: cause as well, such as an illegal memory access.
_HARDWARE = (
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "hardware stack error",
    "fallen off the bus",
    "device(s) is/are busy or unavailable",
    "no cuda-capable device is detected",
    "cuda driver initialization failed",
    "system not yet initialized",
    "unsupported display driver / cuda driver combination",
    "cuda unknown error",
    "cuda error: unknown error",
    "cuda error: initialization error",
)


class FitError(Exception):
    """The job cannot go on, for a reason that its user should know."""

    def __init__(self, cause: Cause, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.remedy = remedy


def describe(error: BaseException) -> JobError:
    """What to tell the user of an exception that ended the job."""
    cause, message, remedy = _judge(error)
    text = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    return JobError(cause=cause, message=message, remedy=remedy, traceback=text)


def _judge(error: BaseException) -> tuple[Cause, str, str]:
    if isinstance(error, FitError):
        return error.cause, str(error), error.remedy
    if isinstance(error, ImageError):
        remedy = "repair or remove the image, or write unreadable: skip, then submit the job again"
        return Cause.DATA, error.message, remedy
    if isinstance(error, DatasetError):
        return Cause.DATA, error.message, "mend the data, then submit the job again"
    if isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _DEVICE_FULL):
        remedy = (
            "double accumulation_steps, halve batch_size, write precision: bf16, or use a smaller backbone or images"
        )
        return Cause.OOM_DEVICE, f"the device ran out of memory: {first_line(error)}", remedy
    if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _HARDWARE):
        remedy = "look after the machine's GPUs and its driver"
        return Cause.NODE_LOST, f"the device failed: {first_line(error)}", remedy
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Cause.OOM_HOST, "the machine ran out of memory", "halve batch_size, or use a smaller backbone"
    if isinstance(error, (OSError, DataLossError)):
        # Images that cannot be read are DatasetErrors; what is left is the storage of checkpoints and features.
        remedy = "make room where PODIUM_ARTIFACTS is, or see to its permissions and its hardware, then submit again"
        return Cause.STORAGE, f"the storage failed: {error}", remedy
    if isinstance(error, PodiumError):
        return Cause.USER_CONFIG, error.message, "change what the sentence names, then submit the job again"
    return (
        Cause.INTERNAL,
        f"{type(error).__name__}: {first_line(error)}",
        "this is a fault of Podium; report the traceback",
    )


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return str(error).partition("\n")[0]
