"""Deleting in Redis, and what protects from it."""

import json
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime

from podium.jobs.store._deleting import Deleting, Removal
from podium.jobs.store._record import Change
from podium.jobs.store._redis_keys import Keys
from podium.jobs.store._redis_link import Commands, Link
from podium.jobs.store._terms import Deletion


class RedisDeletions(Deleting):
    """The part of RedisStore that is about deleting."""

    _link: Link
    _keys: Keys

    def _unprotected(self, change: Change) -> Commands:
        """What an ended job does for the checkpoint that it started from."""
        checkpoint_id, job = change.record.starts_from, change.record.job
        return [("SREM", self._keys.starters(checkpoint_id), job.id)] if checkpoint_id and job.terminal else []

    def _starters(self, checkpoint_ids: Sequence[str]) -> Mapping[str, Set[str]]:
        if not checkpoint_ids:
            return {}
        answers = self._link.run(*(("SMEMBERS", self._keys.starters(name)) for name in checkpoint_ids))
        return {name: {job.decode() for job in jobs} for name, jobs in zip(checkpoint_ids, answers, strict=True)}

    def _released(self, checkpoint_id: str, job_id: str) -> None:
        self._link.run(("SREM", self._keys.starters(checkpoint_id), job_id))

    def _removed(self, removal: Removal) -> bool:
        job, deletion, keys = removal.job, removal.deletion, self._keys
        guards: Commands = [(0, "EXISTS", keys.starters(name)) for name in removal.checkpoints]
        # What makes room comes first: the rest is then written even where Redis is full.
        commands: Commands = [("UNLINK", keys.checkpoint(name)) for name in removal.checkpoints]
        if deletion.checkpoint_id:
            guards.append((1, "HEXISTS", keys.checkpoints(job.id), deletion.checkpoint_id))
            commands.append(("HDEL", keys.checkpoints(job.id), deletion.checkpoint_id))
        else:
            guards.append((1, "EXISTS", keys.job(job.id)))
            commands.append(("UNLINK", *keys.all_of(job.id)))
            commands += [("ZREM", keys.jobs(job.project), job.id), ("ZREM", keys.ended, job.id)]
            commands.append(("PUBLISH", keys.bell, job.id))
        entry, value = _entry(deletion), f"{deletion.time.timestamp()} {removal.token}"
        commands.append(("HSET", keys.deletions, entry, value))
        if self._link.guarded(guards, commands):
            return True
        # An earlier try of this very call may have got through, and its answer not.
        (found,) = self._link.run(("HGET", keys.deletions, entry))
        return found is not None and found.decode().split(" ")[1] == removal.token

    def deletions(self) -> Sequence[Deletion]:
        """See JobStore.deletions."""
        (rows,) = self._link.run(("HGETALL", self._keys.deletions))
        found = []
        for entry, value in rows.items():
            job_id, checkpoint_id = json.loads(entry)
            time = datetime.fromtimestamp(float(value.split(b" ")[0]), UTC)
            found.append(Deletion(job_id=job_id, checkpoint_id=checkpoint_id, time=time))
        return sorted(found, key=lambda deletion: (deletion.time, deletion.job_id, deletion.checkpoint_id))

    def conclude(self, deletion: Deletion) -> None:
        """See JobStore.conclude."""
        self._link.run(("HDEL", self._keys.deletions, _entry(deletion)))


def _entry(deletion: Deletion) -> str:
    return json.dumps([deletion.job_id, deletion.checkpoint_id])
