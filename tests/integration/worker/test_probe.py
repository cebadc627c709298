"""The health check of a worker's container."""

from podium.jobs.job import Node, NodeState, Slot
from podium.jobs.store.redis import RedisStore
from podium.worker import probe


def test_a_machine_is_healthy_while_the_ledger_hears_from_it(redis_client, redis_url, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PODIUM_REDIS_URL", redis_url)
    monkeypatch.setenv("PODIUM_ARTIFACTS", str(tmp_path))
    RedisStore(redis_client).heartbeat(Node(id="here", pool="default", state=NodeState.READY, slots=(Slot(index=0),)))

    assert 0 == probe.main("here")
    assert 1 == probe.main("elsewhere")
    assert "elsewhere is not in the pool\n" == capsys.readouterr().err


def test_a_setting_that_is_missing_is_a_sentence(monkeypatch, capsys):
    monkeypatch.delenv("PODIUM_ARTIFACTS", raising=False)

    assert 1 == probe.main("here")
    assert capsys.readouterr().err.startswith("PODIUM_ARTIFACTS is not set; set it to ")
