"""What do top-k losses change? The same training with every loss and several seeds: python -m benchmarks.study SPEC.

SPEC is the YAML file of a job, such as examples/recipes/grocery-head.yaml; its k, sorter and seed are replaced. Jobs
run in this process, one after the other, as a worker runs them; what a frozen backbone computes is computed once. The
table is of the test split at the best validation point by each metric of its own, as papers report it, with the spread
(one standard deviation, n - 1) over the seeds.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from podium.client import load_spec
from podium.jobs import wire
from podium.jobs.catalogue import find_backbone
from podium.jobs.datasets import split_index
from podium.jobs.job import Job
from podium.jobs.spec import (
    Bitonic,
    CheckpointPolicy,
    DFTopK,
    Distribution,
    JobSpec,
    LapSum,
    NeuralSort,
    OddEven,
    OptimalTransport,
    Softmax,
    SoftSort,
    Sorter,
    Subset,
)
from podium.jobs.states import State
from podium.server.admission._resolve import resolve
from podium.worker.fit import run
from podium.worker.fit.local import LocalContext

_KS: dict[str, dict[int, float]] = {
    "top-1": {1: 1.0},
    "half top-1, half top-5": {1: 0.5, 5: 0.5},
    "1 to 5 alike": {k: 0.2 for k in range(1, 6)},
    "top-5": {5: 1.0},
}
_PHI = {"distribution": Distribution.LOGISTIC_PHI, "steepness": 0.5, "art_lambda": 0.5}
_SORTERS: dict[str, Sorter] = {
    "odd-even, logistic_phi": OddEven(**_PHI),  # type: ignore[arg-type]  # the values' types differ
    "bitonic, cauchy": Bitonic(),
    "NeuralSort": NeuralSort(),
    "SoftSort": SoftSort(),
    "subset": Subset(),
    "optimal transport": OptimalTransport(),
    "LapSum": LapSum(),
    "DFTopK": DFTopK(),
}
_SOFTMAX = ("softmax cross-entropy", "top-1")


class _SharedFeatures(LocalContext):
    """As LocalContext, with the features of all runs in one place."""

    def __init__(self, root: Path, features: Path) -> None:
        super().__init__(root)
        self._features = features

    def features(self, key: str) -> Path:
        return self._features / key


def main() -> None:
    """Run what has not been run, and write the table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    specs = dict(_specs(load_spec(arguments.spec), range(arguments.seeds)))
    found: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    left = [name for name in specs if name not in found and any(part in name for part in arguments.only)]
    for name in track(left, description=arguments.spec.stem):
        found[name] = _tested(specs[name], arguments.features, arguments.threads)
        arguments.results.write_text(json.dumps(found, indent=1))
    print(_table(found, arguments.seeds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, required=True, help="a .json file; what stands there is not run again")
    parser.add_argument("--only", nargs="+", default=[""], help='parts of "loss | P_K | seed"; without it all are run')
    parser.add_argument("--features", type=Path, default=Path(tempfile.gettempdir()) / "podium-study-features")
    return parser.parse_args()


def _specs(spec: JobSpec, seeds: range) -> Iterator[tuple[str, JobSpec]]:
    m = spec.m or 16
    evaluation = replace(spec.evaluation, top_k=(1, 2, 5, 10), monitor="top1", also_monitor=("top5",))
    for seed in seeds:
        common = replace(spec, seed=seed, evaluation=evaluation, checkpoints=CheckpointPolicy(every_epochs=1000))
        yield _name(*_SOFTMAX, seed), replace(common, k={1: 1.0}, sorter=Softmax(), m=m, top1_apart=False)
        for sorter_name, sorter in _SORTERS.items():
            for k_name, k in _KS.items():
                apart = spec.top1_apart and 0 < k.get(1, 0) < 1
                yield _name(sorter_name, k_name, seed), replace(common, k=k, sorter=sorter, m=m, top1_apart=apart)


def _name(sorter: str, k: str, seed: int) -> str:
    return f"{sorter} | {k} | {seed}"


def _tested(spec: JobSpec, features: Path, threads: int) -> dict[str, float]:
    """The test metrics of one job: top-1 at the best validation top-1, top-5 at the best validation top-5."""
    index = split_index(spec.dataset, "train", spec.classes)
    card = find_backbone(spec.backbone)
    if index is None or card is None:
        raise SystemExit("the spec names no training split, or a backbone that is not in the catalogue")
    classes = tuple(spec.classes) or index.classes
    resolved = wire.from_proto(JobSpec, resolve(wire.to_proto(spec), card, len(classes)))
    job = Job(id="job-study", project="study", spec=resolved, state=State.RUNNING, classes=classes)
    with tempfile.TemporaryDirectory() as folder:
        context = _SharedFeatures(Path(folder), features)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        run(job, context, device=device, threads=threads)
        last = {name: list(points.values())[-1] for name, points in context.metrics.items()}
    return {
        "top1": last["test/top1"],
        "top2": last["test/top2"],
        "top5": last["test_at_best_top5/top5"],
        "top10": last["test_at_best_top5/top10"],
    }


def _table(found: dict[str, dict[str, float]], seeds: int) -> str:
    lines = ["| loss | P_K | top-1 | top-2 | top-5 | top-10 |", "|---|---|---|---|---|---|"]
    rows = [_SOFTMAX, *((sorter, k) for sorter in _SORTERS for k in _KS)]
    for sorter, k in rows:
        runs = [found[name] for seed in range(seeds) if (name := _name(sorter, k, seed)) in found]
        if runs:
            cells = " | ".join(
                _cell([100 * one[metric] for one in runs]) for metric in ("top1", "top2", "top5", "top10")
            )
            lines.append(f"| {sorter} | {k} | {cells} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
