"""The only file that builds requests and reads responses: dataclasses in, dataclasses out, errors of our own tree."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from podium.api.v1 import (
    catalogue_pb2,
    checkpoint_service_pb2,
    checkpoint_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    metric_service_pb2,
    metric_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    server_service_pb2,
    server_service_pb2_grpc,
)
from podium.client._catalogue import BackboneInfo, DatasetInfo, Datasets, ParameterInfo, ServerInfo, SorterInfo
from podium.client._errors import translated
from podium.client._schema import in_short
from podium.client._trace import carried
from podium.jobs.errors import FailedPreconditionError, FieldViolation, InvalidSpecError, ResourceExhaustedError
from podium.jobs.events import JobEvent, Level, LogLine, MetricSeries
from podium.jobs.job import Checkpoint, CheckpointFile, Job, Node
from podium.jobs.spec import JobSpec, Priority
from podium.jobs.states import State
from podium.jobs.wire import DATACLASSES, from_proto, to_proto

if TYPE_CHECKING:
    from podium.client._access import Access


class Wire:
    """Podium's services over one channel. Thread-safe.

    Args:
        channel: closed by `close`.
        target: the server's address, for messages.
        timeout: seconds that a unary call may take.
        metadata: of every call.
    """

    def __init__(
        self, channel: grpc.Channel, target: str, timeout: float, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.target = target
        self._channel = channel
        self._closed = False
        self._timeout = timeout
        self._metadata = metadata
        self._jobs = job_service_pb2_grpc.JobServiceStub(channel)
        self._metrics = metric_service_pb2_grpc.MetricServiceStub(channel)
        self._logs = log_service_pb2_grpc.LogServiceStub(channel)
        self._checkpoints = checkpoint_service_pb2_grpc.CheckpointServiceStub(channel)
        self._nodes = node_service_pb2_grpc.NodeServiceStub(channel)
        self._server = server_service_pb2_grpc.ServerServiceStub(channel)

    @cached_property
    def access(self) -> Access:
        """Tokens and the audit trail; loaded when somebody asks for them, as few do."""
        from podium.client._access import Access

        return Access(self._channel, self._unary)

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    # Jobs

    def create_job(self, spec: JobSpec, *, project: str, request_id: str) -> Job:
        request = job_service_pb2.CreateJobRequest(spec=encode_spec(spec), project=project, request_id=request_id)
        return from_proto(Job, self._unary(self._jobs.CreateJob, request).job)

    def validate_spec(self, spec: JobSpec, *, project: str) -> JobSpec:
        request = job_service_pb2.CreateJobRequest(spec=encode_spec(spec), project=project, validate_only=True)
        return from_proto(JobSpec, self._unary(self._jobs.CreateJob, request).job.spec)

    def get_job(self, job_id: str) -> Job:
        return from_proto(Job, self._unary(self._jobs.GetJob, job_service_pb2.GetJobRequest(job_id=job_id)).job)

    def list_jobs(
        self, *, project: str, states: Sequence[State], filter: str, oldest_first: bool, page_token: str
    ) -> tuple[list[Job], str]:
        request = job_service_pb2.ListJobsRequest(
            project=project, filter=filter, order_by="create_time" if oldest_first else "", page_token=page_token
        )
        request.states.extend([state.value for state in states])  # type: ignore[misc]  # numbers are enum values
        response = self._unary(self._jobs.ListJobs, request)
        return [from_proto(Job, job) for job in response.jobs], response.next_page_token

    def update_job(self, job_id: str, *, priority: Priority | None, labels: Mapping[str, str]) -> Job:
        request = job_service_pb2.UpdateJobRequest(job_id=job_id, labels=labels)
        if priority is not None:
            request.priority = priority.value  # type: ignore[assignment]  # numbers are enum values
        return from_proto(Job, self._unary(self._jobs.UpdateJob, request).job)

    def cancel_job(self, job_id: str, reason: str, *, force: bool) -> Job:
        request = job_service_pb2.CancelJobRequest(job_id=job_id, reason=reason, force=force)
        return from_proto(Job, self._unary(self._jobs.CancelJob, request).job)

    def pause_job(self, job_id: str, reason: str) -> Job:
        request = job_service_pb2.PauseJobRequest(job_id=job_id, reason=reason)
        return from_proto(Job, self._unary(self._jobs.PauseJob, request).job)

    def resume_job(self, job_id: str) -> Job:
        request = job_service_pb2.ResumeJobRequest(job_id=job_id)
        return from_proto(Job, self._unary(self._jobs.ResumeJob, request).job)

    def delete_job(self, job_id: str) -> None:
        self._unary(self._jobs.DeleteJob, job_service_pb2.DeleteJobRequest(job_id=job_id))

    def watch_job(self, job_id: str, after: int, *, timeout: float | None = None) -> Iterator[JobEvent]:
        """One stream, as the server sends it; `DeadlineExceededError` after `timeout` seconds."""
        request = job_service_pb2.WatchJobRequest(job_id=job_id, after_sequence=after, batched=True)
        for response in self._stream(self._jobs.WatchJob, request, timeout):
            for event in (response.event, *response.more):
                yield from_proto(JobEvent, event)

    def watch_jobs(self, after: Mapping[str, int]) -> Iterator[JobEvent]:
        """One stream of many jobs, as the server sends it."""
        request = job_service_pb2.WatchJobsRequest(after_sequences=after, batched=True)
        for response in self._stream(self._jobs.WatchJobs, request, None):
            for event in (response.event, *response.more):
                yield from_proto(JobEvent, event)

    # Logs, metrics and checkpoints

    def read_logs(
        self,
        job_id: str,
        *,
        offset: int | None,
        follow: bool,
        attempt: int,
        rank: int | None,
        min_level: Level | None,
    ) -> Iterator[tuple[tuple[LogLine, ...], int]]:
        """One stream: lines, and the offset after them."""
        request = log_service_pb2.ReadLogsRequest(
            job_id=job_id, offset=offset, follow=follow, attempt=attempt, rank=rank
        )
        if min_level is not None:
            request.min_level = min_level.value  # type: ignore[assignment]  # numbers are enum values
        for response in self._stream(self._logs.ReadLogs, request, None):
            yield tuple(from_proto(LogLine, line) for line in response.lines), response.next_offset

    def query_metrics(
        self, job_id: str, *, names: Sequence[str], first_step: int, last_step: int | None, max_points: int
    ) -> dict[str, MetricSeries]:
        request = metric_service_pb2.QueryMetricsRequest(
            job_id=job_id, names=names, first_step=first_step, last_step=last_step, max_points=max_points
        )
        response = self._unary(self._metrics.QueryMetrics, request)
        return {series.name: from_proto(MetricSeries, series) for series in response.series}

    def list_checkpoints(self, job_id: str) -> tuple[Checkpoint, ...]:
        request = checkpoint_service_pb2.ListCheckpointsRequest(job_id=job_id)
        response = self._unary(self._checkpoints.ListCheckpoints, request)
        return tuple(from_proto(Checkpoint, checkpoint) for checkpoint in response.checkpoints)

    def delete_checkpoint(self, checkpoint_id: str) -> None:
        request = checkpoint_service_pb2.DeleteCheckpointRequest(checkpoint_id=checkpoint_id)
        self._unary(self._checkpoints.DeleteCheckpoint, request)

    def read_checkpoint(
        self, checkpoint_id: str, file: str, offset: int
    ) -> Iterator[tuple[bytes, CheckpointFile | None]]:
        """One stream of bytes; the file's size and digest come with the first."""
        request = checkpoint_service_pb2.ReadCheckpointRequest(checkpoint_id=checkpoint_id, file=file, offset=offset)
        for response in self._stream(self._checkpoints.ReadCheckpoint, request, None):
            described = from_proto(CheckpointFile, response.file) if response.HasField("file") else None
            yield response.data, described

    # The pool, the server and its catalogue

    def list_nodes(self, pool: str) -> tuple[Node, ...]:
        response = self._unary(self._nodes.ListNodes, node_service_pb2.ListNodesRequest(pool=pool))
        return tuple(from_proto(Node, node) for node in response.nodes)

    def drain_node(self, node_id: str, *, finish: bool) -> Node:
        request = node_service_pb2.DrainNodeRequest(node_id=node_id, finish=finish)
        return from_proto(Node, self._unary(self._nodes.DrainNode, request).node)

    def resume_node(self, node_id: str) -> Node:
        request = node_service_pb2.ResumeNodeRequest(node_id=node_id)
        return from_proto(Node, self._unary(self._nodes.ResumeNode, request).node)

    def list_sorters(self) -> tuple[SorterInfo, ...]:
        response = self._unary(self._server.ListSorters, server_service_pb2.ListSortersRequest())
        return tuple(_sorter(info) for info in response.sorters)

    def list_backbones(self, name_contains: str) -> tuple[BackboneInfo, ...]:
        request = server_service_pb2.ListBackbonesRequest(name_contains=name_contains)
        response = self._unary(self._server.ListBackbones, request)
        return tuple(
            BackboneInfo(name=info.name, library=info.library, parameters=info.parameters, image_size=info.image_size)
            for info in response.backbones
        )

    def list_datasets(self, path_contains: str) -> Datasets:
        request = server_service_pb2.ListDatasetsRequest(path_contains=path_contains)
        response = self._unary(self._server.ListDatasets, request)
        found = tuple(
            DatasetInfo(path=one.path, kind=one.kind, splits=tuple(one.splits), classes=one.classes, name=one.name)
            for one in response.datasets
        )
        return Datasets(datasets=found, truncated=response.truncated)

    def spec_schema(self) -> str:
        return str(self._unary(self._server.GetSpecSchema, server_service_pb2.GetSpecSchemaRequest()).json_schema)

    def server_info(self, *, wait: float | None = None) -> ServerInfo:
        """What the server says of itself; with `wait`, within that many seconds after it comes up."""
        request = server_service_pb2.GetServerInfoRequest()
        with self._calling():
            info = self._server.GetServerInfo(
                request, timeout=wait or self._timeout, wait_for_ready=wait is not None, metadata=self._metadata
            )
        return ServerInfo(
            version=info.version,
            max_message_bytes=info.max_message_bytes,
            max_page_size=info.max_page_size,
            max_metric_points=info.max_metric_points,
            events_kept=info.events_kept,
            allowed_roots=tuple(info.allowed_roots),
            allowed_uri_prefixes=tuple(info.allowed_uri_prefixes),
            tokens_required=info.tokens_required,
            max_calls_per_second=info.max_calls_per_second,
            max_streams=info.max_streams,
            max_watched_jobs=info.max_watched_jobs,
        )

    @contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            with translated(self.target):
                yield
        except ValueError:
            if not self._closed:
                raise
            sentence = f"this client is closed; open another one with Client({self.target!r})"
            raise FailedPreconditionError(sentence, reason="CLIENT_CLOSED") from None

    def _unary(self, method: Any, request: Any) -> Any:
        """The answer. What was one call too many is made again when the server says, as nothing has been done of it."""
        give_up = time.monotonic() + self._timeout
        while True:
            try:
                with self._calling():
                    return method(request, timeout=self._timeout, metadata=(*self._metadata, *carried()))
            except ResourceExhaustedError as error:
                # Not all at the same moment, where many threads were told the same.
                wait = (error.retry_after or 0.0) * random.uniform(1.0, 1.5)
                if error.retry_after is None or time.monotonic() + wait > give_up:
                    raise
                time.sleep(wait)

    def _stream(self, method: Any, request: Any, timeout: float | None) -> Iterator[Any]:
        with self._calling():
            call = method(request, timeout=timeout, metadata=(*self._metadata, *carried()))
        try:
            with self._calling():
                yield from call
        finally:
            call.cancel()


def encode_spec(spec: JobSpec) -> Any:
    """The message of a spec.

    Raises:
        TypeError: it is none; says how to make one.
        InvalidSpecError: a field holds what its type cannot, such as a batch size of 10 ** 12.
    """
    if not isinstance(spec, JobSpec):
        raise TypeError(f"{in_short(spec)} is no JobSpec; write JobSpec(...), or load_spec(FILE) for one in YAML")
    try:
        return to_proto(spec)
    except _MISFITS:
        raise InvalidSpecError(tuple(_blame(spec, "spec"))) from None


#: What converting a value of another type raises.
_MISFITS = (KeyError, TypeError, ValueError, AttributeError)


def _blame(value: Any, path: str) -> Iterator[FieldViolation]:
    """The fields that cannot be converted, each tried alone: what is None is left out of a message."""
    for field in dataclasses.fields(value):
        child = getattr(value, field.name)
        alone = object.__new__(type(value))
        for other in dataclasses.fields(value):
            object.__setattr__(alone, other.name, child if other is field else None)
        try:
            to_proto(alone)
        except _MISFITS as error:
            is_part = type(child).__name__ in DATACLASSES
            nested = list(_blame(child, f"{path}.{field.name}")) if is_part else []
            # Where a whole number belongs one is too large or too small, and protobuf says so.
            out_of_range = isinstance(error, ValueError) and isinstance(child, int)
            told = str(error) if out_of_range else f"{in_short(child)} should be {_wanted(field.type)}"
            yield from nested or [FieldViolation(field=f"{path}.{field.name}", description=told)]


def _wanted(kind: Any) -> str:
    """What a field of this type takes, as a user would write it."""
    kinds = [one for one in get_args(kind) or (kind,) if isinstance(one, type)]
    written = [f"{one.__name__}.{member.name}" for one in kinds if issubclass(one, Enum) for member in one]
    written += [f"{one.__name__}(...)" for one in kinds if dataclasses.is_dataclass(one)]
    return " or ".join(written) or (kind.__name__ if isinstance(kind, type) else str(kind).rpartition("abc.")[2])


def to_json(value: Any) -> Any:
    """A dataclass as JSON: the contract's form, with the names of the .proto files and every field written out.

    Whole numbers are numbers, where protobuf writes those of 64 bits as text: Python and jq are to count with them.
    """
    if type(value).__name__ in DATACLASSES:
        message = to_proto(value)
        document = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return _with_numbers(message.DESCRIPTOR, document)
    return dataclasses.asdict(value)


def _with_numbers(message: Descriptor, document: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(message.fields_by_name[name], value) for name, value in document.items()}


def _number(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, list):
        return [_number(field, one) for one in value]
    part = field.message_type
    if part is not None and part.GetOptions().map_entry:
        return {key: _number(part.fields_by_name["value"], one) for key, one in value.items()}
    if part is not None and isinstance(value, dict):  # a time is text
        return _with_numbers(part, value)
    return int(value) if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else value


def _sorter(info: catalogue_pb2.SorterInfo) -> SorterInfo:
    return SorterInfo(
        name=info.name,
        summary=info.summary,
        citation=info.citation,
        parameters=tuple(_parameter(parameter) for parameter in info.parameters),
        cost=info.cost,
        caveats=tuple(info.caveats),
        baseline=info.baseline,
    )


def _parameter(info: catalogue_pb2.ParameterInfo) -> ParameterInfo:
    # Only the bounds can be set or not.
    bounds = {field.name: value for field, value in info.ListFields() if field.has_presence}
    return ParameterInfo(
        name=info.name,
        default=json.loads(info.default_json) if info.default_json else None,
        summary=info.summary,
        choices=tuple(info.choices),
        **bounds,
    )
