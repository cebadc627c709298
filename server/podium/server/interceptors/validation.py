"""The rules of the contract, checked before anything is done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from podium.jobs.errors import InvalidSpecError
from podium.server.admission.rules import violations
from podium.server.interceptors._around import Around, Call

#: Its admission checks the same rules together with what rules on fields cannot say, so that all is told at once.
_JUDGED_BY_ADMISSION = frozenset({"JobService/CreateJob"})


class ValidationInterceptor(Around):
    """Refuses a request that breaks a rule, naming every field that does."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Checks the request."""
        if call.method not in _JUDGED_BY_ADMISSION and (found := violations(call.request)):
            raise InvalidSpecError(found)
        yield
