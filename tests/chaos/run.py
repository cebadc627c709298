"""One case of the kill matrix, from a healthy site to a healthy site."""

import time

from podium.jobs.errors import PodiumError
from tests.chaos import phases
from tests.chaos.checks import violations
from tests.chaos.matrix import Blow, Case, Target
from tests.chaos.phases import Scene
from tests.chaos.rest import gather, unrest
from tests.chaos.site import Site, Timeout, until

#: So long a job may take to come to its end after a blow, in seconds.
_TO_THE_END = 90.0


def run(site: Site, case: Case) -> list[str]:
    """Hits, heals, waits for the end of all jobs, and returns what was promised and is not so."""
    scene = Scene(site)
    try:
        with phases.reached(scene, case) as hit:
            phases.strike(hit, case.blow)
        phases.recover(scene, hit, case.blow)
    except (Timeout, PodiumError) as error:
        # Whatever waits is not to keep others waiting.
        return [f"not reached: {error}"]
    found = judge(scene)
    if case.target is Target.SLOT and case.blow is not Blow.STOP:
        site.renew_agents()
    return found


def judge(scene: Scene) -> list[str]:
    """Waits for the end of all jobs of a scene, and looks at what became of them."""
    site, found = scene.site, []
    deadline = time.monotonic() + _TO_THE_END
    for job_id in scene.wanted:
        try:
            until(lambda: site.store.get(job_id).terminal, "the end", max(1.0, deadline - time.monotonic()))  # noqa: B023  # used at once
        except Timeout:
            job = site.store.get(job_id)
            found.append(f"at rest: {job_id} is stuck in {job.state.name}: {job.state_reason}")
    for job_id, wanted in scene.wanted.items():
        found += [f"{job_id}: {word}" for word in violations(gather(site, job_id, wanted, scene.watchers[job_id]))]
    return found + unrest(site)
