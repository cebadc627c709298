"""JobService."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue

from podium.api.v1 import job_service_pb2 as pb
from podium.jobs import wire
from podium.jobs.blocking import on_loop
from podium.jobs.spec import Priority
from podium.server.services.jobs import Jobs
from podium.server.watch import Watches

#: A job with more declared classes than these is created in a thread: a hundred thousand would take a tenth of a second
#: of the event loop, for which all others wait.
_MANY_CLASSES, _LARGE_AT_ONCE = 5_000, 4


class JobServicer:
    """Jobs: submit, look, watch, change, stop, delete.

    Args:
        jobs: for threads.
        desk: the same for the event loop, where what is asked most is answered.
        watches: of jobs.
    """

    def __init__(self, jobs: Jobs, desk: Jobs, watches: Watches) -> None:
        self._jobs = jobs
        self._desk = desk
        self._watches = watches
        # Their own, as the disk of a dataset may hang, for which other calls' threads are not to wait.
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, thread_name_prefix="podium-large")

    async def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> bytes:
        """See the contract."""
        if len(request.spec.classes) > _MANY_CLASSES:
            loop = asyncio.get_running_loop()
            return _answer(await loop.run_in_executor(self._large, copy_context().run, self._jobs.create, request))
        return _answer(await on_loop(self._desk.create, request))

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> bytes:
        """See the contract."""
        return _answer(await on_loop(self._desk.serialized, request.job_id))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """See the contract."""
        jobs, token = await asyncio.to_thread(self._jobs.page, request)
        return pb.ListJobsResponse(jobs=[wire.to_proto(job) for job in jobs], next_page_token=token)

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Any) -> pb.UpdateJobResponse:
        """See the contract."""
        job = await asyncio.to_thread(
            self._jobs.update,
            request.job_id,
            priority=Priority(request.priority) if request.priority else None,
            labels=dict(request.labels),
        )
        return pb.UpdateJobResponse(job=wire.to_proto(job))

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """See the contract."""
        job = await asyncio.to_thread(self._jobs.cancel, request.job_id, request.reason, force=request.force)
        return pb.CancelJobResponse(job=wire.to_proto(job))

    async def PauseJob(self, request: pb.PauseJobRequest, context: Any) -> pb.PauseJobResponse:
        """See the contract."""
        job = await asyncio.to_thread(self._jobs.pause, request.job_id, request.reason)
        return pb.PauseJobResponse(job=wire.to_proto(job))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Any) -> pb.ResumeJobResponse:
        """See the contract."""
        return pb.ResumeJobResponse(job=wire.to_proto(await asyncio.to_thread(self._jobs.resume, request.job_id)))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Any) -> pb.DeleteJobResponse:
        """See the contract."""
        await asyncio.to_thread(self._jobs.delete, request.job_id)
        return pb.DeleteJobResponse()

    def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncGenerator[bytes, None]:
        """See the contract."""
        return self._watches.watch({request.job_id: request.after_sequence}, batched=request.batched)

    def WatchJobs(self, request: pb.WatchJobsRequest, context: Any) -> AsyncGenerator[bytes, None]:
        """See the contract."""
        return self._watches.watch(request.after_sequences, batched=request.batched)


def _answer(job: bytes) -> bytes:
    """The response that has a job's message as its field 1, where BytesValue has its bytes: both are written alike."""
    return BytesValue(value=job).SerializeToString()
