"""Brings notices to one receiver: in order for each job, at least once, for a day."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from podium.jobs.notices import Notice, signature, to_json
from podium.jobs.store import Bookmark, JobStore
from podium.server.meters import WEBHOOK_TRIES, WEBHOOK_WAITING
from podium.server.webhooks._post import Undelivered
from podium.server.webhooks._settings import Webhook

_LOG = logging.getLogger(__name__)
#: So many notices wait here for a receiver that does not take them; the others wait in the ledger, while it keeps them.
_AT_HAND = 1_000
_PAGE = 100
_A_DAY = 86_400.0
#: Seconds before the second try; each further one waits twice as long, up to the longest.
FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 600.0
#: What a try comes to.
_OUTCOMES = ("delivered", "failed", "given_up")
#: Seconds between looks for new notices.
LOOK_EVERY = 1.0
_LOST = "webhook %s: notices may be lost, as the ledger keeps only the last ones; its receiver was away for too long"

Post = Callable[[str, bytes, Mapping[str, str]], None]
"""Sends a body to a URL with headers; raises Undelivered."""


@dataclass(kw_only=True)
class _Letter:
    """A notice under way."""

    place: str
    notice: Notice
    tries: int = 0
    due: float = 0.0


class Courier:
    """One receiver's. For one thread; the ledger keeps how far it is.

    Args:
        webhook: the receiver.
        store: the ledger.
        post: sends.
        first_pause: seconds before a second try.
        clock: the time in seconds since 1970.
    """

    def __init__(
        self,
        webhook: Webhook,
        store: JobStore,
        post: Post,
        *,
        first_pause: float = FIRST_PAUSE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._webhook = webhook
        self._store = store
        self._post = post
        self._first_pause = first_pause
        self._clock = clock
        self._agent = f"podium/{version('podium')}"
        for outcome in _OUTCOMES:
            # From nought: what Prometheus first sees as 1 has never risen for it, and no rule would tell of it.
            WEBHOOK_TRIES.labels(webhook=webhook.name, outcome=outcome)
        self.forget()

    def forget(self) -> None:
        """Knows nothing any more: somebody else may have delivered meanwhile."""
        self._kept: Bookmark | None = None
        self._after = ""
        self._letters: dict[str, _Letter] = {}
        self._failures = 0
        self._paused_until = 0.0
        self._count_waiting()

    def step(self) -> float:
        """Takes up what is new and tries one delivery; how long it may rest now, in seconds.

        Raises:
            UnavailableError: the ledger cannot be reached. Nothing is lost: what may not be settled is done again.
        """
        if self._kept is None:
            self._take_over()
        self._take_up()
        self._keep()
        if (letter := self._next()) is None:
            return LOOK_EVERY
        if (rest := max(letter.due, self._paused_until) - self._clock()) > 0:
            return min(rest, LOOK_EVERY)
        self._deliver(letter)
        self._keep()
        return 0.0

    def _take_over(self) -> None:
        """Goes on where whoever did this before has left off; a new receiver is told of what happens from now on."""
        bookmark = self._store.bookmark(self._webhook.name)
        if bookmark is None:
            bookmark = Bookmark(after=self._store.last_notice())
            self._store.write_bookmark(self._webhook.name, bookmark)
        left = self._store.notices_at(bookmark.open)
        if len(left) < len(bookmark.open):
            _LOG.warning(_LOST, self._webhook.name)
        self._letters = {place: _Letter(place=place, notice=notice) for place, notice in left}
        self._after, self._kept = bookmark.after, bookmark

    def _take_up(self) -> None:
        while len(self._letters) < _AT_HAND:
            page = self._store.notices(after=self._after, limit=_PAGE)
            if page and self._after and not self._store.notices_at([self._after]):
                _LOG.warning(_LOST, self._webhook.name)
            for place, notice in page:
                self._after = place
                if self._webhook.wants(notice):
                    self._letters[place] = _Letter(place=place, notice=notice, due=self._clock())
            if len(page) < _PAGE:
                return

    def _keep(self) -> None:
        bookmark = Bookmark(after=self._after, open=frozenset(self._letters))
        if bookmark != self._kept:
            self._store.write_bookmark(self._webhook.name, bookmark)
            self._kept = bookmark
        self._count_waiting()

    def _next(self) -> _Letter | None:
        """The one that is due first, of each job only the oldest: one that is refused holds up no other job."""
        oldest: dict[str, _Letter] = {}
        for letter in self._letters.values():
            oldest.setdefault(letter.notice.job_id, letter)
        return min(oldest.values(), key=lambda letter: letter.due, default=None)

    def _deliver(self, letter: _Letter) -> None:
        letter.tries += 1
        try:
            self._send(letter.notice)
        except (Undelivered, ValueError) as error:
            self._failed(letter, error)
            return
        self._failures, self._paused_until = 0, 0.0
        del self._letters[letter.place]
        self._counted("delivered")

    def _send(self, notice: Notice) -> None:
        body, now = to_json(notice), str(int(self._clock()))
        signatures = (f"v1={signature(secret, now, body)}" for secret in self._webhook.secrets())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "Podium-Event-Id": notice.id,
            "Podium-Timestamp": now,
            "Podium-Signature": ",".join(signatures),
        }
        self._post(self._webhook.url, body, headers)

    def _failed(self, letter: _Letter, error: Exception) -> None:
        name, now = self._webhook.name, self._clock()
        if now - letter.notice.time.timestamp() > _A_DAY:
            _LOG.error("webhook %s: %s is given up after a day: %s", name, letter.notice.id, error)
            del self._letters[letter.place]
            self._counted("given_up")
            return
        letter.due = now + self._pause(letter.tries)
        if letter.tries == 1:
            # The receiver as a whole is left alone for a while, too: it may be down, with many notices waiting for it.
            # One that is refused again and again says nothing of the others.
            self._failures += 1
            self._paused_until = now + self._pause(self._failures)
        self._counted("failed")
        _LOG.warning("webhook %s: %s is tried again: %s", name, letter.notice.id, error)

    def _counted(self, outcome: str) -> None:
        WEBHOOK_TRIES.labels(webhook=self._webhook.name, outcome=outcome).inc()

    def _count_waiting(self) -> None:
        WEBHOOK_WAITING.labels(webhook=self._webhook.name).set(len(self._letters))

    def _pause(self, tries: int) -> float:
        doubled: float = self._first_pause * 2 ** min(tries - 1, 30)
        return min(doubled, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
