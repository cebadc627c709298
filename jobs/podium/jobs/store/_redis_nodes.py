"""The machines, as they stand in Redis."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from podium.jobs import wire
from podium.jobs.job import Node
from podium.jobs.store._ledger import no_such_node, node_state
from podium.jobs.store._redis_keys import Keys
from podium.jobs.store._redis_link import Link, pages
from podium.jobs.store._terms import Drain, Leases

_DAY = timedelta(days=1)
#: Seconds that a record stays after its machine's last word; more than it is listed.
_RECORD_KEPT = 2 * 86_400
_NODES = 100


class RedisNodes:
    """The part of RedisStore that is about machines."""

    _link: Link
    _keys: Keys
    _clock: Callable[[], datetime]
    _leases: Leases
    _read: dict[str, tuple[bytes, Mapping[bytes, bytes], Node]]
    """By id, a machine's record and who holds its slots, and what these say: most are the same from look to look."""

    def heartbeat(self, node: Node) -> Drain:
        """See JobStore.heartbeat."""
        now = self._clock()
        bare = replace(node, heartbeat_time=now, slots=tuple(replace(slot, job_id="") for slot in node.slots))
        *_, asked = self._link.run(
            ("SET", self._keys.node(node.id), wire.to_bytes(bare), "EX", _RECORD_KEPT),
            ("SET", self._keys.node_lease(node.id), 1, "PX", math.ceil(self._leases.node * 1000)),
            ("ZADD", self._keys.nodes, str(now.timestamp()), node.id),
            ("GET", self._keys.drain(node.id)),
        )
        return Drain(asked.decode()) if asked else Drain.NO

    def nodes(self) -> Sequence[Node]:
        """See JobStore.nodes."""
        (ids,) = self._link.run(("ZRANGE", self._keys.nodes, 0, -1))
        names = sorted(map(bytes.decode, ids))
        # Not over the dict itself, to which another thread may just add a machine.
        known = self._read
        self._read = {name: known[name] for name in names if name in known}
        found: list[Node] = []
        for page in pages(names, _NODES):
            for name, row in zip(page, self._about_nodes(page), strict=True):
                if (node := self._node(name, row)) is not None:
                    found.append(node)
                elif row[0] is None:
                    self._forget(name)
        return found

    def _forget(self, node_id: str) -> None:
        """Takes a machine off the list whose record is gone: by Redis' clock, as a machine's own may be days off."""
        self._link.guarded([(0, "EXISTS", self._keys.node(node_id))], [("ZREM", self._keys.nodes, node_id)])

    def _about_nodes(self, node_ids: Sequence[str]) -> Iterable[Sequence[Any]]:
        """Of each: its record, its lease, what is asked of it, its failures and who holds its slots."""
        keys, count = self._keys, len(node_ids)
        # Few commands: a client in Python spends most of the time on each one's answer.
        records, leases, drains, *rest = self._link.run(
            ("MGET", *map(keys.node, node_ids)),
            ("MGET", *map(keys.node_lease, node_ids)),
            ("MGET", *map(keys.drain, node_ids)),
            *(("ZRANGE", keys.failures(node_id), 0, -1, "WITHSCORES") for node_id in node_ids),
            *(("HGETALL", keys.slots(node_id)) for node_id in node_ids),
        )
        return zip(records, leases, drains, rest[:count], rest[count:], strict=True)

    def _node(self, node_id: str, row: Sequence[Any]) -> Node | None:
        """None: it was not heard from within a day. One that lives counts, whatever its clock says."""
        data, alive, drain, failures, held = row
        if data is None:
            return None
        known = self._read.get(node_id)
        if known is None or known[:2] != (data, held):
            known = self._read[node_id] = data, held, _holding(wire.from_bytes(Node, data), held)
        heard = known[2].heartbeat_time
        if not alive and (heard is None or self._clock() - heard >= _DAY):
            return None
        return node_state(
            known[2],
            lost=not alive,
            drain=Drain(drain.decode()) if drain else Drain.NO,
            failures=[float(time) for time in failures[1::2]],
        )

    def jobs_on(self, node_id: str) -> Sequence[str]:
        """See JobStore.jobs_on."""
        (held,) = self._link.run(("HVALS", self._keys.slots(node_id)))
        return sorted({job_id.decode() for job_id in held})

    def drain(self, node_id: str, drain: Drain) -> Node:
        """See JobStore.drain."""
        (row,) = self._about_nodes([node_id])
        if self._node(node_id, row) is None:
            raise no_such_node(node_id)
        if drain is Drain.NO:
            self._link.run(("DEL", self._keys.drain(node_id), self._keys.failures(node_id)))
        else:
            # For as long as nobody takes it back: a machine may be under repair for weeks.
            self._link.run(("SET", self._keys.drain(node_id), drain.value))
        (row,) = self._about_nodes([node_id])
        node = self._node(node_id, row)
        if node is None:
            raise no_such_node(node_id)
        return node

    def remove_node(self, node_id: str) -> None:
        """See JobStore.remove_node."""
        gone = (self._keys.node(node_id), self._keys.node_lease(node_id), self._keys.drain(node_id))
        self._link.run(("ZREM", self._keys.nodes, node_id), ("DEL", *gone))


def _holding(node: Node, held: Mapping[bytes, bytes]) -> Node:
    """The machine with who holds its slots: slot -> job."""
    if not held:
        return node
    slots = (replace(slot, job_id=held.get(b"%d" % slot.index, b"").decode()) for slot in node.slots)
    return replace(node, slots=tuple(slots))
