"""What stands open beside the contract's rpcs, what the server says of it, and what holds without Redis."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from podium.api.v1 import token_service_pb2
from podium.jobs.errors import UnauthenticatedError, UnavailableError
from podium.jobs.store.redis import RedisTokens
from podium.jobs.tokens import Role, digest_of
from podium.server.access import ANONYMOUS, Keyring
from podium.server.services.tokens import Tokens
from tests.integration.access.conftest import OPERATOR, VIEWER, Caller, eventually, refusal


def test_health_is_for_everybody_and_reflection_for_who_has_a_token(play):
    async def scenario(serve):
        anonymous = await serve()

        async def described(caller: Caller) -> list[str]:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(caller.channel)  # type: ignore[arg-type]  # its stubs know no aio
            call = stub.ServerReflectionInfo(metadata=caller.metadata, timeout=20)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            await call.done_writing()
            answer = await call.read()
            return [service.name for service in answer.list_services_response.service]

        assert "podium.api.v1.TokenService" in await described(anonymous)
        root = anonymous.with_secret((await anonymous.make())[1])

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await described(anonymous)
        refused = refusal(caught.value)
        assert ("UNAUTHENTICATED", "TOKEN_MISSING") == (refused.code, refused.reason)
        assert "podium.api.v1.TokenService" in await described(root)
        health: Any = health_pb2_grpc.HealthStub(anonymous.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert health_pb2.HealthCheckResponse.SERVING == answer.status

    play(scenario)


def test_a_stream_of_reflection_counts_among_its_callers_ends_with_its_token_and_leaves_its_refusal_in_the_trail(play):
    async def scenario(serve):
        anonymous = await serve(streams_per_caller=1)
        root = anonymous.with_secret((await anonymous.make())[1])
        token, secret = await root.make("viewer", role=VIEWER)
        viewer = anonymous.with_secret(secret)

        async def described(caller: Caller) -> Any:
            """A stream that goes on after its first answer."""
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(caller.channel)  # type: ignore[arg-type]  # its stubs know no aio
            call = stub.ServerReflectionInfo(metadata=caller.metadata, timeout=20)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert await call.read() is not grpc.aio.EOF
            return call

        held = await described(viewer)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await described(viewer)
        assert "TOO_MANY_STREAMS" == refusal(caught.value).reason

        await root.ask(root.tokens.RevokeToken, token_service_pb2.RevokeTokenRequest(token_id=token.id))
        async with asyncio.timeout(5):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await held.read()
        assert "TOKEN_REVOKED" == refusal(caught.value).reason

        async def noted() -> bool:
            return ("ServerReflection/ServerReflectionInfo", "UNAUTHENTICATED") in [
                (event.method, event.status) for event in await root.trail()
            ]

        await eventually(noted)

    play(scenario)


def test_a_server_that_is_open_to_other_machines_says_so_loudly_at_its_start(play, caplog):
    def warned() -> list[str]:
        return [record.levelname for record in caplog.records if "NO TOKENS" in record.getMessage()]

    async def scenario(serve):
        await serve()
        assert [] == warned()
        await serve(admin_digest=digest_of(OPERATOR), listen="0.0.0.0:0")
        assert [] == warned()
        await serve(listen="0.0.0.0:0")
        assert ["WARNING"] == warned()

    with caplog.at_level(logging.WARNING, "podium.server.app"):
        play(scenario)


def test_a_stream_ends_when_its_token_expires_also_while_redis_hangs(redis_server, redis_client):
    async def scenario() -> None:
        tokens = RedisTokens(redis_client)
        service, soon = Tokens(tokens), timedelta(seconds=1.5)
        _, secret = service.create(ANONYMOUS, display_name="a", project="*", role=Role.ADMIN, time_to_live=soon)
        keyring = Keyring(tokens, look=0.05)
        await keyring.start()
        caller = keyring.holder(secret)
        assert caller is not None

        async def silence() -> AsyncGenerator[None, None]:
            await asyncio.Event().wait()
            yield

        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UnauthenticatedError, match="expired"):
                async with asyncio.timeout(20):
                    await anext(keyring.leashed(silence(), caller))
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
            await keyring.stop()

    asyncio.run(scenario())


def test_a_server_that_has_not_heard_from_redis_for_long_takes_no_token_but_the_operators(redis_server, redis_client):
    async def scenario() -> None:
        tokens = RedisTokens(redis_client)
        service = Tokens(tokens)
        _, secret = service.create(ANONYMOUS, display_name="a", project="*", role=Role.ADMIN, time_to_live=None)
        keyring = Keyring(tokens, admin_digest=digest_of(OPERATOR), look=0.05, patience=0.5)
        await keyring.start()

        async def taken() -> bool:
            try:
                return keyring.holder(secret) is not None
            except UnavailableError:
                return False

        async def refused() -> bool:
            return not await taken()

        assert await taken()
        redis_server.kill()
        await eventually(refused)
        assert keyring.asks
        operator = keyring.holder(OPERATOR)
        assert operator is not None
        assert operator.of_the_operator
        redis_server.start()
        await eventually(taken)
        await keyring.stop()

    asyncio.run(scenario())
