"""How much there is of what, as it stands in Redis."""

import itertools
from collections.abc import Mapping, Sequence

from podium.jobs.job import Cause
from podium.jobs.spec import Priority
from podium.jobs.states import State
from podium.jobs.store._record import Change, Record, places_in_line
from podium.jobs.store._redis_link import Command, Commands
from podium.jobs.store._redis_nodes import RedisNodes
from podium.jobs.store._terms import Census

#: So many pools without machines are looked at; whoever submits jobs to more must not slow down who counts them.
_STRANGE_POOLS = 1000


class RedisCensus(RedisNodes):
    """The part of RedisStore that counts."""

    def ping(self) -> None:
        """See JobStore.ping."""
        self._link.run(("PING",))

    def doubts(self) -> Sequence[str]:
        """See JobStore.doubts. INFO tells nothing of appendfsync."""
        (facts,) = self._link.run(("INFO", "default"))
        found = []
        if facts.get("aof_enabled") == 0:
            found.append("Redis writes no append-only file, and forgets all when it ends; set appendonly yes")
        if (policy := facts.get("maxmemory_policy", "noeviction")) != "noeviction":
            found.append(f"Redis may delete jobs when it is full ({policy}); set maxmemory-policy noeviction")
        return found

    def census(self) -> Census:
        """See JobStore.census."""
        nodes = self.nodes()
        tally, unarchived, asked_for = self._link.run(
            ("HGETALL", self._keys.tally),
            ("ZCARD", self._keys.ended),
            ("SRANDMEMBER", self._keys.pools, _STRANGE_POOLS),
        )
        counts = {name.decode(): int(count) for name, count in tally.items()}
        return Census(
            nodes=nodes,
            queued=self._queued({node.pool for node in nodes} | {pool.decode() for pool in asked_for}),
            attempts_ended={cause: counts[_name(cause)] for cause in (None, *Cause) if _name(cause) in counts},
            jobs_ended={state: counts[_name(state)] for state in State if _name(state) in counts},
            unarchived=unarchived,
        )

    def _queued(self, pools: set[str]) -> Mapping[tuple[str, Priority], int]:
        lines = list(itertools.product(sorted(pools), Priority))
        answers = self._link.run(*(self._count(pool, priority) for pool, priority in lines)) if lines else []
        return {line: count for line, count in zip(lines, answers, strict=True) if count}

    def _count(self, pool: str, priority: Priority) -> Command:
        first, beyond = places_in_line(priority)
        return ("ZCOUNT", self._keys.pending(pool), first, f"({beyond}")

    def _counted(self, before: Record, change: Change) -> Commands:
        """What is counted of a change. In its own commit, so that nothing counts twice or not at all."""
        return [("HINCRBY", self._keys.tally, _name(ended), 1) for ended in change.tally(before)]


def _name(ended: Cause | State | None) -> str:
    return f"job:{ended.name}" if isinstance(ended, State) else f"attempt:{ended.name if ended else 'NONE'}"
