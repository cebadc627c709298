"""Who may speak on a line that comes from another machine, and how lines of ranks get there."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.jobs.job import Cause
from podium.jobs.store import Leases
from podium.worker.fit.local import LocalContext
from podium.worker.job_context import StopReason
from podium.worker.launch import interface
from podium.worker.membership import Membership
from podium.worker.processes import wait_until
from podium.worker.rank_context import RankContext
from podium.worker.rank_line import Line, Message
from podium.worker.relay import relaying
from podium.worker.rendezvous import Invitation, Rendezvous
from podium.worker.stop import StopFlag
from podium.worker.switchboard import Switchboard, Word

HEAD = "127.0.0.2"


@pytest.fixture
def rendezvous() -> Iterator[Rendezvous]:
    with Rendezvous(HEAD) as rendezvous:
        yield rendezvous


@pytest.fixture
def stop() -> StopFlag:
    return StopFlag()


@pytest.fixture
def membership(stop: StopFlag) -> Membership:
    return Membership(["n2", "n3"], stop, Leases())


@pytest.fixture
def board(job, images, tmp_path: Path, membership: Membership) -> Switchboard:
    return Switchboard(job(images("train")), LocalContext(tmp_path / "local"), membership)


@given(st.text(), st.integers(1, 65535), st.integers(1, 65535), st.text())
def test_an_invitation_survives_the_ledger(address: str, line: int, store: int, token: str):
    invitation = Invitation(address=address, line=line, store=store, token=token)

    assert invitation == Invitation.parse(str(invitation))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"address": "n1", "line": 1, "token": "geheim"}'])
def test_what_is_no_invitation_is_refused_without_repeating_it(text: str):
    with pytest.raises(ValueError, match=r"no invitation") as refused:
        Invitation.parse(text)

    assert "geheim" not in str(refused.value)


def test_no_token_is_shown_where_an_invitation_is(rendezvous: Rendezvous):
    assert rendezvous.invitation.token not in repr(rendezvous.invitation)


def test_a_machine_listens_on_no_other_address_than_its_own(rendezvous: Rendezvous):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", rendezvous.invitation.line), timeout=5)


def test_who_says_a_byte_now_and_then_is_hung_up_on_in_time(rendezvous, monkeypatch):
    monkeypatch.setattr("podium.worker.rendezvous._PATIENCE", 0.5)
    ours, strangers = socket.socketpair()
    over, said = threading.Event(), list[int]()

    def drip() -> None:
        while not over.wait(0.05) and len(said) < 200:
            strangers.sendall(b"x")
            said.append(1)

    dripping = threading.Thread(target=drip)
    dripping.start()
    with ours, strangers:
        admitted = rendezvous.admits(ours)
        over.set()
        dripping.join()

    assert not admitted
    assert len(said) < 100


@pytest.mark.parametrize("said", [b"", b"guess\n", b"x" * 10_000, b"\n", b'{"kind": "hello", "rank": 0}\n'])
def test_who_does_not_know_the_token_is_hung_up_on_and_not_heard(rendezvous, board, tmp_path, said):
    address = (HEAD, rendezvous.invitation.line)
    with (
        board.listening(tmp_path / "line", rendezvous),
        socket.create_connection(address, timeout=10) as stranger,
        suppress(ConnectionError),  # where not all was read
    ):
        stranger.sendall(said)
        if not said:  # else it is hung up on of itself, and may have been by now
            stranger.shutdown(socket.SHUT_WR)
        assert b"" == stranger.recv(1)

    assert [] == board.words


def test_a_rank_on_another_machine_has_its_line_through_a_relay(rendezvous, board, tmp_path):
    with board.listening(tmp_path / "line", rendezvous), relaying(tmp_path / "far", rendezvous.invitation.call):
        line = Line.to(tmp_path / "far")
        line.send("hello", rank=3)
        welcome = line.receive()
        context = RankContext(line)
        listener = threading.Thread(target=context.listen)
        listener.start()
        assert context.newest() is None  # answered
        board.pass_on(StopReason.PREEMPTED)
        context.best()  # answers come after what was said before
        told = context.should_stop()
        line.send("failed", cause="DATA", message="x.png", remedy="", traceback="", consequence=False)
        line.end()
        listener.join()
        line.close()

    assert welcome is not None
    assert "job" == welcome["kind"]
    assert StopReason.PREEMPTED is told
    assert [(3, "failed", "x.png")] == [(word.rank, word.kind, word.message["message"]) for word in board.words]


def test_the_line_of_a_rank_ends_with_the_attempt_on_the_other_machine(rendezvous, board, tmp_path):
    with relaying(tmp_path / "far", rendezvous.invitation.call):
        line = Line.to(tmp_path / "far")
        with board.listening(tmp_path / "line", rendezvous):
            line.send("hello", rank=1)
            assert line.receive() is not None
        assert line.receive() is None
        line.close()

    assert [Word(1, "vanished")] == board.words


def test_what_a_machine_says_is_known_of_it(rendezvous, board, membership, stop, tmp_path):
    with board.listening(tmp_path / "line", rendezvous):
        line = Line(rendezvous.invitation.call())
        line.send("here", node="n2")
        line.send("stop", reason="drained")
        line.send("ended", well=False, exits={"1": -9}, cause="OOM_HOST")
        line.end()
        line.close()
        stranger = Line(rendezvous.invitation.call())
        stranger.send("here", node="n7")
        stranger.end()
        stranger.close()
        # What is not heard when the block ends is not heard any more.
        assert wait_until(lambda: bool(membership.causes), 20)

    assert StopReason.DRAINED is stop.reason
    assert (True, {1: -9}, {"n2": Cause.OOM_HOST}) == (membership.failed, membership.exits, membership.causes)


class Time:
    """A clock that stands still unless it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_machine_is_missing_that_did_not_come_in_time_or_fell_silent_or_left(stop):
    time, told = Time(), []
    membership = Membership(["n2"], stop, Leases(starting=60, attempt=30), clock=time)

    def look(now: float) -> None:
        time.now = now
        told.append(membership.missing)

    def says() -> Iterator[Message]:
        yield {"kind": "alive"}
        look(89)
        look(90)
        yield {"kind": "alive"}
        look(90)

    look(59)
    look(60)
    membership.listen("n2", says())
    look(90)

    silent, late, gone = "n2 fell silent", "n2 did not come within 60 s", "n2 left without a word"
    assert ["", late, "", silent, "", gone] == told


def test_a_machine_whose_ranks_have_ended_is_not_missed(stop):
    time = Time()
    membership = Membership(["n2"], stop, Leases(), clock=time)

    membership.listen("n2", iter([{"kind": "ended", "well": True, "exits": {}, "cause": "INTERNAL"}]))
    time.now = 1000

    assert ("", False) == (membership.missing, membership.failed)


def test_ranks_use_the_network_device_that_has_the_machines_address():
    names = {name for name, own in psutil.net_if_addrs().items() for one in own if one.address == "127.0.0.1"}

    assert {interface("127.0.0.1"), interface("127.0.0.2"), interface("localhost")} == names
    assert "" == interface("203.0.113.7")
