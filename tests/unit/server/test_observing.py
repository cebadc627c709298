"""How a server says how it is: the lookout's judgement, and the port that operators' programs ask."""

import http.client
import socket
from contextlib import closing, suppress
from time import monotonic
from typing import Any

import pytest

from podium.jobs.errors import UnavailableError
from podium.jobs.store import Census, MemoryStore
from podium.server.observing import Figures, Listener, Lookout
from podium.server.observing._listener import Answer


class Ledger(MemoryStore):
    """One that can be away."""

    away = False
    secretive = False

    def ping(self) -> None:
        if self.away:
            raise UnavailableError("away")

    def doubts(self) -> list[str]:
        if self.secretive:
            raise UnavailableError("not for you")
        return ["it forgets; tell it not to"]


@pytest.fixture
def time() -> Any:
    class Time:
        now = 100.0

    return Time()


def lookout(ledger: Ledger, time: Any) -> Lookout:
    return Lookout(ledger, counts=True, ticks=lambda: float(time.now))


def look(one: Lookout) -> None:
    with suppress(UnavailableError):
        one._look()


def test_a_server_starts_until_it_has_heard_from_the_ledger_however_long_that_takes(time):
    ledger = Ledger()
    ledger.away = True
    one = lookout(ledger, time)
    look(one)
    time.now += 1000

    assert "starting" == one.state.value
    ledger.away = False
    look(one)
    assert "serving" == one.state.value


def test_a_ledger_is_lost_after_some_silence_and_not_at_the_first(time):
    ledger = Ledger()
    one = lookout(ledger, time)
    look(one)
    ledger.away = True
    time.now += 4
    look(one)
    assert "serving" == one.state.value
    time.now += 2
    assert "ledger-lost" == one.state.value


def test_what_the_ledger_may_lose_is_said_at_the_first_answer_and_after_each_silence(time, caplog):
    ledger = Ledger()
    one = lookout(ledger, time)
    told = []
    for away in (False, False, True, False, False):
        ledger.away = away
        with suppress(UnavailableError):
            one._look()
        one._lost = away
        told.append(caplog.text.count("the ledger may lose jobs: it forgets; tell it not to"))

    assert [1, 1, 1, 2, 2] == told


def test_a_ledger_that_does_not_tell_how_it_is_set_up_is_there_all_the_same(time):
    ledger = Ledger()
    ledger.secretive = True
    one = lookout(ledger, time)
    one._look()

    assert "serving" == one.state.value


def test_a_server_that_drains_does_so_whatever_becomes_of_the_ledger(time):
    one = lookout(Ledger(), time)
    one.drain()
    for silence in (0, 1000):
        look(one)
        time.now += silence
        assert "draining" == one.state.value


def test_a_census_is_told_for_a_while_and_then_no_longer(time):
    ledger = Ledger()
    one = lookout(ledger, time)
    assert one.census is None
    look(one)
    assert one.census is not None
    ledger.away = True
    time.now += 31
    look(one)

    assert one.census is None
    told = {family.name for family in Figures(one, lambda: False).collect()}
    assert {"podium_ledger_up", "podium_leader", "podium_server_state"} <= told
    assert "podium_queue_depth" not in told


def test_a_census_that_takes_long_is_taken_seldom(time):
    class Large(Ledger):
        taken = 0

        def census(self) -> Census:
            self.taken += 1
            time.now += 2.0
            return super().census()

    ledger = Large()
    one = lookout(ledger, time)
    for _ in range(90):
        look(one)
        time.now += 1.0

    assert 1 == ledger.taken
    for _ in range(20):
        look(one)
        time.now += 1.0
    assert 2 == ledger.taken


def ask(address: str, path: str = "/") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def listening():
    made: list[Listener] = []

    def listen(**options: Any) -> Listener:
        made.append(Listener("127.0.0.1:0", {"/": lambda accept: Answer(200, "text/plain", b"here")}, **options))
        made[-1].start()
        return made[-1]

    yield listen
    for listener in made:
        listener.stop()


def test_a_page_that_there_is_not_is_404_and_names_those_that_there_are(listening):
    assert (200, b"here") == ask(listening().address)
    assert (404, b"there is /\n") == ask(listening().address, "/etc/passwd")


@pytest.mark.parametrize("word", [b"", b"G"])
def test_callers_who_say_nothing_or_a_letter_now_and_then_keep_a_port_from_others_for_a_moment_only(listening, word):
    listener = listening(most=2, patience=0.3)
    host, port = listener.address.split(":")
    hostile = [socket.create_connection((host, int(port))) for _ in range(2)]
    turned_away, deadline = 0, monotonic() + 10
    while not answers(listener.address):
        turned_away += 1
        assert monotonic() < deadline
        for one in hostile:
            with suppress(OSError):
                one.sendall(word)
    for one in hostile:
        one.close()

    assert turned_away


def answers(address: str) -> bool:
    try:
        return ask(address) == (200, b"here")
    except (ConnectionError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("listen", ["nonsense", ":9464", "127.0.0.1", "127.0.0.1:metrics", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused_with_the_remedy(listen):
    with pytest.raises(OSError, match=r"--metrics-listen"):
        Listener(listen, {})


def test_a_port_that_is_taken_is_refused_with_the_remedy(listening):
    with pytest.raises(OSError, match=r"cannot listen on .* choose another --metrics-listen"):
        Listener(listening().address, {})
