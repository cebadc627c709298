"""The log of a program on stderr: lines of text, or one JSON object a line where PODIUM_LOG_FORMAT asks for it."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

#: "text", which is the default, or "json".
FORMAT = "PODIUM_LOG_FORMAT"
#: Seconds: a warning that comes again within the first belongs to the same row, of which one is written in the second.
_ROW, _ROW_EVERY = 10.0, 60.0
_ROWS = 1_000


def configure(
    text: str,
    about: Callable[[], Mapping[str, object]],
    *,
    level: str = "info",
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Sends the log of this process to stderr.

    Args:
        text: the form of a line of text, in logging's % style; it may name what `about` returns.
        about: what the thread or task that writes a line is at, such as {"job_id": "job-…"}; empty values are "-" in
            text and left out of JSON.
        level: lines below it are dropped.
        environ: where the format is.

    Raises:
        ValueError: PODIUM_LOG_FORMAT is neither.
    """
    form = environ.get(FORMAT) or "text"
    if form not in ("text", "json"):
        raise ValueError(f"{FORMAT}={form!r}: write text or json")
    # As logging's own guide has it: no form of ours names who wrote a line, and to find out takes a third of its time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = logging.StreamHandler()
    handler.addFilter(_Seldom())
    handler.setFormatter(_Json(about) if form == "json" else _Text(text, about))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Seldom(logging.Filter):
    """Of a warning that comes again and again, as from each loop that finds Redis away, lets one through a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[tuple[str, str], tuple[float, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        row, now = (record.name, record.getMessage()), record.created
        last, written = self._rows.get(row, (float("-inf"), float("-inf")))
        repeats = now - last < _ROW and now - written < _ROW_EVERY
        if row not in self._rows and len(self._rows) >= _ROWS:
            self._rows.clear()
        self._rows[row] = (now, written if repeats else now)
        return not repeats


class _Text(logging.Formatter):
    def __init__(self, form: str, about: Callable[[], Mapping[str, object]]) -> None:
        super().__init__(form)
        self._about = about
        self._second, self._said = 0, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        if (second := int(record.created)) != self._second:
            self._said = time.strftime(self.default_time_format, time.localtime(second))
            self._second = second
        return f"{self._said},{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        for name, value in self._about().items():
            setattr(record, name, value or "-")
        return super().format(record)


class _Json(logging.Formatter):
    def __init__(self, about: Callable[[], Mapping[str, object]]) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in self._about().items() if value},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # In ASCII: names of files need not be UTF-8, and a log must be.
        return json.dumps(line)
