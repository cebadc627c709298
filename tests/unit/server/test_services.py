"""Page tokens, and a job that nobody hears of."""

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from podium.jobs.errors import InvalidSpecError
from podium.jobs.store import Leases, MemoryStore, NewJob
from podium.server.access import begin_facts
from podium.server.admission import Admission
from podium.server.dispatcher import Outlook, Sharing, Snapshots
from podium.server.services._paging import make_token, read_token
from podium.server.services.jobs import Jobs
from tests.unit.server.test_admission import request


class Interrupted(MemoryStore):
    """Writes, and is left before it can say so."""

    def submit(self, new: NewJob) -> NoReturn:
        super().submit(new)
        raise asyncio.CancelledError


def test_who_is_gone_before_the_answer_leaves_the_id_of_the_job_for_the_audit_trail(tmp_path: Path):
    store, known = Interrupted(), begin_facts()
    outlook = Outlook(Snapshots(store, Leases(), Sharing()))
    admission = Admission(roots=[str(tmp_path)], store=store, scan=lambda dataset, split: {"a": 1, "b": 1})

    with pytest.raises(asyncio.CancelledError):
        Jobs(store, admission, outlook).create(request(tmp_path))

    (job,), _ = store.list(project="default")
    assert job.id == known.target


def test_a_token_gives_its_cursor_back_for_the_same_filters():
    assert "42" == read_token(make_token("42", ("default", [1])), ("default", [1]))


@pytest.mark.parametrize("token", ["x", "bm90IGpzb24=", "W10=", "WzEsIDJd", "bnVsbA==", "é"])
def test_a_made_up_token_is_refused_by_the_name_of_its_field(token):
    with pytest.raises(InvalidSpecError) as caught:
        read_token(token, ())

    assert ["page_token"] == [violation.field for violation in caught.value.violations]
