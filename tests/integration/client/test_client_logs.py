import json

import pytest

from podium.client import Level, OutOfRangeError
from tests.integration.client.test_client_command import output


def test_the_log_is_read_filtered_and_gone_on_with(write):
    write("one")
    write("two", rank=1, level=Level.WARNING)
    write("three", "four", level=Level.ERROR)
    log = write.job.logs()

    assert ["one", "two", "three", "four"] == [line.text for line in log]
    assert 4 == log.offset
    assert ["two"] == [line.text for line in write.job.logs(rank=1)]
    assert [("three", 1), ("four", 1)] == [(line.text, line.attempt) for line in write.job.logs(min_level=Level.ERROR)]
    assert [] == list(write.job.logs(attempt=2))
    write("five")
    assert ["five"] == [line.text for line in write.job.logs(offset=log.offset)]
    with pytest.raises(OutOfRangeError):
        list(write.job.logs(offset=6))


def test_the_command_prints_the_log_and_goes_on_at_an_offset(write, podium, say):
    write("of rank 2", rank=2, level=Level.WARNING)
    write("plain", "\x1b[31mred")
    job = write.job.id

    red = "plain\n\N{REPLACEMENT CHARACTER}[31mred\n"
    assert f"WARNING rank 2: of rank 2\n{red}" == say(0, "logs", job)
    assert red == say(0, "logs", job, "--offset", "1")
    line = json.loads(say(0, "logs", job, "--level", "warning", "--rank", "2", "--attempt", "1", "--json"))
    assert ("of rank 2", 2, 1, "LEVEL_WARNING") == (line["text"], line["rank"], line["attempt"], line["level"])
    assert "kept are 0 to 3" in say(1, "logs", job, "--offset", "4")
    follower = podium("logs", job, "-f")
    write("last")
    write.finish()
    assert output(follower).endswith("last\n")


def test_jobs_that_have_ended_are_deleted_by_name_and_by_filter(client, spec, say):
    old = [client.submit(spec) for _ in range(3)]
    queued = client.submit(spec)
    for handle in (*old, queued):
        handle.update(labels={"team": "vision"})
    for handle in old:
        handle.cancel()

    assert "say --yes" in say(2, "rm", old[0].id)
    assert "Name the jobs" in say(2, "rm", "--yes")
    assert "is QUEUED; cancel it" in say(1, "rm", "-y", queued.id)
    assert "Deleted 1 job.\n" == say(0, "rm", "--yes", old[0].id)
    assert "there is no job" in say(5, "rm", "--yes", old[0].id)
    printed = say(0, "rm", "--filter", "labels.team = vision", "--yes", "--json")
    assert {old[1].id, old[2].id} == set(json.loads(printed)["deleted"])
    assert [queued.id] == [job.id for job in client.list()]
    assert "Deleted 0 jobs.\n" == say(0, "rm", "--filter", "labels.team = vision", "--yes")
