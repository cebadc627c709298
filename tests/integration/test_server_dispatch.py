"""The dispatcher and the reconciler in real servers; the tests play machines and attempts through the ledger."""

import json
from collections.abc import Callable, Iterator

import pytest
import redis

from podium.api.v1 import job_service_pb2 as api
from podium.api.v1.job_pb2 import Job as JobMessage
from podium.api.v1.job_pb2 import QueueInfo
from podium.jobs.delivery import delivery_id, queue_name
from podium.jobs.job import Cause, Node, NodeState, Slot
from podium.jobs.settings import Settings
from podium.jobs.states import State
from podium.jobs.store import Assignment, Leases, Wish
from podium.jobs.store.redis import RedisStore, connect
from tests.integration.conftest import ServerProcess

#: As short as leaves a test that plays a machine or an attempt a second in which it is not heard.
SHORT = {"PODIUM_LEASE_ATTEMPT": "1", "PODIUM_LEASE_STARTING": "2", "PODIUM_LEASE_NODE": "1"}
SHORT_LEASES = Leases(attempt=1, starting=2, node=1)


def node(slots: int = 1, *, name: str = "n1", state: NodeState = NodeState.READY) -> Node:
    return Node(id=name, pool="default", state=state, slots=tuple(Slot(index=index) for index in range(slots)))


def assignment_of(store: RedisStore, job_id: str) -> Assignment:
    return next(assignment for job, assignment, _ in store.holding() if job.id == job_id)


@pytest.fixture
def hasty(ledger_url) -> Iterator[RedisStore]:
    """The ledger with short leases."""
    settings = Settings(redis_url=ledger_url, redis_password=None, artifacts="", data_roots=(), leases=SHORT_LEASES)
    with connect(settings) as client:
        yield RedisStore(client, leases=SHORT_LEASES)


@pytest.fixture
def started(hasty, eventually) -> Callable[..., None]:
    """Returns when a job's attempt of a number has been sent to a machine, which is heard until then."""

    def wait(job_id: str, attempt: int = 1, *, name: str = "n1") -> None:
        def sent() -> bool:
            hasty.heartbeat(node(name=name))
            return bool(hasty.get(job_id).attempt == attempt)

        eventually(sent)

    return wait


@pytest.fixture
def submit(request_for) -> Callable[..., str]:
    """Submits a job; its id."""
    return lambda server, **changes: server.jobs.CreateJob(request_for(**changes), timeout=20).job.id


def test_higher_priority_goes_first_then_first_come_first_served(server, store, submit, eventually):
    low, first, second = submit(server, priority="PRIORITY_LOW"), submit(server), submit(server)
    urgent = submit(server, priority="PRIORITY_URGENT")
    order = []
    for _ in range(4):
        store.heartbeat(node())
        eventually(store.holding)
        ((job, assignment, _),) = store.holding()
        order.append(job.id)
        store.begin(assignment)
        store.finish(assignment, State.SUCCEEDED, reason="done")

    assert [urgent, first, second, low] == order


def test_a_dispatched_job_is_delivered_as_json_on_the_queue_of_its_slot(
    server, store, submit, eventually, redis_client
):
    job_id = submit(server)
    store.heartbeat(node(name="gpu box"))
    key = f"rq:queue:{queue_name('gpu box', 0)}"
    eventually(lambda: redis_client.llen(key))
    delivered = redis_client.hgetall(f"rq:job:{redis_client.lindex(key, 0).decode()}")

    assert State.STARTING is store.get(job_id).state
    assert [_delivered(job_id, "gpu box")] == redis_client.lrange(key, 0, -1)
    assert (b"-1", b"86400") == (delivered[b"timeout"], delivered[b"result_ttl"])
    assert "podium.worker.entry.run" in _text(delivered[b"data"])
    assert {"job_id": job_id, "attempt": 1, "fence": 1} == json.loads(_text(delivered[b"data"]))[3]


def _delivered(job_id: str, name: str) -> bytes:
    """RQ's id of the delivery of a first attempt to the first slot of a machine."""
    return delivery_id(Assignment(job_id=job_id, attempt=1, fence=1), queue_name(name, 0)).encode()


def _text(data: bytes) -> str:
    import zlib

    return zlib.decompress(data).decode() if data[:1] == b"x" else data.decode()


def test_a_job_never_gets_a_slot_of_a_draining_or_foreign_machine(server, store, submit, eventually):
    store.heartbeat(node(name="draining", state=NodeState.DRAINING))
    waiting, elsewhere = submit(server), submit(server, resources={"pool": "other"})
    eventually(lambda: "draining is draining" in _queue(server, waiting).wait_reason)
    store.heartbeat(Node(id="o1", pool="other", state=NodeState.READY, slots=(Slot(index=0),)))
    eventually(lambda: store.get(elsewhere).state is State.STARTING)

    assert State.QUEUED is store.get(waiting).state


def test_a_waiting_job_says_what_it_waits_for(server, store, submit, eventually):
    store.heartbeat(node())
    runs = submit(server)
    eventually(lambda: store.get(runs).state is State.STARTING)
    submit(server)
    waits = submit(server)
    # What is told may be a moment old.
    told = "waiting for a free slot in pool default: 1 of 1 busy"
    eventually(lambda: (_queue(server, waits).position, _queue(server, waits).wait_reason) == (2, told))


def _queue(server: ServerProcess, job_id: str) -> QueueInfo:
    """What a queued job is told."""
    return server.jobs.GetJob(api.GetJobRequest(job_id=job_id), timeout=20).job.queue


def test_an_urgent_job_has_a_low_one_save_its_work_and_gets_its_slot(server, store, submit, eventually):
    store.heartbeat(node())
    low = submit(server, priority="PRIORITY_LOW")
    eventually(store.holding)
    assignment = assignment_of(store, low)
    store.begin(assignment)
    urgent = submit(server, priority="PRIORITY_URGENT")
    eventually(lambda: store.renew(assignment) is Wish.PREEMPT)
    eventually(lambda: "jobs on n1 are saving their work to make room" in _queue(server, urgent).wait_reason)
    foreseen = _queue(server, urgent).HasField("estimated_start_time")
    store.recover(assignment, "preempted", cause=Cause.PREEMPTED)
    eventually(lambda: store.get(urgent).state is State.STARTING)

    assert foreseen
    assert State.QUEUED is store.get(low).state


def test_a_share_that_cannot_be_read_stops_the_server_at_its_start_by_its_name(new_server):
    with pytest.raises(AssertionError, match="PODIUM_QUOTAS: 'vision' is not PROJECT=NUMBER"):
        new_server(PODIUM_QUOTAS="vision")


def test_jobs_go_to_the_emptiest_machine_first(server, store, submit, eventually):
    store.heartbeat(node(2, name="a"))
    store.heartbeat(node(2, name="b"))
    jobs = [submit(server) for _ in range(4)]
    eventually(lambda: all(store.get(job).state is State.STARTING for job in jobs))
    places = [(store.get(job).attempts[0].node, store.get(job).attempts[0].slot) for job in jobs]

    assert {"a", "b"} == {name for name, _ in places[:2]}
    assert 4 == len(set(places))


def test_a_job_of_two_slots_holds_both_and_is_delivered_to_the_first(server, store, submit, eventually, redis_client):
    store.heartbeat(node(2))
    pair = submit(server, resources={"gpus": 2})
    eventually(lambda: redis_client.llen(f"rq:queue:{queue_name('n1', 0)}"))
    shown = server.jobs.GetJob(api.GetJobRequest(job_id=pair), timeout=20).job

    assert (0, [0, 1]) == (shown.attempts[0].slot, list(shown.attempts[0].slots))
    assert [pair, pair] == [slot.job_id for slot in store.nodes()[0].slots]
    assert [_delivered(pair, "n1")] == redis_client.lrange(f"rq:queue:{queue_name('n1', 0)}", 0, -1)
    assert 0 == redis_client.llen(f"rq:queue:{queue_name('n1', 1)}")


def test_a_job_of_two_slots_is_not_overtaken_and_one_of_three_holds_nobody_up(server, store, submit, eventually):
    def running(*jobs: str) -> bool:
        return all(store.get(job).state is State.STARTING for job in jobs)

    def end(job: str) -> None:
        assignment = assignment_of(store, job)
        store.begin(assignment)
        store.finish(assignment, State.SUCCEEDED, reason="done")

    store.heartbeat(node(2))
    first, second = submit(server), submit(server)
    eventually(lambda: running(first, second))
    huge, pair, late = submit(server, resources={"gpus": 3}), submit(server, resources={"gpus": 2}), submit(server)
    eventually(lambda: "2 of 2 busy" in _queue(server, pair).wait_reason)
    reasons = {job: _queue(server, job).wait_reason for job in (huge, pair)}
    end(first)
    end(second)
    eventually(lambda: running(pair))
    late_waited = store.get(late).state is State.QUEUED
    end(pair)
    eventually(lambda: running(late))

    assert late_waited
    assert State.QUEUED is store.get(huge).state
    assert reasons[huge].startswith("needs 3 slots of one machine; the largest that takes jobs in pool default has 2")
    assert "waiting for 2 free slots of one machine in pool default: 2 of 2 busy" == reasons[pair]


def test_an_attempt_that_never_begins_goes_back_to_the_queue(new_server, hasty, submit, started, eventually):
    server = new_server(**SHORT)
    job_id = submit(server)
    started(job_id)
    # It is not to be sent there again before it was looked at.
    hasty.heartbeat(node(state=NodeState.DRAINING))
    eventually(lambda: hasty.get(job_id).state is State.QUEUED)
    job = server.jobs.GetJob(api.GetJobRequest(job_id=job_id), timeout=20).job

    assert JobMessage.STATE_QUEUED == job.state
    assert ["the attempt never began"] == [attempt.outcome for attempt in job.attempts]


def test_a_job_of_a_lost_machine_starts_again_on_another(new_server, hasty, submit, started, eventually):
    server = new_server(**SHORT)
    job_id = submit(server)
    started(job_id, name="dies")
    hasty.begin(assignment_of(hasty, job_id))
    eventually(lambda: hasty.get(job_id).state is State.QUEUED)
    started(job_id, 2, name="lives")
    first, second = hasty.get(job_id).attempts

    assert ("dies", "the machine dies was lost", "lives") == (first.node, first.outcome, second.node)


def test_a_silent_attempt_on_a_living_machine_is_given_up_after_a_while(new_server, hasty, submit, started, eventually):
    server = new_server(**SHORT)
    job_id = submit(server)
    started(job_id)
    hasty.begin(assignment_of(hasty, job_id))

    def recovered() -> bool:
        hasty.heartbeat(node(state=NodeState.DRAINING))
        return hasty.get(job_id).state is State.QUEUED

    eventually(recovered)

    assert "the attempt fell silent on n1" == hasty.get(job_id).attempts[0].outcome


def test_an_attempt_that_renews_its_lease_is_left_alone_without_its_machine(
    new_server, hasty, submit, started, eventually
):
    server = new_server(**SHORT)
    job_id = submit(server)
    started(job_id)
    assignment = assignment_of(hasty, job_id)
    hasty.begin(assignment)
    renewals = []

    def machine_lost_for_a_while() -> bool:
        renewals.append(hasty.renew(assignment))
        lost = hasty.nodes()[0].state is NodeState.LOST
        return lost and len(renewals) > 100

    eventually(machine_lost_for_a_while)

    assert (State.RUNNING, 1) == (hasty.get(job_id).state, hasty.get(job_id).attempt)


def test_a_cancelled_job_whose_machine_is_lost_ends_as_cancelled(new_server, hasty, submit, started, eventually):
    server = new_server(**SHORT)
    job_id = submit(server)
    started(job_id)
    hasty.begin(assignment_of(hasty, job_id))
    server.jobs.CancelJob(api.CancelJobRequest(job_id=job_id), timeout=20)
    eventually(lambda: hasty.get(job_id).terminal)

    assert State.CANCELLED is hasty.get(job_id).state


def test_of_two_servers_exactly_one_leads_and_the_other_takes_over(new_server, store, submit, eventually):
    servers = [new_server(), new_server()]

    def leads(server) -> bool:
        lines = [line for line in server.log().splitlines() if line.endswith((" leads", " no longer leads"))]
        return bool(lines) and lines[-1].endswith(" leads") and not lines[-1].endswith("no longer leads")

    eventually(lambda: any(map(leads, servers)))
    leaders = [server for server in servers if leads(server)]
    (other,) = [server for server in servers if server not in leaders]
    leaders[0].kill()
    job_id = submit(other)
    store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))
    eventually(lambda: store.get(job_id).state is State.STARTING)

    assert 1 == len(leaders)
    assert leads(other)


def test_a_dispatcher_survives_a_redis_that_goes_and_comes_back(server, store, submit, eventually, redis_server):
    job_id = submit(server)
    redis_server.restart()

    def started() -> bool:
        try:
            store.heartbeat(node())
            return store.get(job_id).state is State.STARTING
        except redis.ConnectionError:
            return False

    eventually(started)
