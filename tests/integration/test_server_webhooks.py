"""Webhooks of a real server, over TLS, through its death."""

import threading

import redis
import yaml

from podium.api.v1 import job_service_pb2
from tests.certificates import Authority
from tests.receiver import SECRET, receiving


def test_a_delivery_that_a_killed_server_was_at_is_made_again_with_the_same_id(
    new_server, request_for, store, ledger_url, tmp_path, eventually
):
    authority = Authority(tmp_path / "tls")
    secret, hooks, over = tmp_path / "secret", tmp_path / "webhooks.yaml", threading.Event()
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o644)
    with receiving(lambda _: over.wait(60), certificate=authority.sign("receiver", "127.0.0.1")) as receiver:
        hooks.write_text(yaml.safe_dump([{"name": "chat", "url": receiver.url, "secret_file": str(secret)}]))
        settings = {"PODIUM_WEBHOOKS": str(hooks), "PODIUM_WEBHOOKS_ALLOW_PRIVATE": "1"}
        server = new_server(**settings, SSL_CERT_FILE=str(authority.ca))
        eventually(lambda: store.bookmark("chat"))
        job_id = server.jobs.CreateJob(request_for(), timeout=20).job.id
        server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job_id), timeout=20)
        receiver.wait(1)
        server.kill()
        over.set()
        with redis.Redis.from_url(ledger_url) as client:
            client.delete("podium:leader")  # it would run out by itself, in 5 seconds
        server.start()
        receiver.wait(2)

        first, second = receiver.notices
        assert first == second
        assert (f"{job_id}-0-CANCELLED", "CANCELLED") == (first.id, first.event)
        assert SECRET not in server.log()
        assert f"webhook chat: others than its owner may read or write {secret}; chmod 600" in server.log()
