"""Which receivers there are, from the file PODIUM_WEBHOOKS."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from podium.jobs.notices import EVENTS, Notice

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KEYS = {"name", "url", "secret_file", "projects", "events"}
#: HMAC-SHA256 is as strong as its secret; shorter ones can be tried out by whoever has one signed body.
_SHORTEST_SECRET = 16


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One receiver."""

    name: str
    """Also that of its bookmark in the ledger."""
    url: str
    secret_file: Path
    """One secret a line: the first signs, and while receivers change over, a second one as well."""
    projects: frozenset[str] = frozenset()
    """Empty: all."""
    events: frozenset[str] = frozenset(EVENTS)

    def wants(self, notice: Notice) -> bool:
        """Whether it is to be told."""
        return notice.event in self.events and (not self.projects or notice.project in self.projects)

    def secrets(self) -> tuple[str, ...]:
        """Read again for every delivery, so that a rotation needs no restart.

        Raises:
            ValueError: the file has none, or too short a one; names it and the remedy.
        """
        try:
            lines = self.secret_file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the secret_file {self.secret_file} of {self.name} cannot be read: {error}") from error
        if not 1 <= len(lines) <= 2 or min(map(len, lines)) < _SHORTEST_SECRET:
            raise ValueError(
                f"the secret_file {self.secret_file} of {self.name} is to hold one secret of {_SHORTEST_SECRET} "
                "characters or more, or two, each on its line; `openssl rand -hex 32` makes one"
            )
        return tuple(lines)


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """All receivers."""

    webhooks: tuple[Webhook, ...] = ()
    allow_private: bool = False
    """PODIUM_WEBHOOKS_ALLOW_PRIVATE: receivers may have private addresses, and do without TLS."""


def webhooks_from_environment(environ: Mapping[str, str] = os.environ) -> WebhookSettings:
    """The receivers of the file PODIUM_WEBHOOKS.

    Raises:
        ValueError: the file is not what it is to be; names the entry, the field and the remedy.
    """
    allowed = environ.get("PODIUM_WEBHOOKS_ALLOW_PRIVATE", "")
    if allowed not in ("", "0", "1"):
        raise ValueError(f"PODIUM_WEBHOOKS_ALLOW_PRIVATE={allowed!r} is neither 0 nor 1")
    path = environ.get("PODIUM_WEBHOOKS", "")
    if not path:
        return WebhookSettings()
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"PODIUM_WEBHOOKS {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        # Its own words quote the file, where a URL may be as good as a password.
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"PODIUM_WEBHOOKS {path} is no YAML{f', line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"PODIUM_WEBHOOKS {path} is to be a list of receivers, each with name, url and secret_file")
    try:
        webhooks = tuple(_webhook(number, entry, allowed == "1") for number, entry in enumerate(entries, start=1))
    except ValueError as error:
        raise ValueError(f"PODIUM_WEBHOOKS {path}: {error}") from error
    if len({webhook.name for webhook in webhooks}) < len(webhooks):
        raise ValueError(f"PODIUM_WEBHOOKS {path}: two receivers have one name; each keeps its own place by it")
    return WebhookSettings(webhooks=webhooks, allow_private=allowed == "1")


def _webhook(number: int, entry: Any, allow_private: bool) -> Webhook:
    if not isinstance(entry, dict) or not {"name", "url", "secret_file"} <= entry.keys() <= _KEYS:
        raise ValueError(f"entry {number} is to have name, url, secret_file and, if you like, projects and events")
    name, url, secret_file = (_text(number, entry, key) for key in ("name", "url", "secret_file"))
    if not _NAME.fullmatch(name):
        raise ValueError(f"entry {number}: the name {name!r} is to be of small letters, digits and -, at most 63")
    if problem := _problem(url, allow_private):
        raise ValueError(f"the url of {name} {problem}")
    events = _texts(number, entry, "events") if "events" in entry else frozenset(EVENTS)
    if not events or not events <= set(EVENTS):
        raise ValueError(f"the events of {name} are to be some of {', '.join(EVENTS)}")
    projects = _texts(number, entry, "projects")
    webhook = Webhook(name=name, url=url, secret_file=Path(secret_file), projects=projects, events=events)
    webhook.secrets()
    return webhook


def _text(number: int, entry: Mapping[str, Any], key: str) -> str:
    if not isinstance(value := entry[key], str) or not value:
        raise ValueError(f"entry {number}: {key} is to be text")
    return value


def _texts(number: int, entry: Mapping[str, Any], key: str) -> frozenset[str]:
    values = entry.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        example = "FAILED" if key == "events" else "vision"
        raise ValueError(f"entry {number}: {key} is to be a list of names, such as [{example}]")
    return frozenset(values)


def _problem(url: str, allow_private: bool) -> str | None:
    """What is wrong with an address; without the address itself, which may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is no URL"
    if not url.isascii() or not url.isprintable() or " " in url or not parts.hostname or parts.fragment:
        return "is to be like https://hooks.example.com/podium, in ASCII and without a fragment"
    if parts.username is not None or parts.password is not None:
        return "names a user or a password; the signature says who we are"
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        return "is not https://; without TLS only with PODIUM_WEBHOOKS_ALLOW_PRIVATE=1"
    return None
