"""Whose a job is, and which job a checkpoint is of: what the front desk asks before it tells anything."""

from podium.jobs.job import Checkpoint
from podium.jobs.spec import ImageFolder, JobSpec, LinearHead, Softmax
from podium.jobs.store import JobStore, NewJob

SPEC = JobSpec(backbone="resnet18", tuning=LinearHead(), dataset=ImageFolder(train="/x"), sorter=Softmax())


def create(store: JobStore, project: str) -> str:
    return store.create(NewJob(project=project, spec=SPEC, classes=("a", "b")))[0].id


def test_a_project_owns_its_own_jobs_and_neither_those_of_others_nor_those_that_are_none(store):
    mine, theirs = create(store, "vision"), create(store, "nlp")

    assert {mine} == store.owned("vision", [mine, theirs, "job-of-nobody"])
    assert {theirs} == store.owned("nlp", [mine, theirs])
    assert set() == store.owned("", [mine])
    assert set() == store.owned("vision", [])


def test_a_checkpoint_leads_to_its_job_and_a_stranger_nowhere(store):
    job_id = create(store, "vision")
    assignment = store.dispatch(job_id, "n1", 0)
    store.begin(assignment)
    store.commit_checkpoint(assignment, Checkpoint(id="ckpt-1", job_id=job_id, attempt=1, step=1))

    assert job_id == store.job_of("ckpt-1")
    assert "" == store.job_of("ckpt-2")


def test_a_deleted_job_is_nobodys(store):
    job_id = create(store, "vision")
    store.cancel(job_id, "")
    store.delete(job_id)

    assert set() == store.owned("vision", [job_id])
