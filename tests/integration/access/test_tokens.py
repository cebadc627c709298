"""Tokens: the first one, what they open, how they end."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from podium.api.v1 import job_service_pb2, server_service_pb2, token_service_pb2
from podium.jobs.errors import ResourceExhaustedError
from podium.jobs.store import StoredToken, TokenBook
from podium.jobs.store.redis import RedisTokens
from podium.jobs.tokens import Role, Token, digest_of
from podium.server.access import Caller
from podium.server.services.tokens import MOST_OF_PROJECT, Tokens
from tests.integration.access.conftest import ADMIN, OPERATOR, SUBMITTER, VIEWER, eventually, refusal

INFO = server_service_pb2.GetServerInfoRequest()
NOBODY = token_service_pb2.GetCallerRequest()


def test_without_any_token_everybody_may_do_everything_and_from_the_first_one_on_nobody_without(play):
    async def scenario(serve):
        anonymous = await serve()
        await anonymous.ask(anonymous.catalogue.GetServerInfo, INFO)
        assert not (await anonymous.ask(anonymous.tokens.GetCaller, NOBODY)).HasField("token")

        token, secret = await anonymous.make()

        refused = await anonymous.refused(anonymous.catalogue.GetServerInfo, INFO)
        assert ("UNAUTHENTICATED", "TOKEN_MISSING") == (refused.code, refused.reason)
        assert "PODIUM_TOKEN" in refused.sentence
        admin = anonymous.with_secret(secret)
        await admin.ask(admin.catalogue.GetServerInfo, INFO)
        assert token.id == (await admin.ask(admin.tokens.GetCaller, NOBODY)).token.id
        assert "anonymous" == token.created_by

    play(scenario)


def test_a_server_that_knew_a_token_stays_closed_when_redis_loses_its_data(play, redis_client):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        await root.ask(root.catalogue.GetServerInfo, INFO)
        redis_client.flushall()

        async def forgotten():
            try:
                await root.ask(root.catalogue.GetServerInfo, INFO)
            except grpc.aio.AioRpcError as error:
                return "TOKEN_UNKNOWN" == refusal(error).reason

        await eventually(forgotten)
        assert "TOKEN_MISSING" == (await anonymous.refused(anonymous.catalogue.GetServerInfo, INFO)).reason

    play(scenario)


def test_the_first_token_must_be_an_admin_of_all_projects(play):
    async def scenario(serve):
        anonymous = await serve()
        for project, role in (("*", SUBMITTER), ("vision", ADMIN)):
            request = token_service_pb2.CreateTokenRequest(display_name="a", project=project, role=role)
            refused = await anonymous.refused(anonymous.tokens.CreateToken, request)
            assert "INVALID_ARGUMENT" == refused.code
        await anonymous.make()

    play(scenario)


def test_a_server_with_the_operators_file_is_never_open_and_lets_its_holder_do_everything(play):
    async def scenario(serve):
        anonymous = await serve(admin_digest=digest_of(OPERATOR))
        assert "TOKEN_MISSING" == (await anonymous.refused(anonymous.catalogue.GetServerInfo, INFO)).reason
        wrong = anonymous.with_secret(OPERATOR[:-1] + "0")
        assert "TOKEN_UNKNOWN" == (await wrong.refused(wrong.catalogue.GetServerInfo, INFO)).reason

        operator = anonymous.with_secret(OPERATOR, "bearer")
        # Not an admin of all projects: the operator can make these at any time.
        token, secret = await operator.make(project="vision", role=VIEWER)
        assert "PODIUM_ADMIN_TOKEN_FILE" in token.created_by
        viewer = anonymous.with_secret(secret)
        await viewer.ask(viewer.catalogue.GetServerInfo, INFO)

    play(scenario)


def test_a_token_made_at_one_server_is_good_at_the_other_at_once_and_revoked_there_within_five_seconds(play):
    async def scenario(serve):
        here, there = await serve(), await serve()
        root = here.with_secret((await here.make())[1])
        await eventually(lambda: closed(there))
        for _ in range(5):
            # More often than the other server looks by itself.
            token, secret = await root.make("short-lived")
            guest = there.with_secret(secret)
            assert token.id == (await guest.ask(guest.tokens.GetCaller, NOBODY)).token.id

        await root.ask(root.tokens.RevokeToken, token_service_pb2.RevokeTokenRequest(token_id=token.id))
        revoked = time.monotonic()
        own = here.with_secret(secret)
        assert "TOKEN_REVOKED" == (await own.refused(own.catalogue.GetServerInfo, INFO)).reason

        async def is_refused():
            try:
                await guest.ask(guest.catalogue.GetServerInfo, INFO)
            except grpc.aio.AioRpcError as error:
                return error
            return None

        error = await eventually(is_refused)
        assert ("UNAUTHENTICATED", "TOKEN_REVOKED") == (refusal(error).code, refusal(error).reason)
        assert 5 > time.monotonic() - revoked

    play(scenario)


def test_a_silent_watch_ends_within_five_seconds_after_its_token_was_revoked_and_one_after_it_expired(
    play, request_for
):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make())[1])
        job_id = (await root.ask(root.jobs.CreateJob, request_for())).job.id
        revoked, revoked_secret = await root.make("a", "default", VIEWER)
        _, expiring_secret = await root.make("b", "default", VIEWER, time_to_live=Duration(seconds=3))
        request = job_service_pb2.WatchJobRequest(job_id=job_id)

        async def end_of(secret: str) -> Any:
            viewer = anonymous.with_secret(secret)
            watch = viewer.open(viewer.jobs.WatchJob, request)
            await watch.read()
            opened.release()
            try:
                while await watch.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return refusal(error), time.monotonic()
            raise AssertionError("it ended well")

        opened = asyncio.Semaphore(0)
        watches = [asyncio.create_task(end_of(secret)) for secret in (revoked_secret, expiring_secret)]
        for _ in watches:
            await opened.acquire()
        asked = time.monotonic()
        await root.ask(root.tokens.RevokeToken, token_service_pb2.RevokeTokenRequest(token_id=revoked.id))
        (of_revoked, at), (of_expired, _) = await asyncio.gather(*watches)

        assert ("UNAUTHENTICATED", "TOKEN_REVOKED") == (of_revoked.code, of_revoked.reason)
        assert ("UNAUTHENTICATED", "TOKEN_EXPIRED") == (of_expired.code, of_expired.reason)
        assert 5 > at - asked
        # The server is well, and others' watches are.
        assert "QUEUED" in str((await root.ask(root.jobs.GetJob, job_service_pb2.GetJobRequest(job_id=job_id))).job)

    play(scenario)


def test_a_watch_ends_when_who_opened_it_would_not_be_let_in_any_more(play, request_for):
    async def scenario(serve):
        anonymous = await serve()
        job_id = (await anonymous.ask(anonymous.jobs.CreateJob, request_for())).job.id
        request = job_service_pb2.WatchJobRequest(job_id=job_id)

        async def end_of(watch: Any) -> Any:
            try:
                while await watch.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                return refusal(error).reason

        of_nobody = anonymous.open(anonymous.jobs.WatchJob, request)
        await of_nobody.read()
        token, former = await anonymous.make()
        root = anonymous.with_secret(former)
        of_the_former = root.open(root.jobs.WatchJob, request)
        await of_the_former.read()
        rotate = token_service_pb2.RotateTokenRequest(token_id=token.id, overlap=Duration(seconds=0))
        root = anonymous.with_secret((await root.ask(root.tokens.RotateToken, rotate)).secret)
        of_the_new = root.open(root.jobs.WatchJob, request)
        await of_the_new.read()

        async with asyncio.timeout(5):
            assert ["TOKEN_MISSING", "TOKEN_UNKNOWN"] == [await end_of(of_nobody), await end_of(of_the_former)]
        assert not of_the_new.done()

    play(scenario)


def test_a_rotated_token_is_good_with_both_secrets_for_a_while_and_then_with_the_new_one_only(play):
    async def scenario(serve):
        anonymous = await serve()
        token, former = await anonymous.make()
        root = anonymous.with_secret(former)

        def rotate(**overlap: Any) -> Any:
            return token_service_pb2.RotateTokenRequest(token_id=token.id, **overlap)

        first = await root.ask(root.tokens.RotateToken, rotate())
        for secret in (former, first.secret):
            caller = anonymous.with_secret(secret)
            assert token.id == (await caller.ask(caller.tokens.GetCaller, NOBODY)).token.id
        a_day = first.token.former_secret_expire_time.seconds - time.time()
        assert 86_400 - 60 < a_day <= 86_400

        second = await root.ask(root.tokens.RotateToken, rotate(overlap=Duration(seconds=0)))
        for secret in (former, first.secret):
            caller = anonymous.with_secret(secret)
            assert "TOKEN_UNKNOWN" == (await caller.refused(caller.tokens.GetCaller, NOBODY)).reason
        caller = anonymous.with_secret(second.secret)
        await caller.ask(caller.tokens.GetCaller, NOBODY)

    play(scenario)


def test_the_last_admin_of_all_projects_stays_while_others_are_good(play):
    async def scenario(serve):
        anonymous = await serve()
        token, secret = await anonymous.make()
        root = anonymous.with_secret(secret)
        other, _ = await root.make("other", "vision", ADMIN)

        refused = await root.refused(root.tokens.RevokeToken, _revoke(token))
        assert ("FAILED_PRECONDITION", "LAST_ADMIN") == (refused.code, refused.reason)

        await root.ask(root.tokens.RevokeToken, _revoke(other))
        again = await root.ask(root.tokens.RevokeToken, _revoke(other))
        assert again.token.HasField("revoke_time")
        await root.ask(root.tokens.RevokeToken, _revoke(token))
        # It had tokens once: it never opens again.
        assert "TOKEN_MISSING" == (await anonymous.refused(anonymous.catalogue.GetServerInfo, INFO)).reason

    play(scenario)


def test_an_admin_of_a_project_manages_the_tokens_of_that_project_and_sees_no_others(play):
    async def scenario(serve):
        anonymous = await serve()
        token, secret = await anonymous.make()
        root = anonymous.with_secret(secret)
        admin = anonymous.with_secret((await root.make("admin", "vision", ADMIN))[1])

        mine, _ = await admin.make("mine", "vision", SUBMITTER)
        request = token_service_pb2.CreateTokenRequest(display_name="a", project="nlp", role=VIEWER)
        assert "PERMISSION_DENIED" == (await admin.refused(admin.tokens.CreateToken, request)).code
        listed = (await admin.ask(admin.tokens.ListTokens, token_service_pb2.ListTokensRequest())).tokens
        assert ["admin", "mine"] == [found.display_name for found in listed]

        foreign = await admin.refused(admin.tokens.RevokeToken, _revoke(token))
        missing = await admin.refused(
            admin.tokens.RevokeToken, token_service_pb2.RevokeTokenRequest(token_id="tok-0123456789abcdef")
        )
        assert ("NOT_FOUND", "TOKEN_NOT_FOUND") == (foreign.code, foreign.reason)
        assert missing == foreign
        rotated = await admin.ask(admin.tokens.RotateToken, token_service_pb2.RotateTokenRequest(token_id=mine.id))
        assert rotated.token.HasField("former_secret_expire_time")

    play(scenario)


def test_a_project_has_a_thousand_good_tokens_at_most_and_its_ended_ones_take_nobodys_place(redis_client):
    tokens = RedisTokens(redis_client)
    service, operator = Tokens(tokens), Caller(None, of_the_operator=True)

    def make(project: str = "vision", **more: Any) -> Token:
        return service.create(
            operator, display_name="a", project=project, role=Role.VIEWER, **{"time_to_live": None, **more}
        )[0]

    def attempt(_: int) -> str:
        try:
            return make().id
        except ResourceExhaustedError as error:
            return error.reason

    ended = [make(time_to_live=timedelta(microseconds=1)) for _ in range(3)]
    for number in range(MOST_OF_PROJECT - 2):
        token = Token(id=f"tok-{number:016x}", display_name="a", project="vision", role=Role.VIEWER)
        assert tokens.write(TokenBook(version=tokens.version()), StoredToken(token=token, digest=bytes(32)))
    kept = make()
    with ThreadPoolExecutor(2) as pool:
        made, refused = sorted(pool.map(attempt, range(2)), reverse=True)

    assert made.startswith("tok-")
    assert "TOO_MANY_TOKENS" == refused
    with pytest.raises(ResourceExhaustedError, match=r"the project vision has 1000 .* revoke"):
        make()
    assert not {token.id for token in ended} & tokens.read().tokens.keys()

    assert "nlp" == make("nlp").project
    service.revoke(operator, kept.id)
    assert make().id in tokens.read().tokens
    assert kept.id not in tokens.read().tokens


def test_nothing_that_was_ever_written_into_redis_is_a_secret(play, redis_server):
    async def scenario(serve):
        anonymous = await serve()
        _, secret = await anonymous.make()
        root = anonymous.with_secret(secret)
        token, other = await root.make("other")
        rotated = await root.ask(root.tokens.RotateToken, token_service_pb2.RotateTokenRequest(token_id=token.id))
        # Somebody mistakes a secret for an id.
        request = token_service_pb2.RevokeTokenRequest(token_id=other)
        sentence = (await root.refused(root.tokens.RevokeToken, request)).sentence
        viewer = anonymous.with_secret((await root.make("viewer", role=VIEWER))[1])
        await viewer.refused(viewer.tokens.RevokeToken, request)

        async def written() -> bool:
            return "PERMISSION_DENIED" in {event.status for event in await root.trail(target=token.id)}

        await eventually(written)
        secrets.extend([secret, other, rotated.secret])
        assert other not in sentence

    secrets: list[str] = []
    play(scenario)

    # Whatever was ever written stands in its append-only file.
    everything = b"".join(file.read_bytes() for file in redis_server.directory.rglob("*") if file.is_file())
    assert b"TokenService/RotateToken" in everything
    for secret in secrets:
        # Its random part; an underscore may be in there, too.
        assert secret[-43:].encode() not in everything


async def closed(anonymous: Any) -> object:
    """Whether a server has heard of the first token."""
    code = await anonymous.open(anonymous.tokens.GetCaller, NOBODY).code()
    return code is grpc.StatusCode.UNAUTHENTICATED


def _revoke(token: Any) -> Any:
    return token_service_pb2.RevokeTokenRequest(token_id=token.id)
