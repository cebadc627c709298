"""For whoever receives webhooks: whether a request is from the server that we share a secret with."""

import hmac
import time
from collections.abc import Mapping

from podium.jobs.errors import UnauthenticatedError
from podium.jobs.notices import Notice, from_json, signature


def verify_webhook(body: bytes, headers: Mapping[str, str], secret: str, *, tolerance: float = 300.0) -> Notice:
    """The notice in a webhook's request, once its signature and its time are found to be good.

    The same notice may come more than once, with the same `id`: the server repeats what was not answered, and whoever
    has overheard a request may send it again for as long as `tolerance` says. So keep the ids of what you have acted
    on, for two days, and answer 2xx to one that is known.

    >>> verify_webhook(b"{}", {"Podium-Timestamp": "0", "Podium-Signature": "v1=00"}, "of 16 characters or more")
    Traceback (most recent call last):
    podium.jobs.errors.UnauthenticatedError: the webhook's signature is not one of this secret

    Args:
        body: as it came, byte for byte; parsed and written again it has another signature.
        headers: of the request, in whatever case.
        secret: the line of the server's secret_file.
        tolerance: seconds that the clocks of both sides and the way may differ.

    Raises:
        UnauthenticatedError: it is not signed with the secret (reason WEBHOOK_SIGNATURE), or it is too old or from the
            future (WEBHOOK_TIMESTAMP).
        ValueError: it is signed, and yet no notice.
    """
    given = {name.lower(): value for name, value in headers.items()}
    timestamp, signatures = given.get("podium-timestamp", ""), given.get("podium-signature", "")
    right = b"v1=" + signature(secret.strip(), timestamp, body).encode()
    # Every one of them, in the same time whatever they are. During a rotation there are two.
    matches = [hmac.compare_digest(right, one.strip().encode()) for one in signatures.split(",", 8)]
    if not any(matches):
        raise UnauthenticatedError("the webhook's signature is not one of this secret", reason="WEBHOOK_SIGNATURE")
    # Signed, so it is a number.
    if abs(time.time() - int(timestamp)) > tolerance:
        raise UnauthenticatedError(
            f"the webhook was sent at {timestamp}, more than {tolerance:g} seconds from now: sent again by somebody "
            "else, or a clock is wrong",
            reason="WEBHOOK_TIMESTAMP",
        )
    return from_json(body)
