"""A few of the hostile inputs, as many as the suite has time for; `make test-hostile` tries far more."""

import os
import random
from collections.abc import Iterator

import grpc
import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.calls import Fuzzer
from tests.hostile.contract import rpcs
from tests.hostile.site import Site

_SEED = int(os.environ.get("PODIUM_HOSTILE_SEED") or random.randrange(2**32))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("h")) as site:
        yield site


@pytest.mark.parametrize(
    "path",
    [
        "/podium.api.v1.JobService/GetJob",
        "/podium.api.v1.JobService/WatchJob",
        "/externalscaler.ExternalScaler/IsActive",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
@pytest.mark.parametrize(
    "request_", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0b" * 1000], ids=["noise", "no UTF-8", "deep"]
)
def test_bytes_that_are_no_request_are_the_callers_fault(site, path, request_):
    with pytest.raises(grpc.RpcError) as caught:
        list(site.channel.unary_stream(path)(request_, timeout=20, metadata=site.metadata))

    assert grpc.StatusCode.INVALID_ARGUMENT == caught.value.code()
    assert "Error parsing message" in str(caught.value.details())
    assert [] == site.faults()


def test_whatever_is_sent_every_rpc_answers_as_documented_and_the_server_lives(site):
    fuzzer = Fuzzer(site, _SEED)
    fuzzer.batch(960)
    outcome = fuzzer.outcome

    assert [] == outcome.violations, f"PODIUM_HOSTILE_SEED={_SEED}"
    assert {rpc.name for rpc in rpcs()} == set(outcome.statuses)
    assert site.serves()
    assert [] == site.faults()
    assert set() == site.strangers(outcome.created)


@pytest.mark.parametrize("attack", ATTACKS[:6], ids=[attack.__name__ for attack in ATTACKS[:6]])
def test_whoever_attacks_others_are_served(site, attack):
    attack(site)

    assert site.serves()
    assert [] == site.faults()
