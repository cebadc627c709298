"""How much one caller may ask for: calls a second, streams at a time, tokens that are none.

Lives on the event loop; nothing here blocks or locks. A bucket is one number: when it will be full again. A full one
is as good as none, so what is remembered is bounded by who called within the last seconds.
"""

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from podium.jobs.errors import ResourceExhaustedError

#: Seconds' worth of calls that a caller who was silent may make at once.
BURST = 2.0
#: Tokens that are none, a second, of one peer.
FAILURES_PER_SECOND = 10
#: Callers that are remembered at a time.
_MOST = 10_000


class Buckets:
    """A token bucket for each caller.

    Args:
        rate: calls a second; 0: as many as they like.
        burst: seconds' worth of calls that a caller who was silent may make at once; of one call at least.
        clock: the time, in seconds.
        most: callers that are remembered.
    """

    def __init__(
        self,
        rate: float,
        *,
        burst: float = BURST,
        clock: Callable[[], float] = time.monotonic,
        most: int = _MOST,
    ) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._burst = max(burst, self._interval)
        self._clock = clock
        self._most = most
        self._full: dict[str, float] = {}

    def take(self, who: str) -> float:
        """Takes a call out of a caller's bucket; 0, or the seconds after which there is one where there is none."""
        if not self._interval:
            return 0.0
        now = self._clock()
        full = max(self._full.get(who, now), now) + self._interval
        if full - now > self._burst:
            return full - now - self._burst
        self._full[who] = full
        if len(self._full) > self._most:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        self._full = {who: full for who, full in self._full.items() if full > now}
        if len(self._full) > self._most // 2:
            # So many at once are no callers but a flood, which a limit for each of them cannot stop.
            self._full.clear()

    def __len__(self) -> int:
        return len(self._full)


class Limits:
    """What one caller may ask for.

    Args:
        calls_per_second: of one caller; 0: no limit.
        streams: that one caller may hold open; 0: no limit.
        clock: the time, in seconds.
    """

    def __init__(self, *, calls_per_second: int, streams: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = calls_per_second
        self._calls = Buckets(calls_per_second, clock=clock)
        self._failures = Buckets(FAILURES_PER_SECOND, clock=clock)
        self._most_streams = streams
        self._streams: Counter[str] = Counter()

    def call(self, who: str) -> None:
        """Counts a call.

        Raises:
            ResourceExhaustedError: it is one too many (reason TOO_MANY_CALLS).
        """
        if wait := self._calls.take(who):
            raise ResourceExhaustedError(
                f"more than {self._rate} calls a second; wait {wait:.3f} s and try again",
                reason="TOO_MANY_CALLS",
                retry_after=wait,
            )

    def failure(self, peer: str) -> None:
        """Counts a token that is none.

        Raises:
            ResourceExhaustedError: it is one too many (reason TOO_MANY_FAILURES).
        """
        if wait := self._failures.take(peer):
            raise ResourceExhaustedError(
                f"more than {FAILURES_PER_SECOND} calls a second without a good token; set PODIUM_TOKEN to one",
                reason="TOO_MANY_FAILURES",
                retry_after=wait,
            )

    @contextmanager
    def stream(self, who: str) -> Iterator[None]:
        """Counts a stream for as long as it is open.

        Raises:
            ResourceExhaustedError: it is one too many (reason TOO_MANY_STREAMS).
        """
        held = self._streams[who]
        if self._most_streams and held >= self._most_streams:
            raise ResourceExhaustedError(
                f"{held} streams are open already; end one first, or watch many jobs on one stream with WatchJobs",
                reason="TOO_MANY_STREAMS",
                retry_after=1.0,
            )
        with counted(self._streams, who):
            yield


@contextmanager
def counted(places: Counter[str], who: str) -> Iterator[None]:
    """One more that somebody holds, for as long as the block runs; who holds none is forgotten."""
    places[who] += 1
    try:
        yield
    finally:
        places[who] -= 1
        if not places[who]:
            del places[who]


@lru_cache(maxsize=4096)  # one a connection
def host_of(peer: str) -> str:
    """Where a peer is, of gRPC's "ipv4:10.0.0.7:41234": without the port, and of IPv6 the network, a host having many.

    >>> host_of("ipv4:10.0.0.7:41234")
    '10.0.0.7'
    >>> host_of("ipv6:%5B2001:db8::1%5D:41234")
    '2001:db8::/64'
    """
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        text = rest.removeprefix("%5B").removeprefix("[").partition("%5D")[0].partition("]")[0].partition("%25")[0]
        try:
            return str(ipaddress.IPv6Network((text, 64), strict=False))
        except ValueError:
            return text
    return kind
