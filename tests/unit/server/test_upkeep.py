"""What the leader has done beside dispatching."""

import threading

from podium.jobs.errors import UnavailableError
from podium.server.dispatcher import Upkeep


def test_a_storage_that_hangs_does_not_hold_the_leader_up() -> None:
    hanging, go_on, looks = threading.Event(), threading.Event(), []

    def hangs() -> None:
        looks.append(1)
        hanging.set()
        assert go_on.wait(30)

    upkeep = Upkeep({"hanging": hangs}, every=0)
    for _ in range(3):
        upkeep.nudge()
        assert hanging.wait(30)
    go_on.set()

    assert [1] == looks


def test_a_task_that_hangs_keeps_no_other_from_being_done_again_and_again() -> None:
    go_on, done, thrice = threading.Event(), [], threading.Event()

    def works() -> None:
        done.append(1)
        if len(done) == 3:
            thrice.set()

    upkeep = Upkeep({"hanging": lambda: go_on.wait(30), "fine": works}, every=0)
    for _ in range(3000):
        upkeep.nudge()
        if thrice.wait(0.01):
            break
    go_on.set()

    assert len(done) >= 3


def test_what_is_refused_is_put_off_and_the_rest_goes_on() -> None:
    refused, done, again = [], [], threading.Event()

    def refuses() -> None:
        refused.append(1)
        raise UnavailableError("the storage is away")

    def breaks() -> None:
        raise ZeroDivisionError

    def works() -> None:
        done.append(1)
        if len(done) == 3:
            again.set()

    upkeep = Upkeep({"refused": refuses, "broken": breaks, "fine": works}, every=0)
    while not again.wait(0.01):
        upkeep.nudge()

    assert [1] == refused
