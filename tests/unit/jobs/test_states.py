"""The table of legal moves."""

import pytest

from podium.jobs.states import HOLDING_A_SLOT, MOVES, State

FINAL = {State.SUCCEEDED, State.FAILED, State.CANCELLED}


def reachable(start: State) -> set[State]:
    found, front = {start}, {start}
    while front:
        front = {after for state in front for after in MOVES[state]} - found
        found |= front
    return found


def test_the_table_knows_every_state() -> None:
    assert set(State) == set(MOVES)


def test_nothing_leaves_a_final_state() -> None:
    assert {state for state in State if state.terminal} == FINAL
    assert all(not MOVES[state] for state in FINAL)


def test_a_new_job_can_reach_every_state() -> None:
    assert set(State) == reachable(State.QUEUED)


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
def test_every_job_can_still_end_and_can_still_be_cancelled(state: State) -> None:
    assert reachable(state) & FINAL
    assert State.CANCELLED in reachable(state)


def test_a_slot_is_taken_by_a_dispatch_only() -> None:
    into = {(before, after) for before in State for after in MOVES[before] if after in HOLDING_A_SLOT}
    from_outside = {(before, after) for before, after in into if before not in HOLDING_A_SLOT}
    assert {(State.QUEUED, State.STARTING)} == from_outside


def test_success_comes_from_running_only() -> None:
    assert all(before in HOLDING_A_SLOT - {State.STARTING} for before in State if State.SUCCEEDED in MOVES[before])


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MOVES[State.SUCCEEDED] = frozenset({State.QUEUED})  # type: ignore[index]  # that it cannot be done is tested
