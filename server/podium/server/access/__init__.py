"""Who calls, what they may do, and how much of it: tokens, the table of rules, limits."""

from podium.server.access._caller import ANONYMOUS, Caller, Facts, begin_facts, facts
from podium.server.access._door import DEFAULT_PROJECT, Door, counted_as
from podium.server.access._keyring import Keyring, no_longer
from podium.server.access._limits import Buckets, Limits, counted, host_of
from podium.server.access._ownership import Ownership
from podium.server.access._rules import RULES, Of, Rule
from podium.server.access._settings import AccessSettings, access_from_environment

__all__ = [
    "ANONYMOUS",
    "AccessSettings",
    "Buckets",
    "Caller",
    "DEFAULT_PROJECT",
    "Door",
    "Facts",
    "Keyring",
    "Limits",
    "Of",
    "Ownership",
    "RULES",
    "Rule",
    "access_from_environment",
    "begin_facts",
    "counted",
    "counted_as",
    "facts",
    "host_of",
    "no_longer",
]
