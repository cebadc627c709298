"""What is known of jobs that have come to rest, and whether anything else has not."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
#: So long what a job leaves in its folders may lie there: the leader clears up a minute after its end.
_CLEARING = 90.0


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


def _found(site: Site, checkpoint: Checkpoint) -> chain.Link | str | None:
    """The state in a listed checkpoint, None where another trainer wrote it, or what is wrong with it."""
    try:
        manifest = site.artifacts.manifest(checkpoint.job_id, checkpoint.id)
        site.artifacts.verify(manifest)
    except (PodiumError, OSError) as error:
        return str(error)
    if manifest.files != checkpoint.files or manifest.step != checkpoint.step:
        return "its manifest says something else than the ledger"
    scripted = any(file.name == chain.FILE for file in manifest.files)
    return chain.read(site.artifacts.path(manifest, chain.FILE).parent) if scripted else None


def unrest(site: Site) -> list[str]:
    """What is stuck when all jobs have ended, all programs run and the site had time to settle."""
    return [
        f"at rest: {sentence}" for sentence in _last(lambda: [*_held(site), *_queued(site), *_strays(site)], _SETTLING)
    ]


def litter(site: Site) -> list[str]:
    """What jobs that have ended left in their folders, once the leader had time to clear up."""
    return [f"left behind: {sentence}" for sentence in _last(lambda: _left(site), _CLEARING)]


def _last(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """What is seen in the end; nothing as soon as nothing is."""
    end = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _held(site: Site) -> list[str]:
    holding = [f"{job.id} still holds slots" for job, _, _ in site.store.holding()]
    slots = [(node.id, slot.index, slot.job_id) for node in site.store.nodes() for slot in node.slots if slot.job_id]
    pending = [f"{job_id} is still in line" for job_id in site.store.pending("default")]
    return [*holding, *(f"slot {index} of {node} is held by {job}" for node, index, job in slots), *pending]


def _queued(site: Site) -> list[str]:
    """Deliveries that nobody has taken. What a supervisor took and died with, RQ forgets within minutes by itself."""
    keys = [key.decode() for key in site.connection.scan_iter("rq:queue:podium.*") if b":intermediate" not in key]
    return [f"a delivery is left in {key}" for key in keys if site.connection.llen(key)]


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


def _left(site: Site) -> list[str]:
    temporary = [path.name for path in _in(site.temporary) if path.name.startswith("podium-")]
    # Each agent that runs has one, and what a killed attempt of several ranks left goes with the next one on its slot.
    allowed = len(site.machines) + sum(site.machines.values())
    found = [f"temporary folders: {temporary}"] if len(temporary) > allowed else []
    for folder in _in(site.artifacts.root / "jobs"):
        listed = {checkpoint.id for checkpoint in site.store.checkpoints(folder.name)}
        found += [f"{path.name} of {folder.name}, half written" for path in _in(folder / "tmp")]
        found += [
            f"{path.name} of {folder.name}, unlisted" for path in _in(folder / "checkpoints") if path.name not in listed
        ]
        found += [f"{path.name} in the scratch folder of {folder.name}" for path in _in(folder / "scratch")]
    return found


def _in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []
