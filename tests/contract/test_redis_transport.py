"""The way to a Redis that asks for TLS and for a password, and what is said to whoever gets it wrong."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from podium.jobs.blocking import on_loop
from podium.jobs.errors import UnavailableError
from podium.jobs.settings import Settings, from_environment
from podium.jobs.store.redis import RedisStore, connect
from podium.jobs.store.redis_loop import connect_on_loop
from tests.certificates import Authority
from tests.contract.plays import submit
from tests.encrypted import encrypted


def refusal(submits: Callable[[], object]) -> str:
    """What goes wrong, in words; empty: nothing."""
    try:
        submits()
    except UnavailableError as error:
        return error.message
    return ""


async def submit_on_loop(settings: Settings) -> None:
    client = connect_on_loop(settings)
    try:
        await on_loop(submit, RedisStore(client, prefix="transport:"))
    finally:
        await on_loop(client.close)


@pytest.fixture
def trying(redis_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Uses the ledger as an environment says; what goes wrong, in words, be it a thread or an event loop that waits."""
    # Once is enough: what is refused here is so for good.
    monkeypatch.setattr("podium.jobs.store._redis_async._PAUSES", ())

    def try_(url: str, **environment: str) -> str:
        settings = from_environment({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": url, **environment})
        with closing(connect(settings)) as client:
            told = refusal(lambda: submit(RedisStore(client, prefix="transport:")))
        assert told == refusal(lambda: asyncio.run(submit_on_loop(settings)))
        return told

    return try_


def test_a_ledger_is_reached_over_tls_by_whoever_knows_its_authority(redis_server, tmp_path, trying):
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    socket = f"{redis_server.directory}/redis.sock"
    no_tls = "there is no secure connection to the ledger"
    with encrypted(socket, authority.sign("redis", "127.0.0.1")) as port:
        url = f"rediss://127.0.0.1:{port}/4"
        assert "" == trying(url, PODIUM_REDIS_TLS_CA=str(authority.ca))
        assert no_tls in trying(url, PODIUM_REDIS_TLS_CA=str(stranger.ca))
    with encrypted(socket, authority.sign("other", "redis.example.com")) as port:
        assert no_tls in trying(f"rediss://127.0.0.1:{port}/4", PODIUM_REDIS_TLS_CA=str(authority.ca))


def test_threads_that_may_have_two_connections_take_turns_and_all_are_served(redis_server):
    settings = from_environment({"PODIUM_ARTIFACTS": "/a", "PODIUM_REDIS_URL": redis_server.url})
    client = connect(settings, connections=2)
    with ThreadPoolExecutor(8) as threads:
        # Each of them holds its connection for a twentieth of a second.
        ids = set(threads.map(lambda _: (client.blpop("transport:none", 0.05), client.client_id())[1], range(24)))
    client.connection_pool.disconnect()

    assert 2 == len(ids)


def test_a_ledger_that_asks_for_a_certificate_is_shown_one(redis_server, tmp_path, trying):
    authority = Authority(tmp_path)
    cert, key = authority.sign("worker")
    with encrypted(f"{redis_server.directory}/redis.sock", authority.sign("redis", "127.0.0.1"), authority.ca) as port:
        url, ca = f"rediss://127.0.0.1:{port}/4", {"PODIUM_REDIS_TLS_CA": str(authority.ca)}
        assert "" == trying(url, **ca, PODIUM_REDIS_TLS_CERT=str(cert), PODIUM_REDIS_TLS_KEY=str(key))


def test_who_may_do_less_than_it_must_is_told_where_its_rights_stand(redis_client, redis_server, trying, tmp_path):
    redis_client.acl_setuser(
        "reader", enabled=True, passwords=["+a password"], keys=["transport:*"], categories=["+@read", "+@connection"]
    )
    (tmp_path / "password").write_text("a password\n")
    try:
        url = redis_server.url.replace("unix://", "unix://reader@")
        told = trying(url, PODIUM_REDIS_PASSWORD_FILE=str(tmp_path / "password"))
    finally:
        redis_client.acl_deluser("reader")

    assert "deploy/redis/users.conf" in told
