"""The table of what each rpc asks of its caller, and the buckets that callers draw from."""

import stat
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.api.keda import external_scaler_service_pb2 as keda
from podium.jobs.errors import ResourceExhaustedError
from podium.jobs.tokens import Role, Token, digest_of
from podium.server.access import RULES, Caller, Limits, Of, access_from_environment
from podium.server.access._limits import BURST, Buckets, host_of
from podium.server.assembly import SERVICES

READS = ("Get", "List", "Watch", "Read", "Query", "Is")


def methods() -> Mapping[str, Any]:
    """Every rpc of every service, with its request's fields."""
    return {
        f"{service.name}/{method.name}": method.input_type.fields_by_name
        for service in (*SERVICES.values(), *keda.DESCRIPTOR.services_by_name.values())
        for method in service.methods
    }


def test_every_rpc_of_every_service_has_its_rule_and_there_is_no_other():
    assert RULES.keys() == methods().keys()


def test_a_rule_asks_for_what_the_request_has():
    needed = {Of.PROJECT: "project", Of.PROJECT_OR_ALL: "project", Of.JOB: "job_id", Of.CHECKPOINT: "checkpoint_id"}
    needed[Of.JOBS] = "after_sequences"

    for method, fields in methods().items():
        field = needed.get(RULES[method].of)
        assert field is None or field in fields, method
        # What names a job or a checkpoint is never open to those who have no business with it.
        if {"job_id", "checkpoint_id", "after_sequences"} & set(fields):
            assert RULES[method].of in (Of.JOB, Of.CHECKPOINT, Of.JOBS), method


def test_viewers_only_look_and_whatever_changes_something_is_audited():
    for method, rule in RULES.items():
        reads = method.partition("/")[2].startswith(READS)
        assert rule.changes is not reads, method
        assert reads or rule.role is not Role.VIEWER, method


@pytest.mark.parametrize("role", Role)
def test_each_role_may_do_what_the_ones_before_it_may(role):
    caller = Caller(Token(id="tok-1", display_name="a", project="vision", role=role))

    assert [other for other in Role if caller.has(other)] == [other for other in Role if other.value <= role.value]
    assert caller.covers("vision")
    assert not caller.covers("nlp")
    assert not caller.covers("*")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.integers(1, 2000),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 10)), min_size=1, max_size=10),
)
@settings(max_examples=30)
def test_a_caller_never_gets_more_than_the_burst_and_the_rate_allow_and_is_told_when_to_come_back(rate, steps):
    clock = Clock()
    buckets = Buckets(rate, clock=clock)
    granted = 0
    for pause, calls in steps:
        clock.now += pause
        for _ in range(calls):
            wait = buckets.take("somebody")
            if not wait:
                granted += 1
                continue
            assert wait > 0
            clock.now += wait + 1e-6
            assert 0 == buckets.take("somebody")
            granted += 1

    assert granted <= rate * (clock.now - 1000) + max(BURST * rate, 1) + 1


def test_callers_draw_from_buckets_of_their_own():
    limits = Limits(calls_per_second=1, streams=1)
    limits.call("a")
    limits.call("a")
    with pytest.raises(ResourceExhaustedError) as caught:
        limits.call("a")

    assert "TOO_MANY_CALLS" == caught.value.reason
    assert 0 < (caught.value.retry_after or 0) <= 1
    limits.call("b")


def test_without_a_limit_there_is_none():
    limits = Limits(calls_per_second=0, streams=0)

    for _ in range(5000):
        limits.call("a")
    with limits.stream("a"), limits.stream("a"):
        pass


def test_however_many_strangers_come_what_is_remembered_of_them_is_bounded():
    buckets = Buckets(10, clock=Clock(), most=100)

    for number in range(10_000):
        buckets.take(f"10.0.{number // 256}.{number % 256}")
        assert len(buckets) <= 100


def test_a_stream_that_ends_makes_room_for_another():
    limits = Limits(calls_per_second=0, streams=1)
    with limits.stream("a"):
        with pytest.raises(ResourceExhaustedError) as caught, limits.stream("a"):
            pass
        assert "TOO_MANY_STREAMS" == caught.value.reason
        with limits.stream("b"):
            pass
    with limits.stream("a"):
        pass


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:41234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:41234", "::/64"),
        ("ipv6:[2001:db8:1:2:3::9]:1", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/run/podium.sock", "unix"),
        ("", ""),
    ],
)
def test_a_peer_is_counted_by_its_host_whatever_its_port(peer, host):
    assert host == host_of(peer)


class TestSettings:
    def test_by_default_there_are_limits_and_no_admin(self):
        found = access_from_environment({})

        assert None is found.admin_digest
        assert (1000, 1000, 1_000_000) == (
            found.calls_per_second,
            found.streams_per_caller,
            found.audit_kept,
        )

    def test_the_operators_secret_is_read_from_a_file_of_their_own_and_never_shown(self, tmp_path):
        file = tmp_path / "admin"
        file.write_text("s" * 40 + "\n")
        file.chmod(stat.S_IRUSR | stat.S_IRGRP)

        found = access_from_environment({"PODIUM_ADMIN_TOKEN_FILE": str(file)})

        assert digest_of("s" * 40) == found.admin_digest
        assert "digest" not in repr(found)

    @pytest.mark.parametrize(
        ("content", "mode", "problem"),
        [
            ("s" * 40, 0o644, "chmod 600"),
            ("s" * 40, 0o620, "chmod 600"),
            ("short", 0o600, "openssl rand"),
            ("two words " * 5, 0o600, "openssl rand"),
        ],
    )
    def test_a_file_that_others_can_read_or_that_has_no_secret_is_refused(self, tmp_path, content, mode, problem):
        file = tmp_path / "admin"
        file.write_text(content)
        file.chmod(mode)

        with pytest.raises(ValueError, match=f"PODIUM_ADMIN_TOKEN_FILE.*{problem}"):
            access_from_environment({"PODIUM_ADMIN_TOKEN_FILE": str(file)})

    def test_a_file_that_is_not_there_is_named_with_its_variable(self):
        with pytest.raises(ValueError, match="PODIUM_ADMIN_TOKEN_FILE: /nowhere cannot be read"):
            access_from_environment({"PODIUM_ADMIN_TOKEN_FILE": "/nowhere"})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PODIUM_CALLS_PER_SECOND", "many"),
            ("PODIUM_STREAMS_PER_CALLER", "-1"),
            ("PODIUM_AUDIT_KEPT", "0"),
            ("PODIUM_CALLS_PER_SECOND", "٣"),
        ],
    )
    def test_a_limit_that_is_no_number_is_refused_by_name(self, name, value):
        with pytest.raises(ValueError, match=f"{name}.* is not a whole number from"):
            access_from_environment({name: value})
