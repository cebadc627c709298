"""The way to a Redis that does not answer."""

import socket
import time

import pytest

from podium.jobs.errors import UnavailableError
from podium.jobs.settings import Settings
from podium.jobs.store import Leases
from podium.jobs.store.redis import RedisStore, connect


def test_a_redis_that_is_there_and_says_nothing_holds_nobody_up_for_minutes(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = Settings(redis_url=url, redis_password=None, artifacts=str(tmp_path), data_roots=(), leases=Leases())
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            RedisStore(connect(settings)).holding()

    assert time.monotonic() - began < 15
