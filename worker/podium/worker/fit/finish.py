"""The end of a training: the best models meet the test split, once, and the best one is handed over.

Metrics of the last step, where there is a test split: "test/*" of the best model by the job's monitor,
"test_at_best_<monitor>/*" of the best one by each further monitor, and "test_untouched/*" where the weights know the
job's classes. The last checkpoint is the model to use: the best one, with an evaluation.json of both splits.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from podium.jobs.errors import PodiumError
from podium.jobs.events import Level
from podium.jobs.spec import JobSpec
from podium.worker.fit import backbones, checkpoint, report
from podium.worker.fit._failures import FitError
from podium.worker.fit.evaluate import Evaluator
from podium.worker.fit.learners import Learner
from podium.worker.fit.loop import kept
from podium.worker.fit.position import Position
from podium.worker.fit.step import seed_step
from podium.worker.fit.world import World
from podium.worker.job_context import JobContext, Saved


class Finish:
    """What is left to do after the last step.

    Args:
        spec: the job's resolved spec.
        learner: what was trained.
        context: the line to the job.
        world: the ranks.
        evaluate: knows the job's metrics.
        config: what every checkpoint says about the model.
        untouched: the model as the weights have it, where its own classifier knows the job's classes.
    """

    def __init__(
        self,
        spec: JobSpec,
        learner: Learner,
        context: JobContext,
        world: World,
        evaluate: Evaluator,
        config: dict[str, Any],
        untouched: Callable[[], Learner] | None = None,
    ) -> None:
        self._spec, self._learner, self._context, self._world = spec, learner, context, world
        self._evaluate, self._config, self._untouched = evaluate, config, untouched

    def run(self, at: Position) -> None:
        """Tests, and saves the model to use; all of it again where an attempt was killed in between.

        Raises:
            Stopped: the attempt is to end.
        """
        if at.tested:
            return
        with self._world.first_goes_first():
            best = self._context.best()
        if "test" in self._learner.splits:
            self._test_untouched(at)
            self._test_further(at)
        self._hand_over(at, best)

    def _test_untouched(self, at: Position) -> None:
        if self._untouched is None:
            return
        learner = None
        try:
            learner = self._untouched()
        except (FitError, PodiumError, OSError) as error:
            # Its file was there when the job began, and is needed for nothing else.
            self._log(f"the untouched model is not tested: {error}", Level.WARNING)
        found = self._world.summed(torch.tensor(float(learner is not None)))
        if learner is not None and int(found) == self._world.size:
            self._test("test_untouched", learner, at)

    def _test_further(self, at: Position) -> None:
        for monitor in self._spec.evaluation.also_monitor:
            if monitor == self._spec.evaluation.monitor or monitor not in at.best:
                continue
            file = kept(self._context.scratch(), monitor, at.best[monitor].step)
            if not file.exists():
                self._log(f"the best model by {monitor} is gone, and not tested", Level.WARNING)
                continue
            backbones.restore(self._learner.module, load_file(file))
            self._test(f"test_at_best_{monitor}", self._learner, at)

    def _hand_over(self, at: Position, best: Saved | None) -> None:
        monitor = self._spec.evaluation.monitor
        if best is None:
            self._log(f"no checkpoint of a best model by {monitor} is there: nothing is tested as it", Level.WARNING)
            return
        checkpoint.read_model(best.folder, self._learner)
        step, splits = best.step, report.read(best.folder)
        self._log(f"the best model by {monitor} is that of step {step}")
        if "test" in self._learner.splits:
            splits["test"] = self._test("test", self._learner, at)
        if not self._world.first:
            return
        at.tested = True

        def write(folder: Path) -> None:
            checkpoint.write_final(folder, self._learner, at, self._config | {"step": step}, splits)

        metrics = {
            f"{split}/{name}": value for split, told in splits.items() for name, value in told["metrics"].items()
        }
        self._context.save(at.step, write, metrics=metrics, best=True)
        shutil.rmtree(self._context.scratch(), ignore_errors=True)

    def _test(self, name: str, learner: Learner, at: Position) -> dict[str, Any]:
        seed_step(self._spec.seed, at.step)
        evaluated = self._evaluate(learner, "test", (at.step, at.step))
        if self._world.first:
            self._context.report(at.step, {f"{name}/{metric}": value for metric, value in evaluated.metrics.items()})
        return evaluated.details

    def _log(self, text: str, level: Level = Level.INFO) -> None:
        if self._world.first:
            self._context.log(text, level)
