"""Page tokens, and what somebody does in the middle of a call."""

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from podium.jobs.artifacts import ArtifactStore, Manifest
from podium.jobs.errors import InvalidSpecError, NotFoundError
from podium.jobs.store import Leases, MemoryStore, NewJob
from podium.server.access import begin_facts
from podium.server.admission import Admission
from podium.server.dispatcher import Outlook, Sharing, Snapshots
from podium.server.services._paging import make_token, read_token
from podium.server.services.checkpoints import Checkpoints
from podium.server.services.jobs import Jobs
from tests.unit.server.test_admission import request
from tests.unit.server.test_deleter import Site


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


def test_of_a_checkpoint_that_is_deleted_before_its_file_is_opened_nothing_is_lost_there_is_none(tmp_path: Path):
    class DeletedMeanwhile(ArtifactStore):
        def manifest(self, job_id: str, checkpoint_id: str) -> Manifest:
            found = super().manifest(job_id, checkpoint_id)
            site.store.delete_checkpoint(checkpoint_id)
            self.remove(job_id, checkpoint_id)
            return found

    site = Site(tmp_path)
    _, (checkpoint, _) = site.ended()

    with pytest.raises(NotFoundError) as caught:
        Checkpoints(site.store, DeletedMeanwhile(str(tmp_path))).open(checkpoint.id, checkpoint.files[0].name, 0)

    assert "CHECKPOINT_NOT_FOUND" == caught.value.reason


def test_a_token_gives_its_cursor_back_for_the_same_filters():
    assert "42" == read_token(make_token("42", ("default", [1])), ("default", [1]))


@pytest.mark.parametrize("token", ["x", "bm90IGpzb24=", "W10=", "WzEsIDJd", "bnVsbA==", "é"])
def test_a_made_up_token_is_refused_by_the_name_of_its_field(token):
    with pytest.raises(InvalidSpecError) as caught:
        read_token(token, ())

    assert ["page_token"] == [violation.field for violation in caught.value.violations]
