"""A random few cases of the kill matrix, as long as the suite has time for; `make test-chaos` runs all of them."""

import contextlib
import os
import random
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.chaos import rest
from tests.chaos.matrix import some
from tests.chaos.run import run
from tests.chaos.script import Script
from tests.chaos.site import Site, until
from tests.chaos.watcher import Watcher

_SEED = int(os.environ.get("PODIUM_CHAOS_SEED") or random.randrange(2**32))
#: So long new cases are begun.
_SECONDS = 12.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("s")) as site:
        yield site


def test_whoever_is_killed_the_promises_hold(site):
    end = time.monotonic() + _SECONDS
    for case in some(20, _SEED):
        assert [] == run(site, case), f"{case}; PODIUM_CHAOS_SEED={_SEED}"
        if time.monotonic() > end:
            break


def test_a_watch_that_was_opened_as_its_server_died_is_told_by_the_next_one(site):
    job = site.submit(Script(steps=5))
    watchers = [Watcher(site.servers[0].address, job.id) for _ in range(8)]
    site.servers[0].process.kill()
    site.servers[0].wait(10)
    site.restart()

    assert all(watcher.ended(30) for watcher in watchers)
    assert 1 == len({len(watcher.events) for watcher in watchers})


def test_a_slot_takes_no_jobs_while_its_supervisor_is_dead(site):
    def trouble() -> str:
        return str(site.store.nodes()[0].slots[0].trouble)

    def told() -> bool:
        # Again and again: after each death it stays away for longer, so that nobody has to look in the right second.
        for process in site.processes("podium.worker.slot"):
            if site.slot_mark("a", 0) in process.info["cmdline"]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        return "its supervisor died" in trouble()

    until(told, "the machine to say so")
    until(lambda: trouble() == "", "another supervisor")


def test_what_does_not_come_to_rest_is_seen(site, monkeypatch):
    """The other half of the checks has no evidence made by hand: it is made here, on a real site."""
    job = site.submit(Script(steps=1))
    until(lambda: site.store.get(job.id).terminal, "the end")
    assert [] == rest.unrest(site)

    monkeypatch.setattr(rest, "_SETTLING", 0.0)
    monkeypatch.setattr(rest, "_CLEARING", 0.0)
    folder = site.artifacts.root / "jobs" / job.id
    for name in ("tmp/1-00", "checkpoints/ckpt-00", "scratch/at"):
        (folder / name).mkdir(parents=True)
    site.connection.rpush("rq:queue:podium.a.0", "nobody's")
    held = site.submit(Script(steps=1, hold_end=True))
    until(lambda: site.held(held), "a job to hold a slot")
    site.agents["b"].process.kill()
    found = "; ".join([*rest.unrest(site), *rest.litter(site)])

    assert f"{held.id} still holds slots" in found
    assert f"is held by {held.id}" in found
    assert "a delivery is left in rq:queue:podium.a.0" in found
    assert "1 processes of podium.worker instead of 2" in found
    assert f"1-00 of {job.id}, half written" in found
    assert f"ckpt-00 of {job.id}, unlisted" in found
    assert f"at in the scratch folder of {job.id}" in found
