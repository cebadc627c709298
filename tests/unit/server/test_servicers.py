"""Where a servicer has its work done: the event loop answers all others, too."""

import asyncio
import threading
from typing import Any

from podium.api.v1.job_service_pb2 import CreateJobRequest
from podium.api.v1.spec_pb2 import JobSpec
from podium.server.servicers.jobs import JobServicer


class Large:
    """A service for which a job takes until the event loop has got on."""

    def __init__(self) -> None:
        self.got_on = threading.Event()

    def create(self, request: CreateJobRequest) -> bytes:
        assert self.got_on.wait(10)
        return b"made"


def test_while_a_job_of_very_many_classes_is_created_the_event_loop_goes_on():
    service: Any = Large()
    servicer = JobServicer(service, desk=service, watches=service)
    request = CreateJobRequest(spec=JobSpec(classes=[f"class {number}" for number in range(10_000)]))

    async def scenario() -> bytes:
        creating = asyncio.create_task(servicer.CreateJob(request, None))
        await asyncio.sleep(0)
        service.got_on.set()
        return await creating

    assert asyncio.run(scenario()).endswith(b"made")
