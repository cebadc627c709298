"""What happens around every call of the contract, in this order.

Request id first, because everything after it is logged with the id. Metering and tracing next, where they are on, and
the audit trail, because they tell what comes of everything within. Errors next, because everything inside may raise.
Then the deadline, so that all that follows is bounded; who calls and whether they may; then the rules of the contract.
"""

from podium.server.interceptors._call import Observer
from podium.server.interceptors.access import Access
from podium.server.interceptors.audit import Audit
from podium.server.interceptors.chain import Chain
from podium.server.interceptors.metering import Metering
from podium.server.interceptors.request_id import RequestIds
from podium.server.interceptors.tracing import Tracing

__all__ = ["Access", "Audit", "Chain", "Metering", "Observer", "RequestIds", "Tracing"]
