"""Notes in the audit trail what changed something, and who was refused."""

import re
from urllib.parse import unquote

import grpc

from podium.jobs.audit import AuditEvent
from podium.jobs.store import utc_now
from podium.jobs.tokens import without_secrets
from podium.server import meters
from podium.server.access import RULES, Buckets, Facts, begin_facts, counted_as
from podium.server.audit import AuditWriter
from podium.server.context import in_hand
from podium.server.interceptors._call import Call, Observer

_REFUSED = frozenset({grpc.StatusCode.UNAUTHENTICATED.name, grpc.StatusCode.PERMISSION_DENIED.name})
#: With any other status but these nothing was changed.
_DONE = frozenset({"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN", "INTERNAL"})
#: The longest that a target may be by the contract, which has not been checked yet where a call is refused.
_LONGEST = 253
#: Refusals that are noted, a minute: of one caller, and of all of them at this server. With no end to them whoever is
#: refused could push out of the trail what others did, and it keeps as many events as it keeps.
_OF_ONE, _OF_ALL, _MINUTE = 10, 60, 60.0
_PROJECT = re.compile(r"[a-z0-9*-]{1,63}")


class Audit(Observer):
    """Stands outside of whatever may refuse a call, and never looks into a spec.

    Args:
        writer: takes the events.
    """

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer
        self._of_one = Buckets(_OF_ONE / _MINUTE, burst=_MINUTE)
        self._of_all = Buckets(_OF_ALL / _MINUTE, burst=_MINUTE)

    def before(self, call: Call) -> Facts:
        """Has what happens within note what it learns."""
        return begin_facts()

    def after(self, call: Call, kept: Facts, status: str) -> None:
        """Notes the call, where it is to be."""
        if status in _REFUSED:
            if self._of_one.take(counted_as(kept.caller, call.context)) or self._of_all.take(""):
                meters.AUDIT_LEFT_OUT.inc()
                return
        elif not (status in _DONE and _changes(call)):
            return
        self._writer.record(_event(call, kept, status))


def _changes(call: Call) -> bool:
    rule = RULES.get(call.method)
    return rule is not None and rule.changes and not getattr(call.request, "validate_only", False)


def _event(call: Call, known: Facts, status: str) -> AuditEvent:
    return AuditEvent(
        time=utc_now(),
        actor=known.ended or known.caller.name,
        project=known.project if _PROJECT.fullmatch(known.project) else "",
        method=call.method,
        target=without_secrets(known.target)[:_LONGEST],
        status=status,
        request_id=in_hand().request_id,
        peer=unquote(call.context.peer()),
    )
