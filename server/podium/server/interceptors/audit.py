"""Notes in the audit trail what changed something, and who was refused."""

import re
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from urllib.parse import unquote

import grpc

from podium.jobs.audit import AuditEvent
from podium.jobs.store import utc_now
from podium.jobs.tokens import without_secrets
from podium.server.access import RULES, Facts, begin_facts
from podium.server.audit import AuditWriter
from podium.server.context import REQUEST_ID
from podium.server.interceptors._around import Around, Call
from podium.server.interceptors._outcome import outcome

_REFUSED = frozenset({grpc.StatusCode.UNAUTHENTICATED.name, grpc.StatusCode.PERMISSION_DENIED.name})
#: With any other status but these nothing was changed.
_DONE = frozenset({"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN", "INTERNAL"})
#: The longest that a target may be by the contract, which has not been checked yet where a call is refused.
_LONGEST = 253
_PROJECT = re.compile(r"[a-z0-9*-]{1,63}")


class AuditInterceptor(Around):
    """Stands outside of whatever may refuse a call, and never looks into a spec.

    Args:
        writer: takes the events.
    """

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer

    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Notes the call after its end."""
        return _Noted(self._writer, call)


class _Noted:
    # A class, not a generator: every call passes here, and this is a third of the time.

    def __init__(self, writer: AuditWriter, call: Call) -> None:
        self._writer = writer
        self._call = call

    async def __aenter__(self) -> None:
        self._known = begin_facts()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = outcome(self._call, error)
        if status in _REFUSED or (status in _DONE and _changes(self._call)):
            self._writer.record(_event(self._call, self._known, status))


def _changes(call: Call) -> bool:
    rule = RULES.get(call.method)
    return rule is not None and rule.changes and not getattr(call.request, "validate_only", False)


def _event(call: Call, known: Facts, status: str) -> AuditEvent:
    target = without_secrets(known.target[:_LONGEST]) if "podium_" in known.target else known.target[:_LONGEST]
    return AuditEvent(
        time=utc_now(),
        actor=known.caller.name,
        project=known.project if _PROJECT.fullmatch(known.project) else "",
        method=call.method,
        target=target,
        status=status,
        request_id=REQUEST_ID.get(),
        peer=unquote(call.context.peer()),
    )
