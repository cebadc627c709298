"""How much one caller may ask for."""

import asyncio
from typing import Any

import grpc

from podium.api.v1 import job_service_pb2, server_service_pb2, token_service_pb2
from tests.integration.access.conftest import VIEWER, eventually, refusal

INFO = server_service_pb2.GetServerInfoRequest()


def test_calls_above_the_limit_are_refused_with_the_time_to_wait_and_others_are_served_meanwhile(play):
    async def scenario(serve):
        anonymous = await serve(calls_per_second=5)
        root = anonymous.with_secret((await anonymous.make())[1])
        busy = anonymous.with_secret((await root.make("busy", role=VIEWER))[1])
        calls = [busy.ask(busy.catalogue.GetServerInfo, INFO) for _ in range(40)]

        answers = await asyncio.gather(*calls, return_exceptions=True)

        refused = [refusal(error) for error in answers if isinstance(error, grpc.aio.AioRpcError)]
        assert 40 - len(refused) >= 10  # two seconds' worth
        assert {("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")} == {(one.code, one.reason) for one in refused}
        assert all(0 < one.retry_after <= 0.2 for one in refused)
        await root.ask(root.catalogue.GetServerInfo, INFO)
        await asyncio.sleep(max(one.retry_after for one in refused))
        await busy.ask(busy.catalogue.GetServerInfo, INFO)

    play(scenario)


async def _as_many(what: Any, number: int) -> bool:
    return len(await what()) == number


def test_streams_above_the_limit_are_refused_until_one_ends(play, request_for):
    async def scenario(serve):
        anonymous = await serve(streams_per_caller=2)
        job_id = (await anonymous.ask(anonymous.jobs.CreateJob, request_for())).job.id
        request = job_service_pb2.WatchJobRequest(job_id=job_id)
        held = [anonymous.open(anonymous.jobs.WatchJob, request) for _ in range(2)]
        for watch in held:
            await watch.read()

        refused = await anonymous.refused(anonymous.jobs.WatchJob, request)
        assert ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS") == (refused.code, refused.reason)
        assert refused.retry_after

        held[0].cancel()

        async def opens():
            try:
                return await anonymous.open(anonymous.jobs.WatchJob, request).read()
            except grpc.aio.AioRpcError:
                return None

        assert job_id == (await eventually(opens)).event.job_id

    play(scenario)


def test_who_shows_a_revoked_token_again_and_again_is_soon_told_to_wait(play):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        token, secret = await root.make("gone")
        await root.ask(root.tokens.RevokeToken, token_service_pb2.RevokeTokenRequest(token_id=token.id))
        gone = anonymous.with_secret(secret)

        answers = await asyncio.gather(*(gone.refused(gone.catalogue.GetServerInfo, INFO) for _ in range(60)))

        assert {"TOKEN_REVOKED", "TOO_MANY_FAILURES"} == {answer.reason for answer in answers}

    play(scenario)


def test_who_guesses_tokens_is_soon_told_to_wait_and_whoever_has_one_at_the_same_address_is_not(play):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        guesser = anonymous.with_secret("podium_0123456789abcdef_" + "A" * 43)
        guesses = [guesser.refused(guesser.catalogue.GetServerInfo, INFO) for _ in range(60)]

        answers = await asyncio.gather(*guesses)

        reasons = {answer.reason for answer in answers}
        assert {"TOKEN_UNKNOWN", "TOO_MANY_FAILURES"} == reasons
        await root.ask(root.tokens.GetCaller, token_service_pb2.GetCallerRequest())

        # Of a flood the trail has its beginning.
        async def refused():
            return [event for event in await root.trail(page_size=1000) if event.status == "UNAUTHENTICATED"]

        told = [answer.reason for answer in answers].count("TOKEN_UNKNOWN")
        assert 20 <= told < 60
        await eventually(lambda: _as_many(refused, 10))

    play(scenario)
