import io
import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from podium.client import ImageFolder, State, dump_spec, load_spec
from podium.client.cli import cli
from podium.client.cli._exit import run
from podium.client.cli.jobs import ls


@pytest.fixture
def job_yaml(tmp_path, spec):
    file = tmp_path / "job.yaml"
    file.write_text(dump_spec(spec))
    return str(file)


def output(process, code: int = 0):
    out, err = process.communicate(timeout=60)
    assert code == process.returncode, err
    return out


def test_submit_ls_show_and_cancel(podium, job_yaml, say):
    job_id = output(podium("submit", job_yaml)).strip()

    assert job_id in say(0, "ls")
    assert [job_id] == [job["id"] for job in json.loads(say(0, "ls", "--json"))]
    assert job_id in say(0, "ls", "--oldest-first", "--filter", "state != FAILED AND dataset = image_folder")
    shown = json.loads(say(0, "show", job_id, "--json"))
    assert ("STATE_QUEUED", {"1": 0.5, "3": 0.5}) == (shown["state"], shown["spec"]["k"])
    assert "tf_efficientnet_lite0" in say(0, "show", job_id)
    assert "CANCELLED" in say(0, "cancel", job_id)
    assert "CANCELLED" in output(podium("watch", job_id), code=3)


def test_validate_only_prints_the_resolved_spec_and_queues_nothing(job_yaml, client, say):
    printed = say(0, "submit", job_yaml, "--validate-only")

    assert "image_size: 224" in printed
    assert [] == list(client.list())


def test_a_wrong_spec_is_told_field_by_field_with_exit_code_2(podium, job_yaml, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    text = Path(job_yaml).read_text().replace("temperature: 1.0", "temperature: -1").replace("1: 0.5", "1: 0.4")
    wrong.write_text(text)

    process = podium("submit", str(wrong))
    _, err = process.communicate(timeout=60)

    assert 2 == process.returncode
    assert "spec.subset.temperature: " in err
    assert "spec.k: " in err
    assert "Traceback" not in err


def test_a_value_that_cannot_be_read_is_told_together_with_what_the_server_finds_in_the_rest(
    podium, job_yaml, tmp_path
):
    wrong = tmp_path / "wrong.yaml"
    text = Path(job_yaml).read_text().replace("temperature: 1.0", "temperature: 1e400").replace("1: 0.5", "1: 0.4")
    wrong.write_text(text.replace("batch_size: ", "batch_size: -").replace("priority: normal", "priority: top"))

    process = podium("submit", str(wrong))
    _, err = process.communicate(timeout=60)

    assert 2 == process.returncode
    told = {line.partition(": ")[0] for line in err.splitlines()}
    assert {"spec.batch_size", "spec.k", "spec.priority", "spec.subset.temperature"} == told


def test_what_cannot_be_read_as_a_job_is_wrong_usage_wherever_it_comes_from(say, tmp_path, monkeypatch):
    assert f"{tmp_path}: Is a directory\n" == say(2, "submit", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"display_name: Gr\xfcn"), errors="surrogateescape"))
    assert "standard input is not UTF-8 text" in say(2, "submit", "-")


def test_an_unknown_job_is_exit_code_5(podium):
    assert "" == output(podium("show", "job-0000000000000000"), code=5)


def test_ctrl_c_leaves_the_job_running_and_watching_again_goes_on_there(podium, client, spec, worker, say):
    handle = client.submit(spec)
    assignment = worker.begin(handle.id)
    worker.step(assignment, 1)
    first = podium("watch", handle.id, "--json")
    seen = [json.loads(first.stdout.readline()) for _ in range(1 + handle.job().sequence)]

    first.send_signal(signal.SIGINT)
    rest, err = first.communicate(timeout=20)

    assert 130 == first.returncode
    assert f"podium watch {handle.id}" in err
    assert State.RUNNING == handle.job().state

    worker.step(assignment, 2)
    worker.finish(assignment)
    seen += [json.loads(line) for line in rest.splitlines()]
    again = [json.loads(line) for line in say(0, "watch", handle.id, "--json").splitlines()]

    history = [event["sequence"] for event in seen + again if "snapshot" not in event]
    assert list(range(1, handle.job().sequence + 1)) == history


def test_following_ends_with_the_jobs_outcome_and_plain_lines(podium, client, job_yaml, worker):
    process = podium("submit", job_yaml, "--follow")
    job_id = process.stderr.readline().split()[1].rstrip(".")
    assignment = worker.begin(job_id)
    worker.step(assignment, 1)
    worker.finish(assignment, State.FAILED)

    printed = output(process, code=1)

    assert "step 1 val: top1 1.0 %, top5 2.0 %" in printed
    assert "step 1 done" in printed
    assert f"{job_id} FAILED." in printed
    assert "\x1b" not in printed


def test_a_waiting_job_is_paused_resumed_and_changed(client, spec, say):
    handle = client.submit(spec)

    paused = say(0, "pause", handle.id, "--reason", "lunch")
    resumed = say(0, "resume", handle.id)
    changed = json.loads(say(0, "update", handle.id, "--priority", "high", "--label", "team=a", "--json"))

    assert f"{handle.id} PAUSED: lunch; `podium resume {handle.id}` lets it go on\n" == paused
    assert resumed.startswith(f"{handle.id} QUEUED: no worker in pool default")
    assert ("PRIORITY_HIGH", {"team": "a"}) == (changed["spec"]["priority"], changed["spec"]["labels"])
    assert {} == json.loads(say(0, "update", handle.id, "--label", "team=", "--json"))["spec"]["labels"]


def test_who_follows_a_job_is_told_that_it_is_paused_and_waits_on(podium, client, spec, worker, say):
    handle = client.submit(spec)
    assignment = worker.begin(handle.id)
    process = podium("watch", handle.id)

    say(0, "pause", handle.id)
    worker.give_back(assignment, "paused after step 0")
    seen = next(line for line in process.stdout if "now PAUSED" in line)
    say(0, "cancel", handle.id)

    assert f"now PAUSED: paused after step 0; `podium resume {handle.id}` lets it go on" in seen
    assert f"{handle.id} CANCELLED." in output(process, code=3)


def test_a_cancel_by_force_waits_for_no_attempt(client, spec, worker, say):
    handle = client.submit(spec)
    worker.begin(handle.id)

    assert f"{handle.id} CANCELLING: it saves its work first\n" == say(0, "cancel", handle.id)
    assert f"{handle.id} CANCELLED: enough\n" == say(0, "cancel", handle.id, "--force", "--reason", "enough")


def test_a_machine_is_drained_and_taken_back(podium, client, spec, worker, say):
    handle = client.submit(spec)
    worker.begin(handle.id)

    assert f"by-hand DRAINING: drained by request; it runs {handle.id}\n" == say(0, "drain", "by-hand")
    assert "takes no jobs: drained by request" in say(0, "nodes", "--pool", "default")
    assert f"by-hand READY; it runs {handle.id}\n" == say(0, "undrain", "by-hand")
    assert "" == output(podium("drain", "nobody"), code=5)


def test_metrics_as_csv_and_nodes_and_backbones(client, spec, worker, say):
    handle = client.submit(spec)
    assignment = worker.begin(handle.id)
    worker.step(assignment, 1)
    worker.step(assignment, 2)

    assert "name,step,value\nval/top1,1,0.01\nval/top1,2,0.02\n" == say(
        0, "metrics", handle.id, "--name", "val/top1", "--csv"
    )
    assert "val/top5" in say(0, "metrics", handle.id)
    [series] = json.loads(say(0, "metrics", handle.id, "--name", "val/top1", "--json")).values()
    assert {"name": "val/top1", "steps": [1, 2], "values": [0.01, 0.02]} == series
    assert handle.id in say(0, "nodes")
    assert "tf_efficientnet_lite0" in say(0, "backbones", "lite0")


def test_a_metric_that_a_job_does_not_have_is_told_with_those_that_it_has(client, spec, worker, say, capsys):
    handle = client.submit(spec)
    say(0, "ls")
    assert 0 == run(cli, ["metrics", handle.id, "--name", "val/top7"])
    assert "No metrics yet.\n" == capsys.readouterr().err
    worker.step(worker.begin(handle.id), 1)

    assert 0 == run(cli, ["metrics", handle.id, "--name", "val/top1", "--name", "val/top7", "--csv"])

    told = capsys.readouterr()
    assert "name,step,value\nval/top1,1,0.01\n" == told.out
    assert told.err.startswith(f"{handle.id} has no metric val/top7; it has: ")
    assert "val/top1" in told.err


def test_a_list_that_was_cut_short_unasked_says_so(client, spec, say, capsys, monkeypatch):
    for epochs in (1, 2):
        client.submit(replace(spec, epochs=epochs))
    [limit] = [option for option in ls.params if option.name == "limit"]
    assert 50 == limit.default

    def said(*arguments: str) -> str:
        say(0, "info")
        assert 0 == run(cli, ["ls", "--json", *arguments])
        return str(capsys.readouterr().err)

    monkeypatch.setattr(limit, "default", 1)
    assert "There are more than these 1; --limit says how many to list.\n" == said()
    assert "" == said("--limit", "1")
    monkeypatch.setattr(limit, "default", 2)
    assert "" == said()


def test_a_line_of_datasets_can_stand_in_a_job(images, client, tmp_path, say):
    line = say(0, "datasets", images.name.upper())
    job = tmp_path / "job.yaml"
    job.write_text(f"backbone: resnet18\nfull: {{}}\n{line}soft_sort: {{}}\n")

    assert 1 == len(line.splitlines())
    assert ImageFolder(train=f"{images}/train", test=f"{images}/test") == load_spec(job).dataset
    assert client.validate(load_spec(job)).epochs
    assert json.loads(say(0, "datasets", "--json"))["truncated"] is False


def test_info_names_the_limits_and_where_images_may_lie(images, say):
    told = say(0, "info")

    assert str(images) in told
    assert "max watched jobs" in told


def test_the_schema_is_written_for_an_editor(tmp_path, say):
    said = say(0, "schema", "--output", str(tmp_path / "job.schema.json"))

    assert "# yaml-language-server: $schema=job.schema.json" in said
    assert "odd_even" in json.loads((tmp_path / "job.schema.json").read_text())["properties"]


def test_sorters_are_listed_with_what_they_take(say):
    listed = say(0, "sorters")

    for told in (
        "odd_even",
        "steepness = 2 (at least 1e-06, at most 1000000)",
        "distribution = cauchy",
        "A baseline. The smooth top-k support",
    ):
        assert told in listed


def test_one_sorter_is_told_in_full_and_as_json(say):
    shown = say(0, "sorters", "sparse")
    document = json.loads(say(0, "sorters", "sparse", "--json"))

    for told in (
        "Sander",
        "fourteen Newton steps",
        "no gradient",
        "a number above 1, at most 2",
        "sparse: {p: 1.33333",
    ):
        assert told in shown
    assert (1, None, 4 / 3) == tuple(document["parameters"][0][name] for name in ("above", "at_least", "default"))


def test_a_sorter_that_is_none_is_said_with_the_nearest(podium):
    process = podium("sorters", "spars")
    _, err = process.communicate(timeout=60)

    assert 2 == process.returncode
    assert "'spars' is no sorter; did you mean sparse?" in err


def test_several_jobs_are_followed_at_once_each_line_with_its_job_and_the_worst_is_the_exit_code(
    podium, client, spec, worker
):
    first, second = client.submit(spec), client.submit(spec)
    both = podium("watch", first.id, second.id)
    as_json = podium("watch", "--json", first.id, second.id)
    assignment = worker.begin(first.id)
    worker.step(assignment, 1)
    worker.finish(assignment)
    second.cancel()

    lines = output(both, code=3).splitlines()

    assert any(line.startswith(first.id) and line.endswith("step 1 done") for line in lines)
    assert [f"{first.id} SUCCEEDED", f"{second.id} CANCELLED"] == lines[-2:]
    events = [json.loads(line) for line in output(as_json, code=3).splitlines()]
    told = [event["sequence"] for event in events if event["job_id"] == first.id]
    assert [0, *range(1, first.job().sequence + 1)] == told
    assert "one job's events" in podium("watch", "--after", "1", first.id, second.id).communicate(timeout=60)[1]
