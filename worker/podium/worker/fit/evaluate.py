"""Loss, top-k accuracies and the expected accuracy under P_K of a split."""

import functools
import operator

import torch

from podium.jobs.spec import JobSpec, Precision
from podium.topk import expected_topk_accuracy, topk_accuracy
from podium.worker.fit._meter import Meter
from podium.worker.fit.learners import Learner
from podium.worker.fit.loss import criterion
from podium.worker.job_context import JobContext, obey


def evaluate(
    learner: Learner, split: str, spec: JobSpec, context: JobContext, device: torch.device, steps: tuple[int, int]
) -> dict[str, float]:
    """The metrics "<split>/loss", "<split>/topK" for every K of the spec, and "<split>/expected_accuracy".

    Args:
        learner: the model and its images.
        split: which of them.
        spec: the loss, the ks, the batch size and the precision.
        context: told of the progress.
        device: where to compute.
        steps: how many steps are done, and of how many, for the progress.

    Raises:
        Stopped: the attempt is to end.
    """
    loss = criterion(spec, learner.splits["train"].class_counts(), reduction="sum")
    losses, counts = [], []
    total, (step, total_steps) = len(learner.splits[split]), steps
    meter = Meter(f"evaluating {split}", total)
    batches = torch.split(torch.arange(total), spec.batch_size)
    learner.module.eval()
    ks = sorted({*spec.evaluation.top_k, *(k for k, weight in spec.k.items() if weight > 0)})
    for inputs, labels in learner.evaluation(split, batches):
        obey(context)
        with torch.inference_mode(), autocast(spec, device):
            scores = learner.module(inputs).float()
            losses.append(loss(scores, labels).double())
            counts.append(topk_accuracy(scores, labels, ks))
        context.progress(meter.progress(len(labels), step=step, total_steps=total_steps))
    together = functools.reduce(operator.add, counts)
    accuracy = together.accuracy()
    return {
        f"{split}/loss": (torch.stack(losses).sum() / total).item(),
        f"{split}/expected_accuracy": expected_topk_accuracy(together, spec.k),
        **{f"{split}/top{k}": accuracy[k] for k in spec.evaluation.top_k},
    }


def autocast(spec: JobSpec, device: torch.device) -> torch.autocast:
    """The spec's precision; the loss leaves it again by itself."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=spec.precision is Precision.BF16)
