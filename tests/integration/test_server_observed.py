"""What an operator's programs see of a real server: metrics, health, and both while Redis is away."""

import json
import re
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from podium.api.v1 import job_service_pb2 as api
from podium.jobs.events import LogBatch, LogLine
from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.states import State
from podium.jobs.tokens import new_secret
from podium.server.probe import main as probe
from tests.integration.conftest import METERED, ServerProcess

ROOT = Path(__file__).resolve().parents[2]
GET = {"grpc_service": "podium.api.v1.JobService", "grpc_method": "GetJob", "grpc_type": "unary"}


def test_calls_are_counted_by_method_and_status_and_timed(server, refused, eventually):
    before = server.scrape()
    for _ in range(2):
        refused(server.jobs.GetJob, api.GetJobRequest(job_id="job-0000000000000000"))
    refused(server.jobs.GetJob, api.GetJobRequest(job_id=""))

    def more(name: str, **labels: str) -> float:
        return float(server.scrape()(name, **GET, **labels) - before(name, **GET, **labels))

    # A caller has its answer a moment before the call is counted.
    eventually(lambda: more("grpc_server_handling_seconds_count") >= 3)
    assert 3 == more("grpc_server_started_total")
    assert (2, 1) == (
        more("grpc_server_handled_total", grpc_code="NOT_FOUND"),
        more("grpc_server_handled_total", grpc_code="INVALID_ARGUMENT"),
    )
    assert 3 == more("grpc_server_handling_seconds_count")
    assert 0 < more("grpc_server_handling_seconds_sum") < 60


def test_rpcs_that_there_are_not_are_one_series_whatever_they_are_called(server, eventually):
    other = {"grpc_method": "other", "grpc_code": "UNIMPLEMENTED"}
    before = server.scrape()("grpc_server_handled_total", **other)
    for number in range(3):
        unknown: Any = server.channel().unary_unary(f"/podium.api.v1.JobService/Made{number}Up")
        with pytest.raises(grpc.RpcError):
            unknown(b"", timeout=20)

    eventually(lambda: server.scrape()("grpc_server_handled_total", **other) == before + 3)
    assert "Made" not in server.ask("/metrics")[1]


def test_what_a_caller_makes_up_forges_no_line_of_the_log(server, refused, eventually):
    forged = "2026-11-26 00:00:00,000 INFO podium.server forged"
    before = len(server.log())
    refused(server.jobs.GetJob, api.GetJobRequest(job_id=f"job-1\n{forged} "))
    eventually(lambda: "rpc=JobService/GetJob" in server.log()[before:])

    assert forged not in server.log()


def test_a_secret_that_somebody_gives_for_a_jobs_id_is_not_in_the_log(server, refused, eventually):
    secret = new_secret("tok-0123456789abcdef")
    before = len(server.log())
    refused(server.jobs.GetJob, api.GetJobRequest(job_id=secret))
    eventually(lambda: "job=tok-0123456789abcdef NOT_FOUND" in server.log()[before:])

    assert secret not in server.log()


def test_what_waits_runs_and_ends_is_told_by_pool(server, store, request_for, eventually):
    wait = {"pool": "default", "priority": "HIGH"}
    before = server.scrape()
    for changes in ({"priority": "PRIORITY_HIGH"}, {}, {}, {"resources": {"pool": "made-up"}}):
        server.jobs.CreateJob(request_for(**changes), timeout=20)
    store.heartbeat(
        Node(id="n1", pool="default", state=NodeState.READY, slots=(Slot(index=0), Slot(index=1, trouble="no room")))
    )
    eventually(store.holding)
    eventually(lambda: server.scrape()("podium_slots", state="used") == 1)
    now = server.scrape()

    assert 2 == now("podium_queue_depth", pool="default", priority="NORMAL")
    assert 0 == now("podium_queue_depth", pool="default", priority="HIGH")
    assert 1 == now("podium_queue_depth", pool="other")
    assert 1 == now("podium_slots", pool="default", state="unavailable")
    assert 1 == now("podium_machines", pool="default", state="READY")
    assert 1 == now("podium_queue_wait_seconds_count", **wait) - before("podium_queue_wait_seconds_count", **wait)
    assert 0 <= now("podium_queue_wait_seconds_sum", **wait) - before("podium_queue_wait_seconds_sum", **wait) < 60
    assert (1, 1) == (now("podium_leader"), now("podium_ledger_up"))

    ((_, assignment, _),) = store.holding()
    store.begin(assignment)
    store.finish(assignment, State.SUCCEEDED, reason="done")
    eventually(lambda: server.scrape()("podium_jobs_ended_total", state="SUCCEEDED") == 1)
    assert 1 == server.scrape()("podium_attempts_ended_total", cause="NONE")
    assert 1 == server.scrape()("podium_archive_backlog_jobs")


def test_watchers_and_how_late_events_reach_them_are_measured(server, store, running, eventually):
    before = server.scrape()
    assignment = running()
    watching = server.jobs.WatchJob(api.WatchJobRequest(job_id=assignment.job_id), timeout=30)
    eventually(lambda: server.scrape()("podium_watchers") == 1)
    store.append(assignment, 1, [LogBatch(lines=(LogLine(text="a line"),))])
    next(answer for answer in watching if answer.event.WhichOneof("payload") == "log")
    now = server.scrape()

    assert 1 == now("podium_streams_open", grpc_method="WatchJob")
    assert now("podium_watch_lag_seconds_count") > before("podium_watch_lag_seconds_count")
    assert now("podium_watch_lag_seconds_sum") - before("podium_watch_lag_seconds_sum") < 30
    watching.cancel()
    eventually(lambda: server.scrape()("podium_watchers") == 0)
    assert 0 == server.scrape()("podium_streams_open", grpc_method="WatchJob")


def test_every_metric_of_the_dashboard_and_of_the_alerts_is_there(server):
    dashboard = json.loads((ROOT / "deploy/grafana/podium.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    there = names_of(server)

    assert min(len(queries), 2 * len(rules)) > 12
    for query in [*queries, *(rule["expr"] for rule in rules)]:
        asked = set(re.findall(r"\b(?:podium|grpc_server|process)_[a-z_]+\b", query))
        assert asked
        assert set() == asked - there, query


def names_of(server: ServerProcess) -> set[str]:
    """All names that a query may ask for, also of what has no sample yet."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    families = text_string_to_metric_families(server.ask("/metrics")[1])
    return {f"{family.name}{end}" for family in families for end in endings.get(family.type, ("",))}


def test_a_probe_of_nobody_says_why_in_one_line(capsys):
    assert 1 == probe("127.0.0.1:1")

    told = capsys.readouterr().err
    assert 1 == told.count("\n")
    assert told.startswith("127.0.0.1:1: failed to connect")


def test_a_lost_ledger_is_told_apart_from_draining_and_comes_back_by_itself(
    new_server, redis_server, eventually, capsys
):
    def probed() -> tuple[int, str]:
        return probe(server.address), capsys.readouterr().out.strip()

    server = new_server(*METERED)
    assert ((200, "serving"), (0, "serving")) == (ready(server), probed())

    redis_server.kill()
    eventually(lambda: ready(server) == (503, "ledger-lost"))
    began = time.monotonic()
    away = server.scrape()
    assert time.monotonic() - began < 2
    assert (0, 1) == (away("podium_ledger_up"), away("podium_server_state", state="ledger-lost"))
    eventually(lambda: server.scrape()("podium_leader") == 0)
    assert 200 == server.ask("/healthz")[0]
    eventually(lambda: probed() == (1, "ledger-lost"))

    redis_server.start()
    eventually(lambda: ready(server) == (200, "serving"))
    # A watch that goes on keeps the server draining until its grace is over.
    with grpc.insecure_channel(server.address) as channel:
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        held = watch(b"", timeout=30)
        next(held)
        server.terminate()
        eventually(lambda: ready(server) == (503, "draining"))
        held.cancel()
    assert 0 == server.wait()


def ready(server: ServerProcess) -> tuple[int, str]:
    status, body = server.ask("/readyz")
    return status, json.loads(body)["state"]
