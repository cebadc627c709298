"""What happens around a call when the server itself is at fault, or slow."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from podium.api.v1 import job_service_pb2 as api
from podium.api.v1 import job_service_pb2_grpc
from podium.jobs.errors import DeadlineExceededError
from podium.server import servicers
from podium.server.assembly import SERVICES, Assembled
from podium.server.interceptors.deadline import Limits


class Faulty:
    """A servicer of JobService at its worst."""

    async def GetJob(self, request, context):
        raise ZeroDivisionError("a secret of the server")

    async def CancelJob(self, request, context):
        await asyncio.sleep(60)

    async def WatchJob(self, request, context):
        yield api.WatchJobResponse()
        raise ZeroDivisionError("a secret of the server")


def refused(call: Callable[[Any], Awaitable[object]], *, longest: float = 60.0) -> grpc.aio.AioRpcError:
    """What a call to the faulty servicer raises."""

    async def scenario() -> grpc.aio.AioRpcError:
        assembled = Assembled({"JobService": Faulty()}, with_reflection=False, longest=longest)
        port = assembled.server.add_insecure_port("127.0.0.1:0")
        await assembled.server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(job_service_pb2_grpc.JobServiceStub(channel))
        await assembled.server.stop(0)
        return caught.value

    return asyncio.run(scenario())


def cancel(stub: Any) -> Any:
    return stub.CancelJob(api.CancelJobRequest(job_id="j"))


async def read_all(stub: Any) -> None:
    async for _ in stub.WatchJob(api.WatchJobRequest(job_id="j")):
        pass


@pytest.mark.parametrize("call", [lambda stub: stub.GetJob(api.GetJobRequest(job_id="j")), read_all])
def test_a_fault_of_ours_is_internal_with_a_reference_that_is_in_the_log(call, caplog):
    error = refused(call)
    reference = str(error.details()).rpartition(" ")[2]

    assert grpc.StatusCode.INTERNAL is error.code()
    assert "secret" not in str(error.details())
    assert f"reference {reference}" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_slow_call_is_answered_before_a_caller_without_deadline_waits_forever():
    error = refused(cancel, longest=0.2)

    assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code()
    assert "may still be carried out" in str(error.details())


async def limited(limits: Limits, seconds: float, behaviour: Awaitable[object]) -> object:
    with limits.within(seconds):
        return await behaviour


def test_only_what_the_limit_itself_cancels_is_late():
    async def fails() -> None:
        raise TimeoutError("of a dataset")

    async def scenario() -> None:
        limits = Limits()
        with pytest.raises(DeadlineExceededError, match="no answer within"):
            await limited(limits, 0.01, asyncio.sleep(60))
        with pytest.raises(TimeoutError, match="of a dataset"):
            await limited(limits, 60, fails())
        cancelled = asyncio.create_task(limited(limits, 60, asyncio.sleep(60)))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(scenario())


def test_each_call_has_its_own_limit_and_none_once_it_is_over():
    async def scenario() -> list[object]:
        limits, ended = Limits(every=0.005), []

        async def call(name: str, seconds: float, takes: float) -> None:
            try:
                ended.append(await limited(limits, seconds, asyncio.sleep(takes, name)))
            except DeadlineExceededError:
                ended.append(f"{name} late")

        await asyncio.gather(call("c", 0.2, 60), call("a", 0.05, 60), call("d", 60, 0.3), call("b", 60, 0.1))
        # By itself, after a time without any; its task goes on when it is over.
        await call("e", 0.02, 60)
        await call("f", 0.02, 0)
        await asyncio.sleep(0.05)
        task = asyncio.current_task()
        assert task is not None
        return [*ended, task.cancelling()]

    assert ["a late", "b", "c late", "d", "e late", "f", 0] == asyncio.run(scenario())


def test_every_rpc_of_the_contract_is_built():
    built = {name.removesuffix("r"): cls for name, cls in vars(servicers).items() if name.endswith("Servicer")}

    missing = [
        f"{service.name}/{method.name}"
        for service in SERVICES.values()
        for method in service.methods
        if not hasattr(built.get(service.name), method.name)
    ]
    assert [] == missing
