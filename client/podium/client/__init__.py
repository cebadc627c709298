"""What a user holds: `Client`, `JobHandle`, `load_spec` and everything a spec is written with.

    >>> from podium.client import Client, load_spec
    >>> with Client() as client:                                    # doctest: +SKIP
    ...     job = client.submit(load_spec("job.yaml"))
    ...     print(job.wait().state)
    State.SUCCEEDED

The names load when they are first used: `import podium.client` costs milliseconds, the first `Client` loads gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podium.client._access import NewToken
    from podium.client._catalogue import BackboneInfo, DatasetInfo, Datasets, ParameterInfo, ServerInfo, SorterInfo
    from podium.client._client import Client
    from podium.client._job_handle import JobHandle
    from podium.client._logs import Log
    from podium.client._tls import Tls
    from podium.client._token import token_from_environment
    from podium.client._webhook import verify_webhook
    from podium.client._yaml import dump_spec, load_spec
    from podium.jobs.audit import AuditEvent
    from podium.jobs.errors import (
        AbortedError,
        AlreadyExistsError,
        DataLossError,
        DeadlineExceededError,
        FailedPreconditionError,
        FieldViolation,
        InternalError,
        InvalidSpecError,
        NotFoundError,
        OutOfRangeError,
        PermissionDeniedError,
        PodiumError,
        ResourceExhaustedError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
    )
    from podium.jobs.events import JobEvent, Level, LogBatch, LogLine, MetricBatch, MetricSeries, StateChange
    from podium.jobs.job import (
        Attempt,
        Cause,
        Checkpoint,
        CheckpointFile,
        Job,
        JobError,
        Member,
        Node,
        NodeState,
        Progress,
        QueueInfo,
        Slot,
    )
    from podium.jobs.notices import Notice
    from podium.jobs.spec import (
        Adam,
        AdamW,
        Augmentation,
        Bitonic,
        CheckpointPolicy,
        ConstantSchedule,
        CosineSchedule,
        DFTopK,
        Distribution,
        Evaluation,
        FullFineTuning,
        ImageFolder,
        ImageManifest,
        ImbalancedNoisedHinge,
        Interpolation,
        JobSpec,
        Lamb,
        LapSum,
        LastBlocks,
        LinearHead,
        Muon,
        NeuralSort,
        NoisedHinge,
        OddEven,
        OptimalTransport,
        Precision,
        Preprocessing,
        Priority,
        Resize,
        Resources,
        Sgd,
        Sigmoid,
        SinkhornSort,
        SmoothSVM,
        Softmax,
        SoftSort,
        Sparse,
        SplitterSelection,
        StepSchedule,
        Subset,
        TorchvisionDataset,
        Unreadable,
        WebDataset,
        Weights,
    )
    from podium.jobs.states import State
    from podium.jobs.tokens import Role, Token

_HOMES = {
    "podium.client._client": "Client",
    "podium.client._job_handle": "JobHandle",
    "podium.client._logs": "Log",
    "podium.client._tls": "Tls",
    "podium.client._token": "token_from_environment",
    "podium.client._access": "NewToken",
    "podium.jobs.audit": "AuditEvent",
    "podium.jobs.tokens": "Role Token",
    "podium.client._webhook": "verify_webhook",
    "podium.client._yaml": "load_spec dump_spec",
    "podium.client._catalogue": "BackboneInfo DatasetInfo Datasets ParameterInfo ServerInfo SorterInfo",
    "podium.jobs.spec": (
        "JobSpec Weights LinearHead LastBlocks FullFineTuning ImageFolder TorchvisionDataset ImageManifest WebDataset "
        "Unreadable Preprocessing Resize Interpolation Augmentation "
        "Softmax OddEven Bitonic SplitterSelection NeuralSort SoftSort SinkhornSort Subset OptimalTransport Sigmoid "
        "LapSum Sparse DFTopK SmoothSVM NoisedHinge ImbalancedNoisedHinge Distribution Sgd Adam AdamW Lamb Muon "
        "ConstantSchedule CosineSchedule StepSchedule Precision Evaluation CheckpointPolicy Resources Priority"
    ),
    "podium.jobs.states": "State",
    "podium.jobs.job": (
        "Job Attempt Member Progress QueueInfo JobError Cause Checkpoint CheckpointFile Node NodeState Slot"
    ),
    "podium.jobs.notices": "Notice",
    "podium.jobs.events": "JobEvent StateChange MetricBatch MetricSeries LogBatch LogLine Level",
    "podium.jobs.errors": (
        "PodiumError InvalidSpecError FieldViolation NotFoundError AlreadyExistsError FailedPreconditionError "
        "OutOfRangeError AbortedError DataLossError UnavailableError DeadlineExceededError UnauthenticatedError "
        "PermissionDeniedError ResourceExhaustedError UnimplementedError InternalError"
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AbortedError",
    "Adam",
    "AdamW",
    "AlreadyExistsError",
    "Attempt",
    "AuditEvent",
    "Augmentation",
    "BackboneInfo",
    "Bitonic",
    "Cause",
    "Checkpoint",
    "CheckpointFile",
    "CheckpointPolicy",
    "Client",
    "ConstantSchedule",
    "CosineSchedule",
    "DFTopK",
    "DataLossError",
    "DatasetInfo",
    "Datasets",
    "DeadlineExceededError",
    "Distribution",
    "Evaluation",
    "FailedPreconditionError",
    "FieldViolation",
    "FullFineTuning",
    "ImageFolder",
    "ImageManifest",
    "ImbalancedNoisedHinge",
    "InternalError",
    "Interpolation",
    "InvalidSpecError",
    "Job",
    "JobError",
    "JobEvent",
    "JobHandle",
    "JobSpec",
    "Lamb",
    "LapSum",
    "LastBlocks",
    "Level",
    "LinearHead",
    "Log",
    "LogBatch",
    "LogLine",
    "Member",
    "MetricBatch",
    "MetricSeries",
    "Muon",
    "NeuralSort",
    "NewToken",
    "Node",
    "NodeState",
    "NoisedHinge",
    "NotFoundError",
    "Notice",
    "OddEven",
    "OptimalTransport",
    "OutOfRangeError",
    "ParameterInfo",
    "PermissionDeniedError",
    "PodiumError",
    "Precision",
    "Preprocessing",
    "Priority",
    "Progress",
    "QueueInfo",
    "Resize",
    "ResourceExhaustedError",
    "Resources",
    "Role",
    "ServerInfo",
    "Sgd",
    "Sigmoid",
    "SinkhornSort",
    "Slot",
    "SmoothSVM",
    "SoftSort",
    "Softmax",
    "SorterInfo",
    "Sparse",
    "SplitterSelection",
    "State",
    "StateChange",
    "StepSchedule",
    "Subset",
    "Tls",
    "Token",
    "TorchvisionDataset",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Unreadable",
    "WebDataset",
    "Weights",
    "dump_spec",
    "load_spec",
    "token_from_environment",
    "verify_webhook",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
