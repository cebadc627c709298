"""The audit trail, page by page."""

from podium.jobs.audit import AuditEvent
from podium.jobs.errors import OutOfRangeError
from podium.jobs.store.redis import RedisAudit
from podium.server.services._paging import bad_token, make_token, read_token

DEFAULT_PAGE = 50
LARGEST_PAGE = 1000


class Trail:
    """The audit trail in the ledger. Blocks."""

    def __init__(self, trail: RedisAudit) -> None:
        self._trail = trail

    def page(self, *, project: str, target: str, page_size: int, page_token: str) -> tuple[list[AuditEvent], str]:
        """A page of the trail, newest first, and the token of the next page. It may be short before the end.

        Args:
            project: only what is about this one; empty: everything.
            target: only what was done to this; empty: to anything.
            page_size: 0: 50.
            page_token: empty: the first page.

        Raises:
            InvalidSpecError: the token is not of this list.
        """
        filters = (project, target)
        try:
            events, cursor = self._trail.page(
                lambda event: project in ("", event.project) and target in ("", event.target),
                before=read_token(page_token, filters),
                limit=min(page_size or DEFAULT_PAGE, LARGEST_PAGE),
            )
        except OutOfRangeError:
            raise bad_token("is not a token of this server") from None
        return events, make_token(cursor, filters)
