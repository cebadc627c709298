"""The rules of the contract, checked before anything is done."""

from podium.jobs.errors import InvalidSpecError
from podium.server.admission.rules import violations
from podium.server.interceptors._call import Call

#: Its admission checks the same rules together with what rules on fields cannot say, so that all is told at once.
_JUDGED_BY_ADMISSION = frozenset({"JobService/CreateJob"})


def refuse_invalid(call: Call) -> None:
    """Refuses a request that breaks a rule, naming every field that does.

    Raises:
        InvalidSpecError: it does.
    """
    if call.method not in _JUDGED_BY_ADMISSION and (found := violations(call.request)):
        raise InvalidSpecError(found)
