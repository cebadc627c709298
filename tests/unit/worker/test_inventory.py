"""Which devices an attempt sees."""

import pytest

from podium.jobs.job import Slot
from podium.worker.__main__ import main
from podium.worker.inventory import ADDRESS, SLOT_DEVICES, cpu_slots, devices, own_address, slot_devices

GPUS = tuple(Slot(index=index, device=f"GPU-{name}", model="H100") for index, name in enumerate("abc"))


def test_an_attempt_sees_the_devices_of_its_slots_in_their_order() -> None:
    environment = {SLOT_DEVICES: slot_devices(GPUS)}

    assert "GPU-b" == devices((1,), environment)
    assert "GPU-c,GPU-a" == devices((2, 0), environment)


def test_cpu_slots_see_no_device() -> None:
    environment = {SLOT_DEVICES: slot_devices(cpu_slots(3))}

    assert "" == devices((0,), environment)
    assert "" == devices((0, 2), environment)


def test_a_slot_that_the_machine_does_not_have_is_an_error() -> None:
    with pytest.raises(IndexError):
        devices((3,), {SLOT_DEVICES: slot_devices(GPUS)})


def test_a_machine_is_reached_where_it_is_said_or_where_it_reaches_redis_itself() -> None:
    assert "127.0.0.2" == own_address("redis://10.0.0.1:6379", {ADDRESS: "127.0.0.2"})
    with pytest.raises(ValueError, match=r"PODIUM_ADDRESS=203\.0\.113\.7 is no address of this machine"):
        own_address("redis://10.0.0.1:6379", {ADDRESS: "203.0.113.7"})


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "redis://localhost:6379/0", "redis://127.0.0.1"])
def test_a_redis_on_the_same_machine_says_nothing_of_how_others_reach_it(url: str) -> None:
    assert "" == own_address(url, {})


@pytest.mark.parametrize(
    "words", [("--node", ""), ("--node", "a\nb"), ("--node", "n" * 254), ("--pool", ""), ("--pool", "Big Ones")]
)
def test_a_name_that_nobody_could_ask_for_is_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--cpu-slots", "1", *words])

    assert f"argument {words[0]}: {words[1]!r}: give " in capsys.readouterr().err
