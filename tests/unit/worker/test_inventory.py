"""Which devices an attempt sees."""

import pytest

from podium.jobs.job import Slot
from podium.worker.inventory import SLOT_DEVICES, cpu_slots, devices, slot_devices

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
