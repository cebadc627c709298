"""What those say of a call who watch it from outside."""

import asyncio

from podium.server.interceptors._call import Call

#: The packages of services that are not of our contract.
_FOREIGN = {"ExternalScaler": "externalscaler", "ServerReflection": "grpc.reflection.v1alpha"}


def full_method(call: Call) -> str:
    """Such as "podium.api.v1.JobService/GetJob"."""
    return f"{_FOREIGN.get(call.method.partition('/')[0], 'podium.api.v1')}.{call.method}"


def outcome(call: Call, error: BaseException | None) -> str:
    """The name of its status, once everything within has ended with `error` or without one."""
    if error is not None and isinstance(error, asyncio.CancelledError | GeneratorExit):
        # The caller went away, which gRPC shows in one of two ways.
        return "CANCELLED"
    return getattr(call.context.code(), "name", None) or "OK"
