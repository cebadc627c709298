"""Webhooks: what is sent, to whom it is not, what becomes of a receiver that is away, and how it tells a fake.

Long, because all of it is asked of one courier with one receiver.
"""

import ipaddress
import re
import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podium.client import UnauthenticatedError, verify_webhook
from podium.jobs.job import Cause
from podium.jobs.notices import signature, to_json
from podium.jobs.states import State
from podium.jobs.store import Bookmark, MemoryStore
from podium.server.meters import REGISTRY, WEBHOOK_TRIES, WEBHOOK_WAITING
from podium.server.webhooks import Webhook, Webhooks, WebhookSettings, _courier, _post, webhooks_from_environment
from podium.server.webhooks._courier import Courier
from podium.server.webhooks._post import Undelivered, is_public, post
from tests.contract.plays import start, submit
from tests.receiver import SECRET, receiving

HOUR = 3600.0
OUTCOMES = ("delivered", "failed", "given_up")


class Clock:
    """Real time, and what it was turned by."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    return file


class Post:
    """A courier on a ledger of its own, its clock in the test's hand."""

    def __init__(self, url: str, secret_file: Path, **changes: frozenset[str]) -> None:
        self.store = MemoryStore()
        self.clock = Clock()
        self.before = self._tries()
        self.webhook = Webhook(name="hook", url=url, secret_file=secret_file, **changes)
        self.courier = self.another()
        self.courier.step()

    def another(self) -> Courier:
        """As the next leader would have it."""
        send = partial(post, allow_private=True)
        return Courier(self.webhook, self.store, send, clock=self.clock)

    @property
    def waiting(self) -> float:
        """As the metric has it."""
        gauge: float = WEBHOOK_WAITING.labels(webhook="hook")._value.get()
        return gauge

    def _tries(self) -> list[float]:
        return [WEBHOOK_TRIES.labels(webhook="hook", outcome=outcome)._value.get() for outcome in OUTCOMES]

    @property
    def counted(self) -> list[float]:
        """How often something was delivered, failed, and was given up."""
        return [now - before for now, before in zip(self._tries(), self.before, strict=True)]

    def cancelled(self) -> str:
        """A job that has just ended."""
        return self.store.cancel(submit(self.store).id, "").id

    def bookmark(self, name: str = "hook") -> Bookmark:
        """How far its receiver is."""
        found = self.store.bookmark(name)
        assert found is not None
        return found

    def work(self) -> None:
        """Until there is nothing to do now."""
        while not self.courier.step():
            pass


def test_a_notice_arrives_signed_with_both_secrets_and_tells_nothing_of_the_spec(secret_file):
    secret_file.write_text(f"{SECRET}\nanother-secret-of-ours\n")
    with receiving() as receiver:
        courier = Post(receiver.url, secret_file)
        job_id = courier.cancelled()
        courier.work()

        (notice,) = receiver.notices
        (headers,) = receiver.headers
        assert (f"{job_id}-0-CANCELLED", "CANCELLED", "default") == (notice.id, notice.event, notice.project)
        assert notice.id == headers["Podium-Event-Id"]
        assert verify_webhook(receiver.bodies[0], headers, "another-secret-of-ours") == notice
        assert b"resnet50" not in receiver.bodies[0]
        assert [1, 0, 0] == courier.counted
        courier.work()
        assert 1 == len(receiver.bodies)


def test_only_who_wants_it_is_told_and_nobody_of_what_was_before(secret_file):
    with receiving() as receiver:
        courier = Post(receiver.url, secret_file, events=frozenset({"FAILED"}), projects=frozenset({"default"}))
        other = Webhook(name="late", url=receiver.url, secret_file=secret_file, projects=frozenset({"vision"}))
        store = courier.store
        courier.cancelled()
        store.finish(start(store), State.FAILED, reason="")
        courier.work()
        assert ["FAILED"] == [notice.event for notice in receiver.notices]

        late = Courier(other, store, lambda *_: pytest.fail("told"))
        late.step()
        courier.cancelled()
        late.step()
        assert store.last_notice() == courier.bookmark("late").after


def test_a_receiver_that_was_down_gets_everything_in_order_once_it_is_up(secret_file):
    with receiving() as receiver:
        pass
    port = int(receiver.url.rpartition(":")[2].partition("/")[0])
    courier = Post(receiver.url, secret_file)
    job_id = submit(courier.store).id
    courier.store.recover(courier.store.dispatch(job_id, "n1", 0), "no step", cause=Cause.STALLED)
    courier.store.cancel(job_id, "")
    for _ in range(8):
        courier.work()
        courier.clock.ahead += 700
    delivered, failed, _ = courier.counted
    assert 0 == delivered
    assert 8 <= failed <= 16
    assert 2 == courier.waiting

    with receiving(port=port) as receiver:
        courier.work()
        assert ["STALLED", "CANCELLED"] == [notice.event for notice in receiver.notices]
        assert 0 == courier.waiting


def test_tries_come_further_and_further_apart_up_to_ten_minutes(secret_file):
    with receiving(*[500] * 100) as receiver:
        courier = Post(receiver.url, secret_file)
        courier.cancelled()
        tries = []
        for _ in range(14 * 60):
            courier.work()
            tries.append(len(receiver.bodies))
            courier.clock.ahead += 10

    # 2 h 20 min: 1, 2, 4 … 512 s, halved at best, then at most ten minutes each.
    assert 18 <= tries[-1] <= 40
    assert tries[6] >= 4


def test_a_notice_that_is_refused_holds_up_no_other_job(secret_file):
    with receiving(500, 200, 200, 500) as receiver:
        courier = Post(receiver.url, secret_file)
        refused, *others = [courier.cancelled() for _ in range(3)]
        for _ in range(3):
            courier.work()
            courier.clock.ahead += 1

        assert [refused, *others, refused] == [notice.job_id for notice in receiver.notices][:4]


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200])
def test_an_answer_that_is_no_http_counts_as_a_refusal_and_holds_up_no_other_job(secret_file, answer):
    def lie(handler):
        handler.wfile.write(answer)

    with receiving(lie, 200) as receiver:
        courier = Post(receiver.url, secret_file)
        lied_to, other = courier.cancelled(), courier.cancelled()
        for _ in range(3):
            courier.work()
            courier.clock.ahead += 1

        assert [lied_to, other, lied_to] == [notice.job_id for notice in receiver.notices]


def test_a_notice_that_is_refused_for_hours_does_not_keep_another_job_waiting(secret_file):
    with receiving(*[500] * 30) as receiver:
        courier = Post(receiver.url, secret_file)
        courier.cancelled()
        for _ in range(12):
            courier.work()
            courier.clock.ahead += 700
        courier.work()
        receiver.answers = []
        other = courier.cancelled()
        courier.work()

        assert other == receiver.notices[-1].job_id


def test_what_is_told_of_one_job_comes_in_order(secret_file):
    with receiving(500) as receiver:
        courier = Post(receiver.url, secret_file)
        job_id = submit(courier.store).id
        courier.store.recover(courier.store.dispatch(job_id, "n1", 0), "no step", cause=Cause.STALLED)
        courier.store.cancel(job_id, "")
        for _ in range(3):
            courier.work()
            courier.clock.ahead += 1

        assert ["STALLED", "STALLED", "CANCELLED"] == [notice.event for notice in receiver.notices]


def test_what_is_refused_for_a_day_is_given_up(secret_file, caplog):
    with receiving(*[500] * 3) as receiver:
        courier = Post(receiver.url, secret_file)
        notice = f"{courier.cancelled()}-0-CANCELLED"
        courier.work()
        courier.clock.ahead += 24 * HOUR - 10
        courier.work()
        assert [0, 2, 0] == courier.counted
        courier.clock.ahead += 700
        courier.work()

        assert f"{notice} is given up after a day: it answered 500" in caplog.text
        courier.clock.ahead += 700
        courier.work()
        assert ([0, 2, 1], 3) == (courier.counted, len(receiver.bodies))
        assert frozenset() == courier.bookmark().open


def test_a_receiver_counts_from_nought_as_a_rise_from_nothing_raises_no_alert(secret_file):
    webhook = Webhook(name="new-here", url="http://127.0.0.1:9", secret_file=secret_file)
    Courier(webhook, MemoryStore(), partial(post, allow_private=True), clock=Clock())

    for outcome in OUTCOMES:
        labels = {"webhook": "new-here", "outcome": outcome}
        assert 0 == REGISTRY.get_sample_value("podium_webhook_tries_total", labels)


def test_whoever_leads_next_goes_on_where_the_last_one_was(secret_file):
    with receiving(500, 200) as receiver:
        courier = Post(receiver.url, secret_file)
        refused, taken = courier.cancelled(), courier.cancelled()
        courier.work()
        courier.clock.ahead += 1
        while len(receiver.bodies) < 2:
            courier.courier.step()

        courier.courier = courier.another()
        missed = courier.cancelled()
        courier.work()
        assert [refused, taken, refused, missed] == [notice.job_id for notice in receiver.notices]
        assert frozenset() == courier.bookmark().open


def test_a_redirect_is_not_followed(secret_file):
    with receiving() as inside, receiving((302, inside.url)) as receiver:
        courier = Post(receiver.url, secret_file)
        courier.cancelled()
        courier.work()
        receiver.answers = [(307, inside.url)]
        with pytest.raises(Undelivered, match="answered 307, and redirects are not followed"):
            post(receiver.url, b"", {}, allow_private=True)

        assert [] == inside.bodies
        assert [0, 1, 0] == courier.counted


def test_a_private_address_is_refused_before_anything_is_sent():
    with receiving() as receiver, pytest.raises(Undelivered, match="its address is private"):
        post(receiver.url, b"", {}, allow_private=False)
    assert [] == receiver.bodies


def test_the_name_is_resolved_once_and_the_connection_goes_to_the_address_that_was_looked_at(monkeypatch):
    real, asked = socket.getaddrinfo, []

    def rebinding(host, *arguments, **options):
        asked.append(host)
        public = ["93.184.215.14", "127.0.0.1"][asked.count("hooks.example.com") - 1] if "example" in host else host
        return real(public, *arguments, **options)

    connected = []

    def connect(address, *_arguments, **_options):
        connected.append(address[0])
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    with pytest.raises(Undelivered, match="cannot be reached"):
        post("https://hooks.example.com/", b"", {}, allow_private=False)

    assert 1 == asked.count("hooks.example.com")
    assert ["93.184.215.14"] == connected


def test_a_name_of_many_addresses_takes_no_longer_than_one_request_may(monkeypatch):
    monkeypatch.setattr(_post, "WHOLE", 0.3)
    monkeypatch.setattr(_post, "STEP", 0.2)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"93.184.215.{number}", 443)) for number in range(200)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    tried = []

    def connect(address, *_arguments, **_options):
        tried.append(address)
        time.sleep(0.1)
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    with pytest.raises(Undelivered, match="cannot be reached"):
        post("https://hooks.example.com/", b"", {}, allow_private=False)

    assert len(tried) <= 4


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "192.0.0.192"),
        *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, of 127.0.0.1
    ],
)
def test_an_address_that_is_not_of_the_internet_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_a_receiver_that_drips_is_left(monkeypatch):
    monkeypatch.setattr(_post, "WHOLE", 0.4)
    over, began = threading.Event(), time.monotonic()

    def drip(handler):
        try:
            while not over.wait(0.05) and time.monotonic() < began + 8:
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            pass

    with receiving(drip) as receiver:
        with pytest.raises(Undelivered):
            post(receiver.url, b"", {}, allow_private=True)
        assert time.monotonic() - began < 4
        over.set()


def test_the_answers_body_is_not_read(secret_file):
    endless = threading.Event()

    def flood(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        endless.set()

    with receiving(flood) as receiver:
        post(receiver.url, b"", {}, allow_private=True)
    assert endless.is_set()


def test_a_receiver_that_hangs_delays_neither_the_leader_nor_another_receiver(secret_file, monkeypatch):
    monkeypatch.setattr(_courier, "LOOK_EVERY", 0.02)
    over = threading.Event()
    with receiving(lambda _: over.wait(20)) as hanging, receiving() as quick:
        hooks = tuple(
            Webhook(name=name, url=url, secret_file=secret_file)
            for name, url in (("hanging", hanging.url), ("quick", quick.url))
        )
        store = MemoryStore()
        webhooks = Webhooks(store, WebhookSettings(webhooks=hooks, allow_private=True))
        webhooks.lead(True)
        deadline = time.monotonic() + 60
        while not (store.bookmark("hanging") and store.bookmark("quick")):
            assert time.monotonic() < deadline
        store.cancel(submit(store).id, "")
        hanging.wait(1)
        began = time.monotonic()
        webhooks.lead(True)
        store.cancel(submit(store).id, "")
        quick.wait(2)
        assert time.monotonic() - began < 4
        webhooks.lead(False)
        over.set()


def signed(body: bytes, secret: str, at: float) -> dict[str, str]:
    now = str(int(at))
    return {"podium-timestamp": now, "PODIUM-SIGNATURE": f"v1={signature(secret, now, body)}"}


@pytest.fixture
def body() -> bytes:
    store = MemoryStore()
    store.cancel(submit(store).id, "")
    ((_, notice),) = store.notices(after="", limit=1)
    return to_json(notice)


def test_a_receiver_knows_what_is_not_signed_with_its_secret(body):
    good = signed(body, SECRET, time.time())
    assert "CANCELLED" == verify_webhook(body, good, SECRET).event

    later = good | {"podium-timestamp": str(int(good["podium-timestamp"]) + 1)}
    for wrong_body, headers, secret in [
        (body + b" ", good, SECRET),
        (body, later, SECRET),
        (body, good, "another secret of ours"),
        (body, {}, SECRET),
        (body, good | {"PODIUM-SIGNATURE": "v1=,v2=\xff,"}, SECRET),
        (body, good | {"PODIUM-SIGNATURE": "v1=" + "," * 100_000}, SECRET),
    ]:
        with pytest.raises(UnauthenticatedError) as caught:
            verify_webhook(wrong_body, headers, secret)
        assert "WEBHOOK_SIGNATURE" == caught.value.reason


@pytest.mark.parametrize("away", [-301.0, 302.0])
def test_a_receiver_knows_what_is_old_or_from_the_future(body, away):
    with pytest.raises(UnauthenticatedError) as caught:
        verify_webhook(body, signed(body, SECRET, time.time() + away), SECRET)
    assert "WEBHOOK_TIMESTAMP" == caught.value.reason
    assert verify_webhook(body, signed(body, SECRET, time.time() + away), SECRET, tolerance=400)


def test_the_receiver_of_the_documentation_takes_what_is_signed_once_and_nothing_else(body, capsys):
    document = Path(__file__).parents[3] / "docs" / "webhooks.md"
    (example,) = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(example.replace("the line of secret_file", SECRET), names)
    names["Receiver"].log_message = lambda *_: None
    server = names["HTTPServer"](("127.0.0.1", 0), names["Receiver"])
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url, headers = f"http://127.0.0.1:{server.server_port}/", signed(body, SECRET, time.time())
    try:
        for _ in range(2):
            post(url, body, headers, allow_private=True)
        with pytest.raises(Undelivered, match="403"):
            post(url, body, signed(body, "another secret of ours", time.time()), allow_private=True)
    finally:
        server.shutdown()
        server.server_close()

    assert 1 == capsys.readouterr().out.count("CANCELLED")


def read(tmp_path: Path, text: str, **environment: str) -> WebhookSettings:
    file = tmp_path / "webhooks.yaml"
    file.write_text(text)
    return webhooks_from_environment({"PODIUM_WEBHOOKS": str(file), **environment})


def test_the_file_names_receivers(tmp_path, secret_file):
    text = f"- {{name: a, url: 'https://hooks.example.com/x', secret_file: {secret_file}}}\n"
    more = f"- {{name: b, url: 'http://10.0.0.1:8080/', secret_file: {secret_file}, "
    more += "projects: [vision], events: [STALLED]}\n"

    found = read(tmp_path, text + more, PODIUM_WEBHOOKS_ALLOW_PRIVATE="1")

    first, second = found.webhooks
    assert ("a", "https://hooks.example.com/x", 4) == (first.name, first.url, len(first.events))
    assert (frozenset({"vision"}), frozenset({"STALLED"})) == (second.projects, second.events)
    assert WebhookSettings() == webhooks_from_environment({})


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{}", "is to be a list of receivers"),
        ("[", "is no YAML, line "),
        ("- {name: a}", "entry 1 is to have name, url, secret_file"),
        ("- {name: a, url: 'https://h/', secret_file: S, typo: 1}", "entry 1 is to have"),
        ("- {name: A b, url: 'https://h/', secret_file: S}", "the name 'A b'"),
        ("- {name: a, url: 'http://h/', secret_file: S}", "PODIUM_WEBHOOKS_ALLOW_PRIVATE=1"),
        ("- {name: a, url: 'ftp://h/', secret_file: S}", "is not https://"),
        ("- {name: a, url: 'https://me:hunter2@h/', secret_file: S}", "names a user or a password"),
        ("- {name: a, url: 'https://h/#x', secret_file: S}", "without a fragment"),
        ('- {name: a, url: "https://h/\\r\\nX: y", secret_file: S}', "is to be like https://"),
        ("- {name: a, url: 'https://h:x/', secret_file: S}", "is no URL"),
        ("- {name: a, url: 'https://h/', secret_file: /nowhere}", "secret_file /nowhere of a cannot be read"),
        ("- {name: a, url: 'https://h/', secret_file: SHORT}", "16 characters or more"),
        ("- {name: a, url: 'https://h/', secret_file: S, events: [LOST]}", "SUCCEEDED, FAILED, CANCELLED, STALLED"),
        ("- {name: a, url: 'https://h/', secret_file: S, projects: vision}", "projects is to be a list"),
        ("- &x {name: a, url: 'https://h/', secret_file: S}\n- *x", "two receivers have one name"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_without_its_secrets(tmp_path, secret_file, entry, told):
    short = tmp_path / "short"
    short.write_text("tiny\n")

    with pytest.raises(ValueError, match=r"PODIUM_WEBHOOKS") as caught:
        read(tmp_path, entry.replace("SHORT", str(short)).replace("secret_file: S", f"secret_file: {secret_file}"))

    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_goes_away_stops_nothing_and_is_told(secret_file, caplog):
    with receiving() as receiver:
        courier = Post(receiver.url, secret_file)
        courier.cancelled()
        kept = secret_file.read_text()
        secret_file.unlink()
        courier.work()
        assert "cannot be read" in caplog.text
        secret_file.write_text(kept)
        courier.clock.ahead += 2
        courier.work()
        assert 1 == len(receiver.bodies)
