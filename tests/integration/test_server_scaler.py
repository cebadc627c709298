"""What KEDA hears of a pool, asked as its trigger `external` asks."""

from collections.abc import Callable

import grpc
import pytest

from podium.api.keda import external_scaler_service_pb2 as keda
from podium.api.keda.external_scaler_service_pb2_grpc import ExternalScalerStub
from podium.jobs.job import Node, NodeState, Slot


def trigger(**metadata: str) -> keda.ScaledObjectRef:
    metadata = {"slotsPerMachine": "8"} | metadata
    return keda.ScaledObjectRef(name="podium-worker-h100", namespace="podium", scaler_metadata=metadata)


@pytest.fixture
def scaler(server) -> ExternalScalerStub:
    return ExternalScalerStub(server.channel())


@pytest.fixture
def slots(scaler) -> Callable[[str], int]:
    """The slots that a pool is asked for, as KEDA hears it."""

    def ask(pool: str) -> int:
        request = keda.GetMetricsRequest(scaled_object_ref=trigger(pool=pool), metric_name="podium-slots")
        (value,) = scaler.GetMetrics(request, timeout=20).metric_values
        assert "podium-slots" == value.metric_name
        return int(value.metric_value)

    return ask


def test_what_waits_and_what_runs_counts_in_slots_each_pool_by_itself(
    server, store, slots, scaler, request_for, eventually
):
    empty = scaler.IsActive(trigger(pool="default"), timeout=20).result
    server.jobs.CreateJob(request_for(resources={"gpus": 4}), timeout=20)
    server.jobs.CreateJob(request_for(), timeout=20)
    server.jobs.CreateJob(request_for(resources={"pool": "other", "gpus": 2}), timeout=20)
    waiting = slots("default")
    store.heartbeat(
        Node(id="n1", pool="default", state=NodeState.READY, slots=tuple(Slot(index=index) for index in range(4)))
    )
    eventually(store.holding)

    assert not empty
    assert (5, 2, 0) == (waiting, slots("other"), slots("unheard-of"))
    # Four of them are held now; without those a scaler would take their machine away.
    assert 5 == slots("default")
    assert scaler.IsActive(trigger(pool="default"), timeout=20).result


def test_what_no_machine_of_the_pools_shape_could_hold_asks_for_none(server, store, slots, request_for):
    """One with more slots than a machine has, and, once a machine has been seen, one of another kind."""
    for resources in ({"gpus": 9}, {"gpus": 8, "nodes": 2}, {"gpus": 4, "gpu_model": "h100"}, {"min_memory_gib": 70}):
        server.jobs.CreateJob(request_for(resources=resources), timeout=20)
    unseen = slots("default")
    card = Slot(index=0, device="cuda:0", model="NVIDIA A100", memory_bytes=80 << 30, trouble="being looked at")
    store.heartbeat(Node(id="n1", pool="default", state=NodeState.READY, slots=(card,)))

    assert 16 + 4 + 1 == unseen
    assert 16 + 1 == slots("default")


def test_the_target_is_the_slots_of_one_machine(scaler):
    (spec,) = scaler.GetMetricSpec(trigger(pool="default", slotsPerMachine="8"), timeout=20).metric_specs

    assert ("podium-slots", 8) == (spec.metric_name, spec.target_size)


@pytest.mark.parametrize("text", ["", "0", "-8", "8.0", "eight", "10000", "9" * 400, "9" * 5000])
def test_a_trigger_without_a_sane_number_of_slots_hears_which_key_to_mend(scaler, text):
    with pytest.raises(grpc.RpcError) as caught:
        scaler.GetMetricSpec(trigger(pool="default", slotsPerMachine=text), timeout=20)

    assert grpc.StatusCode.INVALID_ARGUMENT is caught.value.code()
    assert "metadata.slotsPerMachine" in str(caught.value.details())


def test_a_trigger_without_a_pool_hears_that(scaler):
    with pytest.raises(grpc.RpcError) as caught:
        scaler.IsActive(trigger(), timeout=20)

    assert grpc.StatusCode.INVALID_ARGUMENT is caught.value.code()
    assert "metadata.pool: is missing" in str(caught.value.details())
