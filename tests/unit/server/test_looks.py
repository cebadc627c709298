"""Looks at the disk that submissions share."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from podium.server.admission._findings import Findings
from podium.server.admission._looks import Look, Looks


class Disk:
    """What is looked at; counts how often."""

    def __init__(self, *wrong: str) -> None:
        self.wrong = wrong
        self.looks = 0

    def __call__(self) -> Look:
        self.looks += 1
        findings = Findings()
        for field in self.wrong:
            findings.invalid(field, "is wrong")
        return Look(findings=findings, classes=("cat", "dog"))


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def looks(now: list[float]) -> Looks:
    return Looks(clock=lambda: now[0])


def test_within_half_a_second_one_look_is_enough(looks, now):
    disk = Disk()
    assert looks.take("a", disk) is looks.take("a", disk) is looks.recent("a", disk)
    assert 1 == disk.looks
    now[0] = 1.0
    assert looks.recent("a", disk) is None
    looks.take("a", disk)
    assert 2 == disk.looks


def test_then_nobody_waits_for_the_next_look(looks, now):
    first = looks.take("a", Disk())
    now[0] = 0.6
    began, may_end = threading.Event(), threading.Event()
    disk = Disk("spec.image_folder.train")

    def slow() -> Look:
        began.set()
        assert may_end.wait(10)
        return disk()

    assert looks.recent("a", slow) is looks.recent("a", slow) is first
    assert began.wait(10)
    may_end.set()
    (renewing,) = (thread for thread in threading.enumerate() if thread.name == "podium-look")
    renewing.join()
    assert 1 == disk.looks
    # It is no longer as it was, and whoever comes next looks for himself.
    assert looks.recent("a", disk) is None


def test_a_look_that_takes_long_is_not_told_in_place_of_one_that_began_after_it(looks, now):
    began, may_end = threading.Event(), threading.Event()
    earlier = Disk()

    def slow() -> Look:
        seen = earlier()
        began.set()
        assert may_end.wait(10)
        return seen

    looks.take("a", Disk())
    now[0] = 0.6
    looks.recent("a", slow)
    assert began.wait(10)
    now[0] = 1.1
    later = looks.take("a", Disk())
    may_end.set()
    (renewing,) = (thread for thread in threading.enumerate() if thread.name == "podium-look")
    renewing.join()
    assert looks.recent("a", Disk()) is later


def test_who_mends_what_was_wrong_is_not_told_of_it_again(looks):
    disk = Disk("spec.image_folder.train")
    assert looks.take("a", disk).findings.any
    disk.wrong = ()
    assert looks.recent("a", disk) is None
    assert not looks.take("a", disk).findings.any


def test_who_comes_while_somebody_looks_waits_for_that_look(looks):
    began, may_end = threading.Event(), threading.Event()
    disk = Disk()

    def slow() -> Look:
        began.set()
        assert may_end.wait(10)
        return disk()

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(looks.take, "a", slow)
        assert began.wait(10)
        others = [threads.submit(looks.take, "a", slow) for _ in range(3)]
        assert looks.recent("a", slow) is None
        may_end.set()
        assert {id(first.result())} == {id(other.result()) for other in others}
    assert 1 == disk.looks


def test_a_look_that_fails_fails_for_all_who_waited_and_for_nobody_after(looks):
    def broken() -> Look:
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="gone"):
        looks.take("a", broken)
    assert looks.recent("a", broken) is None
    assert ("cat", "dog") == looks.take("a", Disk()).classes


def test_a_look_that_nobody_is_told_of_any_more_is_let_go_as_its_classes_may_be_many(looks, now):
    former = weakref.ref(looks.take("a", Disk()))
    wrong = weakref.ref(looks.take("b", Disk("spec.image_folder.train")))
    now[0] = 0.9
    kept = looks.take("c", Disk())
    now[0] = 1.0
    looks.take("d", Disk())
    assert (None, None) == (former(), wrong())
    assert looks.recent("c", Disk()) is kept


def test_what_is_remembered_is_bounded(looks):
    make: Callable[[], Look] = Disk()
    for key in range(1000):
        looks.take(key, make)
    assert looks.recent(0, make) is None
    assert looks.recent(999, make) is not None


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_started_nobody_waits_for_ever_and_whoever_comes_next_tries_again(
    looks, now, monkeypatch
):
    disk = Disk()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        with pytest.raises(RuntimeError, match="new thread"):
            looks.take("a", disk)
    first = looks.take("a", disk)
    now[0] = 0.6
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        assert looks.recent("a", disk) is first
    seen = disk.looks
    looks.recent("a", disk)
    for renewing in [thread for thread in threading.enumerate() if thread.name == "podium-look"]:
        renewing.join()
    assert 1 == disk.looks - seen
