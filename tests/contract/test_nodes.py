"""The machines, as every ledger keeps them: what they say, what is asked of them, and what they are trusted with."""

from dataclasses import replace

import pytest

from podium.jobs.errors import NotFoundError
from podium.jobs.job import Cause, Node, NodeState, Slot
from podium.jobs.store import Assignment, Drain, JobStore
from tests.contract.plays import machine, start, submit


def full(name: str = "n1", state: NodeState = NodeState.READY) -> Node:
    slots = (Slot(index=0, device="GPU-1", model="H200", memory_bytes=2**37, job_id="nonsense"), Slot(index=1))
    return Node(id=name, pool="default", state=state, slots=slots, version="1.0")


class TestNodes:
    def test_a_machine_is_listed_with_the_jobs_in_its_slots(self, world) -> None:
        store = world.store
        store.heartbeat(full("n2", NodeState.DRAINING))
        store.heartbeat(full("n1"))
        job_id = store.dispatch(submit(store).id, "n1", 1).job_id
        store.heartbeat(full("n1"))

        first, second = store.nodes()
        assert ("n1", NodeState.READY, world.clock.now) == (first.id, first.state, first.heartbeat_time)
        assert ["", job_id] == [slot.job_id for slot in first.slots]
        assert ("GPU-1", "H200", 2**37) == (first.slots[0].device, first.slots[0].model, first.slots[0].memory_bytes)
        assert ("n2", NodeState.DRAINING, ["", ""]) == (second.id, second.state, [slot.job_id for slot in second.slots])

    def test_a_silent_machine_is_lost_until_it_is_heard_again(self, world) -> None:
        store = world.store
        store.heartbeat(full())
        world.wait_until(lambda: store.nodes()[0].state is NodeState.LOST)
        store.heartbeat(full())

        assert store.nodes()[0].state is NodeState.READY

    @pytest.mark.parametrize("name", ["n1:slots", "n1:lease", "n1:drain", "n1:failures"])
    def test_whatever_a_machine_is_called_it_is_no_other(self, store, name: str) -> None:
        machine(store, "n1")
        start(store, node="n1")
        before = list(store.nodes())
        machine(store, name)

        assert before == list(store.nodes())[:1]
        assert ["n1", name] == [node.id for node in store.nodes()]

    def test_a_machine_that_was_silent_for_a_day_is_not_listed(self, world) -> None:
        world.store.heartbeat(full())
        world.wait_until(lambda: world.store.nodes()[0].state is NodeState.LOST)
        world.clock.advance(hours=23)
        assert 1 == len(world.store.nodes())
        world.clock.advance(hours=2)
        assert [] == list(world.store.nodes())

    def test_a_machine_that_leaves_is_off_the_list(self, store) -> None:
        store.heartbeat(full())
        for _ in range(2):
            store.remove_node("n1")

        assert [] == list(store.nodes())

    def test_what_it_says_of_itself_comes_back(self, store) -> None:
        slots = (Slot(index=0, trouble="only 3 GiB are free"), Slot(index=4))
        node = Node(
            id="n1",
            pool="big",
            state=NodeState.DRAINING,
            slots=slots,
            version="1.2",
            versions={"torch": "2.15", "driver": "590"},
            address="10.0.0.7",
            reason="it was told to stop",
        )
        store.heartbeat(node)
        (listed,) = store.nodes()

        assert replace(node, heartbeat_time=listed.heartbeat_time) == listed


class TestDrain:
    @pytest.mark.parametrize("drain", [Drain.FINISH, Drain.REQUEUE])
    def test_it_is_told_to_the_machine_and_shown_until_it_is_taken_back(self, store, drain: Drain) -> None:
        node = machine(store)
        assert store.heartbeat(node) is Drain.NO
        asked = store.drain("n1", drain)

        assert (NodeState.DRAINING, "drained by request") == (asked.state, asked.reason)
        assert [asked] == list(store.nodes())
        assert store.heartbeat(node) is drain
        assert store.drain("n1", Drain.NO).state is NodeState.READY
        assert store.heartbeat(node) is Drain.NO

    def test_the_last_wish_counts(self, store) -> None:
        node = machine(store)
        for drain in (Drain.REQUEUE, Drain.FINISH, Drain.FINISH):
            store.drain("n1", drain)

        assert store.heartbeat(node) is Drain.FINISH

    def test_it_lasts_while_the_machine_is_under_repair(self, world) -> None:
        node = machine(world.store)
        world.store.drain("n1", Drain.FINISH)
        world.clock.advance(days=14)

        assert world.store.heartbeat(node) is Drain.FINISH
        assert world.store.nodes()[0].state is NodeState.DRAINING

    def test_a_machine_that_left_in_good_order_starts_anew(self, store) -> None:
        node = machine(store)
        store.drain("n1", Drain.FINISH)
        store.remove_node("n1")

        assert store.heartbeat(node) is Drain.NO

    def test_a_machine_that_is_not_listed_is_not_found(self, world) -> None:
        for _ in range(2):
            with pytest.raises(NotFoundError) as caught:
                world.store.drain("n1", Drain.FINISH)
            assert ("NODE_NOT_FOUND", {"node_id": "n1"}) == (caught.value.reason, caught.value.metadata)
            machine(world.store)
            world.wait_until(lambda: world.store.nodes()[0].state is NodeState.LOST)
            world.clock.advance(hours=25)

    def test_one_that_fell_silent_is_lost_and_drained_once_it_is_back(self, world) -> None:
        node = machine(world.store)
        world.wait_until(lambda: world.store.nodes()[0].state is NodeState.LOST)
        assert world.store.drain("n1", Drain.FINISH).state is NodeState.LOST
        world.store.heartbeat(node)

        assert world.store.nodes()[0].state is NodeState.DRAINING


class TestHardware:
    def fail(self, store: JobStore, node: str) -> None:
        assignment = start(store, node=node)
        store.recover(assignment, "the GPU fell off the bus", cause=Cause.NODE_LOST, faulty=node)

    def state(self, store: JobStore) -> NodeState:
        machine(store)
        return next(node.state for node in store.nodes() if node.id == "n1")

    def test_the_second_failure_excludes_a_machine_and_its_operator_trusts_it_again(self, store) -> None:
        machine(store, "n2")
        self.fail(store, "n1")
        assert self.state(store) is NodeState.READY
        self.fail(store, "n1")

        assert self.state(store) is NodeState.EXCLUDED
        excluded, other = store.nodes()
        assert "2 attempts failed for its hardware" in excluded.reason
        assert "podium undrain n1" in excluded.reason
        assert other.state is NodeState.READY
        assert store.drain("n1", Drain.NO).state is NodeState.READY

    def test_failures_of_other_kinds_exclude_nobody(self, store) -> None:
        for _ in range(3):
            store.recover(start(store), "killed", cause=Cause.INTERNAL)

        assert self.state(store) is NodeState.READY

    def test_two_failures_more_than_a_day_apart_are_no_habit(self, world) -> None:
        for _ in range(3):
            self.fail(world.store, "n1")
            world.clock.advance(hours=25)

            assert self.state(world.store) is NodeState.READY

    def test_time_does_not_mend_it(self, world) -> None:
        self.fail(world.store, "n1")
        world.clock.advance(hours=23)
        self.fail(world.store, "n1")
        world.clock.advance(days=14)

        assert self.state(world.store) is NodeState.EXCLUDED
        assert world.store.drain("n1", Drain.NO).state is NodeState.READY

    def test_a_restart_does_not_mend_it(self, store) -> None:
        for _ in range(2):
            self.fail(store, "n1")
        store.remove_node("n1")

        assert self.state(store) is NodeState.EXCLUDED

    def test_it_is_told_of_a_drain_all_the_same(self, store) -> None:
        node = machine(store)
        for _ in range(2):
            self.fail(store, "n1")

        assert store.drain("n1", Drain.REQUEUE).state is NodeState.EXCLUDED
        assert store.heartbeat(node) is Drain.REQUEUE

    def test_one_of_several_machines_can_be_the_faulty_one(self, store) -> None:
        for _ in range(2):
            assignment: Assignment = store.dispatch(submit(store).id, "n2", 0)
            store.recover(assignment, "ECC errors on n1", faulty="n1")

        assert self.state(store) is NodeState.EXCLUDED
