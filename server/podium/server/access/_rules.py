"""What each rpc asks of its caller: the one table. A test holds it to the contract: no rpc can be forgotten."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from podium.jobs.tokens import Role


class Of(Enum):
    """Whose an rpc's business is: where the project comes from that its caller's token must be good for."""

    NOBODY = "of no project: machines and the catalogue; tokens, which the service itself tells apart"
    PROJECT = "of the request's project; empty: default"
    PROJECT_OR_ALL = "of the request's project; empty: of all of them"
    JOB = "of the job's project"
    JOBS = "of the jobs' projects"
    CHECKPOINT = "of the project of the checkpoint's job"
    ALL = "of all projects"


@dataclass(frozen=True)
class Rule:
    """What an rpc asks of its caller."""

    role: Role
    of: Of
    changes: bool = False
    """Whether the audit trail has every call of it, and not only refused ones."""


def _look(of: Of) -> Rule:
    return Rule(Role.VIEWER, of)


def _change(of: Of) -> Rule:
    return Rule(Role.SUBMITTER, of, changes=True)


def _manage(of: Of, *, changes: bool = True) -> Rule:
    return Rule(Role.ADMIN, of, changes=changes)


#: By "Service/Method".
RULES: Mapping[str, Rule] = {
    "JobService/CreateJob": _change(Of.PROJECT),
    "JobService/GetJob": _look(Of.JOB),
    "JobService/ListJobs": _look(Of.PROJECT),
    "JobService/UpdateJob": _change(Of.JOB),
    "JobService/CancelJob": _change(Of.JOB),
    "JobService/PauseJob": _change(Of.JOB),
    "JobService/ResumeJob": _change(Of.JOB),
    "JobService/DeleteJob": _change(Of.JOB),
    "JobService/WatchJob": _look(Of.JOB),
    "JobService/WatchJobs": _look(Of.JOBS),
    "MetricService/QueryMetrics": _look(Of.JOB),
    "CheckpointService/ListCheckpoints": _look(Of.JOB),
    "CheckpointService/ReadCheckpoint": _look(Of.CHECKPOINT),
    "CheckpointService/DeleteCheckpoint": _change(Of.CHECKPOINT),
    "LogService/ReadLogs": _look(Of.JOB),
    "NodeService/ListNodes": _look(Of.NOBODY),
    "NodeService/DrainNode": _manage(Of.ALL),
    "NodeService/ResumeNode": _manage(Of.ALL),
    "ServerService/GetServerInfo": _look(Of.NOBODY),
    "ServerService/ListSorters": _look(Of.NOBODY),
    "ServerService/ListBackbones": _look(Of.NOBODY),
    "ServerService/ListDatasets": _look(Of.NOBODY),
    "ServerService/GetSpecSchema": _look(Of.NOBODY),
    "TokenService/CreateToken": _manage(Of.PROJECT),
    "TokenService/ListTokens": _manage(Of.NOBODY, changes=False),
    "TokenService/RotateToken": _manage(Of.NOBODY),
    "TokenService/RevokeToken": _manage(Of.NOBODY),
    "TokenService/GetCaller": _look(Of.NOBODY),
    "AuditService/ListAuditEvents": _manage(Of.PROJECT_OR_ALL, changes=False),
    "ExternalScaler/IsActive": _look(Of.NOBODY),
    "ExternalScaler/GetMetricSpec": _look(Of.NOBODY),
    "ExternalScaler/GetMetrics": _look(Of.NOBODY),
}
