"""A program's log, as whoever collects it reads it."""

import json
import logging
import re
import subprocess
import sys
from datetime import datetime

import pytest

from podium.jobs import logs

SPEAKER = """
import logging, sys
from podium.jobs import logs
logs.configure("%(asctime)s %(levelname)s job=%(job_id)s %(message)s", lambda: {"job_id": sys.argv[1], "attempt": 0})
log = logging.getLogger("podium.test")
log.info("read %s, with a name of\\nthree lines\\n", "caf\\udce9.png")
log.debug("dropped")
if sys.argv[1] == "job-again":
    log.warning("Redis is away")
    log.warning("Redis is away")
try:
    raise LookupError("nothing there")
except LookupError:
    log.exception("it failed")
"""


def said(form: str, job_id: str) -> list[str]:
    """The lines that a program writes."""
    run = subprocess.run(
        [sys.executable, "-c", SPEAKER, job_id],
        env={"PODIUM_LOG_FORMAT": form, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return run.stderr.splitlines()


def test_json_is_one_object_a_line_whatever_is_said():
    first, second = map(json.loads, said("json", "job-1"))

    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    message = "read caf\udce9.png, with a name of\nthree lines\n"
    assert {"level": "info", "logger": "podium.test", "message": message, "job_id": "job-1"} == first
    assert ("error", "it failed") == (second["level"], second["message"])
    assert second["exception"].endswith("LookupError: nothing there")


@pytest.mark.parametrize(("form", "start"), [("text", "INFO job=- read"), ("", "INFO job=- read")])
def test_text_is_as_its_form_says_with_a_dash_for_what_is_not_known(form, start):
    time, _, rest = said(form, "")[0].partition(" INFO")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", time)
    assert f"INFO{rest}".startswith(start)


def test_a_warning_that_comes_again_and_again_is_written_once_a_minute_and_a_new_row_at_once():
    seldom = logs._Seldom()

    def written(seconds: float, message: str = "Redis is away", level: int = logging.WARNING) -> bool:
        record = logging.LogRecord("podium.test", level, "", 0, message, None, None)
        record.created = 1_000_000 + seconds
        return seldom.filter(record)

    assert [0, 60, 120] == [second for second in range(0, 130, 2) if written(second)]
    assert written(1, "another")
    assert written(140)
    assert all(written(second, level=logging.ERROR) for second in (140, 141))


def test_a_programs_log_leaves_out_what_repeats_itself():
    lines = said("text", "job-again")

    assert 1 == sum("Redis is away" in line for line in lines)


def test_what_is_remembered_of_warnings_is_bounded():
    seldom = logs._Seldom()
    for number in range(3 * logs._ROWS):
        record = logging.LogRecord("podium.test", logging.WARNING, "", 0, f"job {number}", None, None)
        assert seldom.filter(record)

    assert len(seldom._rows) <= logs._ROWS


def test_each_line_has_its_own_second():
    before, after = (datetime(2026, 1, 2, 3, 4, second).timestamp() for second in (59, 58))
    form = logs._Text("%(asctime)s", dict)
    records = [logging.makeLogRecord({"created": at, "msecs": 7.9}) for at in (before, before, after)]

    assert ["2026-01-02 03:04:59,007"] * 2 + ["2026-01-02 03:04:58,007"] == list(map(form.format, records))


def test_a_format_that_is_none_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"PODIUM_LOG_FORMAT='xml': write text or json"):
        logs.configure("", dict, environ={"PODIUM_LOG_FORMAT": "xml"})
