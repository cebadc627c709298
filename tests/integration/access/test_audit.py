"""The audit trail: who did what, who was refused, and nothing more."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis

from podium.api.v1 import audit_service_pb2, job_service_pb2, node_service_pb2, server_service_pb2, token_service_pb2
from podium.jobs.audit import AuditEvent
from podium.jobs.store.redis import RedisAudit
from podium.jobs.tokens import digest_of
from podium.server import meters
from podium.server.audit import AuditWriter
from tests.integration.access.conftest import ADMIN, OPERATOR, SUBMITTER, VIEWER, eventually


def of_vision(request: Any) -> Any:
    request.project = "vision"
    return request


def test_every_change_and_every_refusal_is_in_the_trail_and_what_changed_nothing_is_not(play, request_for):
    async def scenario(serve):
        anonymous = await serve()
        token, secret = await anonymous.make("root")
        root = anonymous.with_secret(secret)
        maker, secret = await root.make("ci", "vision", SUBMITTER)
        submitter = anonymous.with_secret(secret)
        job = (await submitter.ask(submitter.jobs.CreateJob, of_vision(request_for()))).job
        await submitter.ask(submitter.jobs.CreateJob, of_vision(request_for(validate_only=True)))
        await submitter.refused(submitter.jobs.CreateJob, of_vision(request_for(k={"1": 7})))
        await submitter.ask(submitter.jobs.GetJob, job_service_pb2.GetJobRequest(job_id=job.id))
        await submitter.refused(submitter.nodes.DrainNode, node_service_pb2.DrainNodeRequest(node_id="n1"))
        await anonymous.refused(anonymous.jobs.GetJob, job_service_pb2.GetJobRequest(job_id=job.id))
        await root.ask(root.jobs.CancelJob, job_service_pb2.CancelJobRequest(job_id=job.id, reason="private words"))

        async def all_of_it():
            events = await root.trail()
            return events if len(events) >= 6 else None

        events = await eventually(all_of_it)
        mine, ci = f"{token.id} (root)", f"{maker.id} (ci)"
        told = [(event.actor, event.method, event.target, event.project, event.status) for event in reversed(events)]
        assert [
            ("anonymous", "TokenService/CreateToken", token.id, "*", "OK"),
            (mine, "TokenService/CreateToken", maker.id, "vision", "OK"),
            (ci, "JobService/CreateJob", job.id, "vision", "OK"),
            (ci, "NodeService/DrainNode", "n1", "vision", "PERMISSION_DENIED"),
            ("anonymous", "JobService/GetJob", job.id, "", "UNAUTHENTICATED"),
            (mine, "JobService/CancelJob", job.id, "vision", "OK"),
        ] == told
        assert sorted((event.id for event in events), reverse=True) == [event.id for event in events]
        assert all(event.request_id and event.peer.startswith("ipv4:127.0.0.1:") for event in events)
        assert all(event.HasField("time") for event in events)
        assert "resnet" not in str(events)
        assert "private" not in str(events)

    play(scenario)


def test_whoever_shows_a_token_that_was_revoked_is_in_the_trail_by_its_name_and_who_guesses_one_is_not(play):
    async def scenario(serve):
        anonymous = await serve()
        _, secret = await anonymous.make("root")
        root = anonymous.with_secret(secret)
        token, secret = await root.make("left-us", "vision", SUBMITTER)
        await root.ask(root.tokens.RevokeToken, token_service_pb2.RevokeTokenRequest(token_id=token.id))
        for shown in (secret, secret[:-1] + ("A" if secret[-1] != "A" else "B")):
            caller = anonymous.with_secret(shown)
            await caller.refused(caller.nodes.ListNodes, node_service_pb2.ListNodesRequest())

        async def refusals():
            events = [event.actor for event in await root.trail() if event.status == "UNAUTHENTICATED"]
            return events if len(events) == 2 else None

        assert ["anonymous", f"{token.id} (left-us)"] == await eventually(refusals)

    play(scenario)


def test_whoever_is_refused_without_end_pushes_nothing_out_of_the_trail(play):
    async def scenario(serve):
        anonymous = await serve(audit_kept=100)
        token, secret = await anonymous.make("root")
        root = anonymous.with_secret(secret)
        viewer = anonymous.with_secret((await root.make("eye", "vision", VIEWER))[1])
        left_out = meters.AUDIT_LEFT_OUT._value.get()

        request = node_service_pb2.DrainNodeRequest(node_id="n1")
        await asyncio.gather(*(viewer.refused(viewer.nodes.DrainNode, request) for _ in range(500)))
        await anonymous.refused(anonymous.nodes.DrainNode, request)

        async def of_the_stranger():
            events = await root.trail(page_size=1000)
            return events if "UNAUTHENTICATED" in [event.status for event in events] else None

        events = await eventually(of_the_stranger)
        assert token.id == events[-1].target
        written = sum(event.status == "PERMISSION_DENIED" for event in events)
        # One more for every six seconds that the calls took.
        assert 10 <= written <= 20
        assert 500 - written == meters.AUDIT_LEFT_OUT._value.get() - left_out

    play(scenario)


def test_an_admin_of_a_project_reads_the_trail_of_that_project_only(play, request_for):
    async def scenario(serve):
        anonymous = await serve()
        root = anonymous.with_secret((await anonymous.make("root"))[1])
        admin = anonymous.with_secret((await root.make("admin", "vision", ADMIN))[1])
        viewer = anonymous.with_secret((await root.make("eye", "vision", VIEWER))[1])
        for request in (request_for(), of_vision(request_for())):
            await root.ask(root.jobs.CreateJob, request)

        async def of_the_project():
            events = await admin.trail(project="vision")
            return events if len(events) >= 3 else None

        events = await eventually(of_the_project)
        assert {"vision"} == {event.project for event in events}
        for project in ("", "default"):
            request = audit_service_pb2.ListAuditEventsRequest(project=project)
            assert "PERMISSION_DENIED" == (await admin.refused(admin.audit.ListAuditEvents, request)).code
        request = audit_service_pb2.ListAuditEventsRequest(project="vision")
        assert "PERMISSION_DENIED" == (await viewer.refused(viewer.audit.ListAuditEvents, request)).code

    play(scenario)


def test_pages_of_the_trail_have_each_event_once_and_a_token_of_another_list_is_refused(play):
    async def scenario(serve):
        operator = (await serve(admin_digest=digest_of(OPERATOR))).with_secret(OPERATOR)
        made = [(await operator.make(f"t{number}"))[0].id for number in range(7)]

        async def page(token: str = "", **wanted: Any) -> Any:
            request = audit_service_pb2.ListAuditEventsRequest(page_size=3, page_token=token, **wanted)
            return await operator.ask(operator.audit.ListAuditEvents, request)

        async def whole():
            found, token = [], ""
            while True:
                answer = await page(token)
                assert len(answer.events) <= 3
                found += [event.target for event in answer.events]
                if not (token := answer.next_page_token):
                    return found if len(found) >= 7 else None

        assert made[::-1] == await eventually(whole)
        assert [made[2]] == [event.target for event in (await page(target=made[2])).events]
        request = audit_service_pb2.ListAuditEventsRequest(page_token=(await page()).next_page_token, project="vision")
        assert "INVALID_ARGUMENT" == (await operator.refused(operator.audit.ListAuditEvents, request)).code

    play(scenario)


def test_a_server_that_stops_writes_what_has_not_been_written_yet(redis_client):
    trail = RedisAudit(redis_client, kept=100)

    async def scenario() -> None:
        writer = AuditWriter(trail)
        for target in "abc":
            writer.record(AuditEvent(target=target))
        await writer.stop(10)

    asyncio.run(scenario())

    assert ["c", "b", "a"] == [event.target for event in trail.page(lambda _: True)[0]]


class NotingTrail(RedisAudit):
    """The ledger's, which notes how many events each batch has."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client, kept=100)
        self.batches: list[int] = []

    def append(self, batch: int, events: Sequence[AuditEvent]) -> None:
        self.batches.append(len(events))
        super().append(batch, events)


def test_events_that_come_close_together_are_written_in_one_batch(redis_client):
    async def batches() -> list[int]:
        trail = NotingTrail(redis_client)
        writer = AuditWriter(trail)
        for target in "abc":
            writer.record(AuditEvent(target=target))
            # Long enough to begin writing what there is.
            for _ in range(3):
                await asyncio.sleep(0)
        await writer.stop(10)
        return trail.batches

    # A machine that stands still for a tenth of a second in between may tear one apart.
    assert [3] in (asyncio.run(batches()) for _ in range(3))
    assert ["c", "b", "a"] == [event.target for event in RedisAudit(redis_client, kept=100).page(lambda _: True)[0]][:3]


def test_while_the_ledger_is_away_events_wait_and_are_written_once_when_it_is_back(play, redis_server):
    async def scenario(serve):
        anonymous = await serve(admin_digest=digest_of(OPERATOR))
        operator = anonymous.with_secret(OPERATOR)
        redis_server.kill()
        refused = server_service_pb2.GetServerInfoRequest()
        for _ in range(3):
            assert "TOKEN_MISSING" == (await anonymous.refused(anonymous.catalogue.GetServerInfo, refused)).reason
        redis_server.start()

        async def written():
            try:
                return len(await operator.trail()) >= 3
            except Exception:
                return False

        await eventually(written, 20)
        await asyncio.sleep(0.3)
        assert 3 == len(await operator.trail())

    play(scenario)
