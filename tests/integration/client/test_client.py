import threading
from dataclasses import replace

import pytest

from podium.client import (
    AdamW,
    AlreadyExistsError,
    Client,
    DeadlineExceededError,
    FailedPreconditionError,
    ImageFolder,
    InvalidSpecError,
    Job,
    JobEvent,
    NodeState,
    NotFoundError,
    Priority,
    State,
    Subset,
)
from podium.jobs.errors import StaleFenceError


def test_a_job_is_submitted_seen_listed_and_cancelled(client, spec):
    handle = client.submit(spec)

    job = handle.job()

    assert State.QUEUED == job.state
    assert 6 == len(job.classes)
    assert spec.sorter == job.spec.sorter
    assert [handle.id] == [found.id for found in client.list()]
    assert [] == list(client.list(states=[State.RUNNING]))
    assert State.CANCELLED == handle.cancel("not needed").state
    assert State.CANCELLED == handle.cancel("again").state
    assert State.CANCELLED == handle.wait(timeout=10).state


def test_the_list_reads_on_page_by_page(client, spec):
    ids = [client.submit(replace(spec, epochs=epochs)).id for epochs in range(1, 56)]

    assert list(reversed(ids)) == [job.id for job in client.list()]
    assert ids == [job.id for job in client.list(oldest_first=True)]
    assert ids[3:4] == [job.id for job in client.list(filter=f"id = {ids[3]} AND priority = NORMAL")]


def test_the_same_request_id_is_the_same_job(client, spec):
    request_id = "11111111-2222-3333-4444-555555555555"

    first = client.submit(spec, request_id=request_id)

    assert first.id == client.submit(spec, request_id=request_id).id
    assert first.id != client.submit(spec).id
    with pytest.raises(AlreadyExistsError):
        client.submit(replace(spec, seed=1), request_id=request_id)


def test_validate_fills_in_the_defaults_and_queues_nothing(client, spec):
    resolved = client.validate(replace(spec, m=None))

    assert resolved.m == 6
    assert resolved.preprocessing.image_size == 224
    assert [] == list(client.list())


def test_every_mistake_of_a_spec_comes_back_at_once_with_its_field(client, spec):
    wrong = replace(spec, optimizer=AdamW(learning_rate=-1), sorter=Subset(temperature=float("nan")), k={1: 0.5})

    with pytest.raises(InvalidSpecError) as caught:
        client.submit(wrong)

    fields = {violation.field for violation in caught.value.violations}
    assert {"spec.adamw.learning_rate", "spec.subset.temperature", "spec.k"} <= fields
    assert [] == list(client.list())


def test_a_path_that_does_not_exist_is_not_found_and_named(client, spec, images):
    with pytest.raises(NotFoundError) as caught:
        client.submit(replace(spec, dataset=ImageFolder(train=f"{images}/nothing")))

    assert ["spec.image_folder.train"] == [violation.field for violation in caught.value.violations]


def test_an_unknown_job_is_not_found(client):
    with pytest.raises(NotFoundError):
        client.get("job-0000000000000000")


def test_the_catalogue_and_the_pool_are_told(client, worker):
    worker.beat()

    sorters = {sorter.name: sorter for sorter in client.sorters()}
    assert ["smooth_svm", "noised_hinge", "imbalanced_noised_hinge"] == [
        name for name, sorter in sorters.items() if sorter.baseline
    ]
    assert sorters["sparse"].caveats
    exponent, _ = sorters["sparse"].parameters
    assert ("p", 4 / 3, 1, None, None, 2) == (
        exponent.name,
        exponent.default,
        exponent.above,
        exponent.at_least,
        exponent.below,
        exponent.at_most,
    )
    assert "DISTRIBUTION_CAUCHY" in sorters["odd_even"].parameters[1].choices
    assert all("efficientnet" in backbone.name for backbone in client.backbones("efficientnet"))
    assert client.server_info().max_page_size > 0
    assert ["by-hand"] == [node.id for node in client.nodes()]


def test_a_watch_tells_everything_once_and_ends_with_the_job(client, spec, worker):
    handle = client.submit(spec)
    events: list[JobEvent] = []
    watcher = threading.Thread(target=lambda: events.extend(handle.watch()))
    watcher.start()

    assignment = worker.begin(handle.id)
    for step in range(1, 6):
        worker.step(assignment, step)
    worker.finish(assignment)
    watcher.join(timeout=20)

    assert not watcher.is_alive()
    assert isinstance(events[0].payload, Job)
    last = handle.job().sequence
    assert list(range(1, last + 1)) == [event.sequence for event in events[1:]]
    assert [last] == [event.sequence for event in handle.watch(after=last - 1)][1:]
    assert [] == [event.sequence for event in handle.watch(after=last)][1:]


def test_metrics_come_by_name(client, spec, worker):
    handle = client.submit(spec)
    assignment = worker.begin(handle.id)
    for step in (1, 2, 3, 4):
        worker.step(assignment, step)

    series = handle.metrics(["val/top1"], first_step=2)

    assert ["val/top1"] == list(series)
    assert (2, 3, 4) == series["val/top1"].steps
    assert (0.02, 0.03, 0.04) == series["val/top1"].values
    assert handle.metrics(["val/top1"]) == handle.metrics("val/top1")


def test_waiting_ends_with_its_time_and_the_job_goes_on(client, spec):
    handle = client.submit(spec)

    with pytest.raises(DeadlineExceededError, match="it goes on"):
        handle.wait(timeout=0.3)

    assert State.QUEUED == handle.job().state


def test_one_job_is_watched_without_a_list_by_its_handle_or_its_id(client, spec):
    handle = client.submit(spec)
    handle.cancel()

    for job in (handle, handle.id):
        assert {handle.id} == {event.job_id for event in client.watch(job)}


def test_a_client_in_a_notebook_says_whose_it_is(client):
    assert f"Client('{client.target}', project='default')" == repr(client)


def test_what_has_ended_cannot_be_cancelled(client, spec, worker):
    handle = client.submit(spec)
    worker.finish(worker.begin(handle.id))

    assert State.SUCCEEDED == handle.wait(timeout=10).state
    with pytest.raises(FailedPreconditionError):
        handle.cancel()


def test_a_job_is_paused_resumed_and_changed_while_it_waits(client, spec):
    handle = client.submit(replace(spec, labels={"team": "a"}))

    paused = [handle.pause("lunch").state, client.pause(handle.id).state]
    with pytest.raises(FailedPreconditionError, match="only a QUEUED job can be changed"):
        handle.update(priority=Priority.HIGH)
    resumed = [handle.resume().state, client.resume(handle.id).state]
    changed = handle.update(priority=Priority.HIGH, labels={"seed": "1"})

    assert [State.PAUSED] * 2 == paused
    assert [State.QUEUED] * 2 == resumed
    assert (Priority.HIGH, {"team": "a", "seed": "1"}) == (changed.spec.priority, changed.spec.labels)
    assert {"seed": "1"} == client.update(handle.id, labels={"team": ""}).spec.labels
    with pytest.raises(InvalidSpecError, match="set priority, labels or both"):
        handle.update()


def test_a_running_job_is_paused_when_its_work_is_saved_and_a_cancel_by_force_waits_for_nothing(client, spec, worker):
    handle = client.submit(spec)
    assignment = worker.begin(handle.id)

    assert State.PAUSING == handle.pause().state
    with pytest.raises(FailedPreconditionError, match="still saving its work"):
        handle.resume()
    assert State.CANCELLING == handle.cancel().state
    assert State.CANCELLED == client.cancel(handle.id, force=True).state
    with pytest.raises(StaleFenceError):
        worker.step(assignment, 1)


def test_a_machine_is_drained_and_takes_jobs_again(client, worker):
    worker.beat()

    drained = [client.drain("by-hand", finish=finish).state for finish in (True, False)]

    assert [NodeState.DRAINING] * 2 == drained
    assert [NodeState.READY] * 2 == [client.undrain("by-hand").state for _ in range(2)]
    with pytest.raises(NotFoundError, match="podium nodes"):
        client.drain("nobody")


def test_closing_the_client_ends_its_watches_with_a_sentence(server, spec):
    client = Client(server.target)
    watch = client.submit(spec).watch()
    next(watch)

    client.close()

    with pytest.raises(FailedPreconditionError, match="this client is closed"):
        list(watch)
    with pytest.raises(FailedPreconditionError, match="this client is closed"):
        client.server_info()


def test_connect_gives_up_on_a_server_that_does_not_come():
    with pytest.raises(DeadlineExceededError):
        Client.connect("127.0.0.1:1", wait=0.3)
