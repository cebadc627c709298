"""Page tokens: opaque, and good for the list that they were made for only."""

import base64
import binascii
import hashlib
import json

from podium.jobs.errors import FieldViolation, InvalidSpecError


def make_token(cursor: str, filters: object) -> str:
    """The token for the page after `cursor` of the list with these filters; empty at the end."""
    if not cursor:
        return ""
    return base64.urlsafe_b64encode(json.dumps([cursor, _digest(filters)]).encode()).decode()


def read_token(token: str, filters: object) -> str:
    """The cursor in a token; empty for the first page.

    Raises:
        InvalidSpecError: it is no token of ours, or of a list with other filters.
    """
    if not token:
        return ""
    try:
        cursor, digest = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise bad_token("is not a token of this server") from None
    if digest != _digest(filters) or not isinstance(cursor, str):
        raise bad_token("belongs to a list that was asked for otherwise")
    return cursor


def bad_token(what: str) -> InvalidSpecError:
    """The error about a page token."""
    return InvalidSpecError(
        [FieldViolation(field="page_token", description=f"{what}; leave it empty to begin with the first page")]
    )


def _digest(filters: object) -> str:
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:16]
