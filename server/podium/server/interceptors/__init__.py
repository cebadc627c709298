"""What happens around every call of the contract, in this order.

Request id first, because everything after it is logged with the id. Metering and tracing next, where they are on, and
the audit trail, because they tell what comes of everything within. Errors next, because everything inside may raise.
Then the deadline, so that all that follows is bounded; who calls and whether they may; then the rules of the contract.
"""

from podium.server.interceptors._around import Around
from podium.server.interceptors.access import AccessInterceptor
from podium.server.interceptors.audit import AuditInterceptor
from podium.server.interceptors.deadline import DeadlineInterceptor
from podium.server.interceptors.errors import ErrorInterceptor
from podium.server.interceptors.metering import MeteringInterceptor
from podium.server.interceptors.request_id import RequestIdInterceptor
from podium.server.interceptors.tracing import TracingInterceptor
from podium.server.interceptors.validation import ValidationInterceptor

__all__ = [
    "Around",
    "AccessInterceptor",
    "AuditInterceptor",
    "DeadlineInterceptor",
    "ErrorInterceptor",
    "MeteringInterceptor",
    "RequestIdInterceptor",
    "TracingInterceptor",
    "ValidationInterceptor",
]
