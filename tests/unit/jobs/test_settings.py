"""Settings from the environment."""

from pathlib import Path

import pytest

from podium.jobs.settings import from_environment
from podium.jobs.store import Leases

SECURE = {"PODIUM_REDIS_URL": "rediss://redis"}


def test_only_the_artifacts_must_be_named() -> None:
    settings = from_environment({"PODIUM_ARTIFACTS": "/shared"})

    assert ("/shared", "redis://127.0.0.1:6379/0", None, ()) == (
        settings.artifacts,
        settings.redis_url,
        settings.redis_password,
        settings.data_roots,
    )
    assert Leases() == settings.leases


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    settings = from_environment(
        {
            "PODIUM_ARTIFACTS": "/shared",
            "PODIUM_REDIS_URL": "redis://redis:6379/1",
            "PODIUM_REDIS_PASSWORD_FILE": str(tmp_path / "password"),
            "PODIUM_DATA_ROOTS": "/data::/more",
            "PODIUM_URI_PREFIXES": "s3://bucket/images, https://data.example ",
            "PODIUM_LEASE_ATTEMPT": "3",
            "PODIUM_LEASE_STARTING": "6.5",
            "PODIUM_LEASE_NODE": "1e1",
        }
    )
    assert ("redis://redis:6379/1", "secret", ("/data", "/more")) == (
        settings.redis_url,
        settings.redis_password,
        settings.data_roots,
    )
    assert ("s3://bucket/images", "https://data.example") == settings.uri_prefixes
    assert Leases(attempt=3.0, starting=6.5, node=10.0) == settings.leases


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "PODIUM_ARTIFACTS"),
        ({"PODIUM_ARTIFACTS": "s3://bucket"}, "PODIUM_ARTIFACTS: artifacts on s3:// are not built yet"),
        ({"PODIUM_ARTIFACTS": __file__}, "PODIUM_ARTIFACTS: .* is a file; name the directory"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_LEASE_NODE": "soon"}, "PODIUM_LEASE_NODE"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_LEASE_NODE": "0"}, "PODIUM_LEASE_NODE"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_URI_PREFIXES": "s3://bucket bucket"}, "PODIUM_URI_PREFIXES: 'bucket'"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_URI_PREFIXES": "s3://bucket/.."}, "PODIUM_URI_PREFIXES"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_LEASE_ATTEMPT": "nan"}, "PODIUM_LEASE_ATTEMPT.* above 0"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_LEASE_STARTING": "inf"}, "PODIUM_LEASE_STARTING.* at most 31536000"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_GRACE": "1e300"}, "PODIUM_GRACE.* at most 31536000"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": "http://redis"}, "PODIUM_REDIS_URL.*rediss://"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": "redis://h/0?foo=bar"}, "PODIUM_REDIS_URL has an option"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": "unix:///s?db=first"}, "PODIUM_REDIS_URL has an option"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": "redis://h:port/0"}, "PODIUM_REDIS_URL has no such port"),
        (
            {"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": "redis://h:6379/jobs"},
            "PODIUM_REDIS_URL .*redis://HOST:6379/0",
        ),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_DATA_ROOTS": "/a:b"}, "PODIUM_DATA_ROOTS: 'b' does not begin with /"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_TLS_CA": "/ca"}, "PODIUM_REDIS_URL does not begin with rediss://"),
        ({"PODIUM_ARTIFACTS": "/a", **SECURE, "PODIUM_REDIS_TLS_CERT": "/c"}, "PODIUM_REDIS_TLS_KEY belong together"),
        ({"PODIUM_ARTIFACTS": "/a", **SECURE, "PODIUM_REDIS_TLS_CA": "/nowhere"}, "PODIUM_REDIS_TLS_CA: /nowhere"),
        (
            {"PODIUM_ARTIFACTS": "/a", **SECURE, "PODIUM_REDIS_TLS_CA": __file__},
            "PODIUM_REDIS_TLS_CA: .* has no certificate in PEM",
        ),
        (
            {
                "PODIUM_ARTIFACTS": "/a",
                **SECURE,
                "PODIUM_REDIS_TLS_CERT": __file__,
                "PODIUM_REDIS_TLS_KEY": __file__,
            },
            "PODIUM_REDIS_TLS_CERT .* cannot be used together",
        ),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_PASSWORD_FILE": "/nowhere"}, "PODIUM_REDIS_PASSWORD_FILE: /nowhere"),
        ({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_PASSWORD_FILE": "/dev/null"}, "/dev/null is empty"),
    ],
)
def test_what_is_wrong_is_named(variables: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        from_environment(variables)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://me:hunter2@redis:6379/1", "redis://redis:6379/1"),
        ("rediss://[::1]", "rediss://[::1]"),
        ("unix://me:hunter2@/run/redis.sock?db=3&password=hunter2", "unix:///run/redis.sock"),
    ],
)
def test_where_the_ledger_is_can_be_said_without_its_password(url: str, told: str) -> None:
    assert told == from_environment({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": url}).ledger


def test_a_password_is_said_once_and_stands_in_nothing_that_is_printed(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    both = {"PODIUM_REDIS_URL": "redis://me:hunter2@redis", "PODIUM_REDIS_PASSWORD_FILE": str(tmp_path / "password")}
    with pytest.raises(ValueError, match="take it out of the URL") as caught:
        from_environment({"PODIUM_ARTIFACTS": "/a", **both})

    assert "hunter2" not in str(caught.value)
    for name, value in both.items():
        assert "hunter2" not in repr(from_environment({"PODIUM_ARTIFACTS": "/a", name: value}))
