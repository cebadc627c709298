"""Page tokens and the thinning of metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.jobs.errors import InvalidSpecError
from podium.server.services._paging import make_token, read_token
from podium.server.services.metrics import thinned


@given(length=st.integers(1, 3000), most=st.integers(2, 400))
def test_thinning_keeps_both_ends_the_order_and_the_limit(length, most):
    points = [(step, 0.0) for step in range(length)]

    kept = list(thinned(points, most))

    assert min(length, 2) <= len(kept) <= most
    assert (points[0], points[-1]) == (kept[0], kept[-1])
    assert sorted(set(kept)) == kept


def test_few_points_are_all_kept():
    assert [(1, 0.0), (2, 0.0)] == thinned([(1, 0.0), (2, 0.0)], 2)


def test_one_point_is_the_last():
    assert [(9, 0.0)] == list(thinned([(1, 0.0), (5, 0.0), (9, 0.0)], 1))


def test_a_token_gives_its_cursor_back_for_the_same_filters():
    assert "42" == read_token(make_token("42", ("default", [1])), ("default", [1]))


@pytest.mark.parametrize("token", ["x", "bm90IGpzb24=", "W10=", "WzEsIDJd", "bnVsbA==", "é"])
def test_a_made_up_token_is_refused_by_the_name_of_its_field(token):
    with pytest.raises(InvalidSpecError) as caught:
        read_token(token, ())

    assert ["page_token"] == [violation.field for violation in caught.value.violations]
