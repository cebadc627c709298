"""What is known of jobs that have come to rest, and whether anything else has not."""

import time
from collections.abc import Sequence

from podium.jobs import wire
from podium.jobs.errors import NotFoundError, PodiumError
from podium.jobs.events import JobEvent
from podium.jobs.job import Checkpoint
from tests.chaos import chain
from tests.chaos.checks import Evidence, Wanted, Watched
from tests.chaos.site import Site
from tests.chaos.watcher import Watcher

#: So long what is on its way may take to come to rest, in seconds.
_SETTLING = 25.0


def gather(site: Site, job_id: str, wanted: Wanted, watchers: Sequence[Watcher]) -> Evidence:
    """The evidence of one job; waits for its watchers."""
    watched = tuple(_watched(watcher) for watcher in watchers)
    try:
        job = site.store.get(job_id)
    except NotFoundError:
        return Evidence(wanted=wanted, job=None, watched=watched)
    checkpoints = site.store.checkpoints(job_id)
    return Evidence(
        wanted=wanted,
        job=job,
        events=events(site, job_id),
        watched=watched,
        checkpoints=checkpoints,
        found={checkpoint.id: _found(site, checkpoint) for checkpoint in checkpoints},
        metrics=site.client.job(job_id).metrics(),
    )


def events(site: Site, job_id: str) -> list[JobEvent]:
    """The history of a job, from the ledger."""
    found: list[JobEvent] = []
    while page := site.store.events(job_id, after=found[-1].sequence if found else 0).events:
        for stored in page:
            message = wire.to_proto(wire.from_bytes(JobEvent, stored.data))
            message.sequence = stored.sequence
            found.append(wire.from_proto(JobEvent, message))
    return found


def _watched(watcher: Watcher) -> Watched:
    ended = watcher.ended(_SETTLING)
    oldest = int(watcher.trimmed.metadata["oldest_sequence"]) if watcher.trimmed else 0
    error = watcher.error.message if watcher.error else ""
    return Watched(events=tuple(watcher.events), oldest_kept=oldest, ended=ended, error=error)


def _found(site: Site, checkpoint: Checkpoint) -> chain.Link | str:
    """The state in a listed checkpoint, or what is wrong with it."""
    try:
        manifest = site.artifacts.manifest(checkpoint.job_id, checkpoint.id)
        site.artifacts.verify(manifest)
    except (PodiumError, OSError) as error:
        return str(error)
    if manifest.files != checkpoint.files or manifest.step != checkpoint.step:
        return "its manifest says something else than the ledger"
    return chain.read(site.artifacts.path(manifest, chain.FILE).parent)


def unrest(site: Site, jobs: Sequence[str]) -> list[str]:
    """What is stuck, or was left behind, when all jobs have ended and the site had time to settle.

    Args:
        site: whose programs all run.
        jobs: their folders are looked at.
    """
    end = time.monotonic() + _SETTLING
    while found := [
        *_held(site),
        *_queued(site),
        *_strays(site),
        *(word for job in jobs for word in _litter(site, job)),
    ]:
        if time.monotonic() > end:
            return [f"at rest: {sentence}" for sentence in found]
        time.sleep(0.1)
    return []


def _held(site: Site) -> list[str]:
    holding = [f"{job.id} still holds slots" for job, _, _ in site.store.holding()]
    slots = [(node.id, slot.index, slot.job_id) for node in site.store.nodes() for slot in node.slots if slot.job_id]
    pending = [f"{job_id} is still in line" for job_id in site.store.pending("default")]
    return [*holding, *(f"slot {index} of {node} is held by {job}" for node, index, job in slots), *pending]


def _queued(site: Site) -> list[str]:
    """Deliveries that nobody has taken, or that somebody took and dropped."""
    keys = (key for key in site.connection.scan_iter("rq:queue:*") if site.connection.type(key) == b"list")
    return [f"a delivery is left in {key.decode()}" for key in keys if site.connection.llen(key)]


def _strays(site: Site) -> list[str]:
    """Processes that should not be there, and those that should."""
    slots = sum(site.machines.values())
    wanted = {
        "podium.server": len(site.servers),
        "podium.worker": len(site.machines),
        "podium.worker.slot": slots,
        "podium.worker.horse": slots,
        "podium.worker.torchrun": 0,
        "podium.worker.rank": 0,
    }
    found = {module: len(site.processes(module)) for module in wanted}
    return [
        f"{found[module]} processes of {module} instead of {count}"
        for module, count in wanted.items()
        if found[module] != count
    ] or ([] if site.complete() else ["a machine or a slot's process is missing"])


def _litter(site: Site, job_id: str) -> list[str]:
    """What a job that has ended left in its folders."""
    folder = site.artifacts.root / "jobs" / job_id
    staging = list((folder / "tmp").iterdir()) if (folder / "tmp").exists() else []
    there = {path.name for path in (folder / "checkpoints").iterdir()} if (folder / "checkpoints").exists() else set()
    listed = {checkpoint.id for checkpoint in site.store.checkpoints(job_id)}
    found = [f"{job_id} left {path.name} half written" for path in staging]
    found += [f"{job_id} left {name}, which is not listed" for name in sorted(there - listed)]
    if (folder / "scratch").exists():
        found.append(
            f"{job_id} left its scratch folder: {sorted(path.name for path in (folder / 'scratch').iterdir())}"
        )
    return found
