"""The scripted trainer itself, on a context in a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from podium.jobs.events import Level
from podium.jobs.job import Cause, Job, Progress
from podium.jobs.spec import FullFineTuning, ImageFolder, JobSpec, Softmax
from podium.jobs.states import State
from podium.worker.job_context import JobContext, Saved, Stopped, StopReason
from tests.chaos import chain, trainer


class Folder:
    """Of a JobContext what the scripted trainer needs: keeps what is reported, and the checkpoints as folders."""

    def __init__(self, root: Path, stop_after: int = 10_000) -> None:
        self._root = root
        self._stop_after = stop_after
        self.points: dict[int, float] = {}
        self.saved: list[Saved] = []

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.points[step] = metrics["train/loss"]

    def progress(self, progress: Progress) -> None: ...

    def log(self, text: str, level: Level = Level.INFO, *, rank: int = 0) -> None: ...

    def should_stop(self) -> StopReason | None:
        return StopReason.DRAINED if len(self.points) >= self._stop_after else None

    def save(self, step: int, write: Callable[[Path], None], *, metrics: Mapping[str, float], best: bool) -> None:
        folder = self._root / str(len(self.saved))
        folder.mkdir()
        write(folder)
        self.saved.append(Saved(step=step, folder=folder))

    def newest(self) -> Saved | None:
        return self.saved[-1] if self.saved else None

    def scratch(self) -> Path:
        return self._root / "scratch"


def _job(script: str) -> Job:
    dataset = ImageFolder(train="/data")
    spec = JobSpec(backbone="b", tuning=FullFineTuning(), dataset=dataset, sorter=Softmax(), display_name=script)
    return Job(id="j", project="p", spec=spec, state=State.RUNNING, attempt=1)


def _run(script: str, context: Folder) -> None:
    trainer.run(_job(script), cast(JobContext, context), threads=1)


def test_an_interrupted_run_ends_with_what_an_uninterrupted_one_has(tmp_path):
    context = Folder(tmp_path, stop_after=7)
    with pytest.raises(Stopped):
        _run("steps 12, save 5", context)
    context._stop_after = 10_000
    _run("steps 12, save 5", context)

    assert [5, 7, 10, 12] == [saved.step for saved in context.saved]
    assert chain.after(12) == chain.read(context.saved[-1].folder)
    assert {step: chain.after(step).loss for step in range(1, 13)} == context.points


@pytest.mark.parametrize("script", ["steps 3", "steps 3; once", "steps 3, crash 2, crash-in-save 2; once"])
def test_a_wish_to_stop_before_the_first_step_is_obeyed(tmp_path, script):
    with pytest.raises(Stopped):
        _run(script, Folder(tmp_path, stop_after=0))


@pytest.mark.parametrize(
    ("script", "cause"),
    [("steps 3, nan 2", Cause.NON_FINITE), ("steps 3, oom 2", Cause.OOM_HOST), ("step 3", Cause.USER_CONFIG)],
)
def test_what_goes_wrong_has_its_cause(tmp_path, script, cause):
    with pytest.raises((trainer.NonFinite, MemoryError, ValueError)) as caught:
        _run(script, Folder(tmp_path))

    assert cause is trainer.describe(caught.value).cause


def test_what_goes_wrong_once_does_not_go_wrong_again(tmp_path):
    with pytest.raises(trainer.NonFinite):
        _run("steps 3, nan 2; once", Folder(tmp_path))
    _run("steps 3, nan 2; once", Folder(tmp_path))
