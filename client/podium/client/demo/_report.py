"""The demo's last page: what the models can do, beside chance and beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from podium.client.cli._text import percent
from podium.jobs.events import MetricSeries

RANKS = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One job's accuracies, 0 to 1, by rank; empty where there are fewer classes."""

    name: str
    accuracy: Mapping[int, float]

    @classmethod
    def of(cls, name: str, metrics: Mapping[str, MetricSeries], split: str) -> Outcome:
        """The last value of each top-k accuracy of a split."""
        series = {rank: metrics[f"{split}/top{rank}"].values for rank in RANKS if f"{split}/top{rank}" in metrics}
        return cls(name=name, accuracy={rank: values[-1] for rank, values in series.items()})


def outcome_table(outcomes: list[Outcome], split: str, classes: int) -> Table:
    """Both jobs side by side, in percent, and what guessing would give with so many classes."""
    table = Table(title=f"Accuracy on the {split} split, in percent", title_justify="left", title_style="bold")
    table.add_column("")
    for rank in RANKS:
        table.add_column(f"top-{rank}", justify="right")
    chance = {rank: rank / classes for rank in RANKS if rank <= classes}
    table.add_row("chance", *_cells(chance), style="dim", end_section=True)
    for outcome in outcomes:
        table.add_row(outcome.name, *_cells(outcome.accuracy), end_section=outcome is outcomes[-1])
    if len(outcomes) == 2:
        first, second = (outcome.accuracy for outcome in outcomes)
        gains = {rank: second[rank] - first[rank] for rank in first if rank in second}
        cells = [f"{100 * gains[rank]:+.1f}" if rank in gains else "" for rank in RANKS]
        table.add_row("top-k loss against softmax", *cells, style="bold")
    return table


def _cells(accuracies: Mapping[int, float]) -> list[str]:
    return [percent(accuracies[rank]) if rank in accuracies else "" for rank in RANKS]
