"""Page tokens."""

import pytest

from podium.jobs.errors import InvalidSpecError
from podium.server.services._paging import make_token, read_token


def test_a_token_gives_its_cursor_back_for_the_same_filters():
    assert "42" == read_token(make_token("42", ("default", [1])), ("default", [1]))


@pytest.mark.parametrize("token", ["x", "bm90IGpzb24=", "W10=", "WzEsIDJd", "bnVsbA==", "é"])
def test_a_made_up_token_is_refused_by_the_name_of_its_field(token):
    with pytest.raises(InvalidSpecError) as caught:
        read_token(token, ())

    assert ["page_token"] == [violation.field for violation in caught.value.violations]
