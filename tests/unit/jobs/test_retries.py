"""Which ends of attempts end the job."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.jobs import retries
from podium.jobs.job import Attempt, Cause
from podium.jobs.retries import LIMITS

RETRIED = sorted(LIMITS, key=lambda cause: cause.value)
USER = [cause for cause in Cause if cause not in LIMITS and cause is not Cause.PREEMPTED]
MOST = sum(LIMITS.values()) - len(LIMITS) + 1


def attempt(cause: Cause | None, *, gain: int = 0, start: int = 40) -> Attempt:
    """One that began at a step and committed a checkpoint so many steps later."""
    reached = start + gain if gain else 0
    return Attempt(
        number=1, node="n1", slot=0, cause=cause, resumed_from_step=start, checkpoint_step=reached, outcome="it ended"
    )


ATTEMPTS = st.builds(
    attempt, st.sampled_from([None, *Cause]), gain=st.sampled_from([0, 0, 0, 10]), start=st.integers(0, 50)
)
HISTORIES = st.lists(ATTEMPTS, max_size=15)
FAILURES = st.builds(attempt, st.sampled_from(RETRIED))


def first_end(attempts: Sequence[Attempt]) -> int:
    """After how many attempts the job failed; one more than there are, where it did not."""
    ends = (count for count in range(1, len(attempts) + 1) if retries.verdict(attempts[:count]))
    return next(ends, len(attempts) + 1)


@given(HISTORIES, st.sampled_from([None, Cause.PREEMPTED]))
def test_what_was_only_interrupted_goes_on_at_once_whatever_came_before(
    history: list[Attempt], cause: Cause | None
) -> None:
    assert retries.verdict([*history, attempt(cause)]) is None
    assert retries.pause([*history, attempt(cause)]) == 0


@given(HISTORIES, st.sampled_from(USER), st.sampled_from([0, 10]))
def test_what_is_wrong_with_the_job_itself_is_never_tried_again(
    history: list[Attempt], cause: Cause, gain: int
) -> None:
    error = retries.verdict([*history, attempt(cause, gain=gain)])

    assert error is not None
    assert (cause, "it ended") == (error.cause, error.message)


@given(HISTORIES, st.sampled_from(RETRIED))
def test_an_attempt_that_got_further_is_always_followed_by_another_at_once(
    history: list[Attempt], cause: Cause
) -> None:
    assert retries.verdict([*history, attempt(cause, gain=10)]) is None
    assert retries.pause([*history, attempt(cause, gain=10)]) == 0


@given(HISTORIES, ATTEMPTS, HISTORIES)
def test_what_came_before_progress_is_forgotten(before: list[Attempt], last: Attempt, after: list[Attempt]) -> None:
    since = [attempt(None, gain=10), *after, last]

    assert retries.verdict(since) == retries.verdict([*before, *since])
    assert retries.pause(since) == retries.pause([*before, *since])


@given(st.lists(FAILURES, min_size=MOST, max_size=MOST))
def test_without_progress_the_attempts_are_bounded_however_the_causes_alternate(history: list[Attempt]) -> None:
    assert first_end(history) <= MOST


@given(st.lists(FAILURES, min_size=MOST, max_size=MOST), st.data())
def test_interruptions_in_between_change_nothing(history: list[Attempt], data: st.DataObject) -> None:
    interrupted: list[Attempt] = []
    for failed in history:
        interrupted += data.draw(st.lists(st.just(attempt(Cause.PREEMPTED)), max_size=2))
        interrupted.append(failed)
    end = first_end(interrupted)

    assert first_end(history) == len([one for one in interrupted[:end] if one.cause is not Cause.PREEMPTED])


@pytest.mark.parametrize("cause", RETRIED)
def test_a_job_fails_at_its_causes_limit_and_says_what_helps(cause: Cause) -> None:
    history = [attempt(cause)] * LIMITS[cause]

    assert retries.verdict(history[:-1]) is None
    error = retries.verdict(history)
    assert error is not None
    assert error.cause is cause
    assert f"{LIMITS[cause]} attempts in a row got no further than step 40" in error.message
    assert error.remedy


@given(st.permutations([cause for cause in RETRIED for _ in range(LIMITS[cause] - 1)]))
def test_each_cause_has_a_count_of_its_own_so_that_lost_machines_use_up_no_other(causes: list[Cause]) -> None:
    history = [attempt(cause) for cause in causes]

    assert first_end(history) > len(history)


@given(st.lists(FAILURES, min_size=2, max_size=MOST))
def test_pauses_grow_from_failure_to_failure_up_to_a_minute(history: list[Attempt]) -> None:
    same = [attempt(history[-1].cause)] * len(history)
    pauses = [retries.pause(same[:count]) for count in range(1, len(same) + 1)]

    assert sorted(pauses) == pauses
    assert all(later >= min(2 * earlier, 60) for earlier, later in itertools.pairwise(pauses))
    assert 1 <= retries.pause(history) <= 60


def test_the_first_failure_waits_for_nothing_but_storage() -> None:
    assert {Cause.STORAGE: 10.0} == {cause: wait for cause in RETRIED if (wait := retries.pause([attempt(cause)]))}
