"""Draws the pictures of docs/topk.md from podium.topk itself: `make docs`.

Every curve is computed here, in float64. The files are committed; drawn again, they do not change by a byte.

Shape legend: X places on the axis, m scores.
"""

import argparse
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from podium.topk import BASELINES, SORTERS, Distribution, NeuralSort, OddEven, Softmax, Surrogate, topk_cross_entropy
from podium.topk._distributions import published_law, swap_law
from podium.topk.compat import reference_loss

HERE = Path(__file__).parent

K = 5
RIVALS = torch.linspace(3, -3, 15, dtype=torch.float64)
FAMILIES: Mapping[str, type[Surrogate]] = {**SORTERS, **BASELINES}

# Of Okabe and Ito, who chose them for the colour-blind; what shares a panel differs in width or dash as well.
BLUE, VERMILLION, SKY, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#56B4E9", "#009E73", "#E69F00", "#CC79A7"
BLACK, GREY, LIGHT = "#222222", "#777777", "#C4C4C4"

STYLE: Any = {
    "svg.hashsalt": "podium",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

TRUTH: dict[str, Any] = {"color": LIGHT, "linewidth": 2.5, "solid_joinstyle": "miter"}
SOFTER: dict[str, Any] = {"color": SKY, "linewidth": 1.2}
DEFAULT: dict[str, Any] = {"color": BLUE, "linewidth": 2.0}
SHARPER: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.0, "linestyle": (0, (4, 1.5))}
OURS: dict[str, Any] = {"color": BLUE, "linewidth": 2.0}
THEIRS: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.6, "linestyle": (0, (4, 1.5))}


def probabilities() -> Figure:
    """Draw c_5 of every sorter against the label's score."""
    figure, panels = _grid(list(SORTERS), 8.6)
    for name, axes in panels.items():
        axes.plot(*_truth(name), **TRUTH, label="the hard top 5")
        _variants(axes, name, _probability)
        axes.set(ylim=(-0.03, 1.06), yticks=[0, 0.5, 1])
    figure.supylabel("P(label is among the top 5)")
    figure.legend(*_key(panels["subset"]), loc="lower left", bbox_to_anchor=(0.32, 0.08), fontsize=10)
    return figure


def pulls() -> Figure:
    """Draw how hard the loss pulls the label's score up, for every sorter and baseline."""
    figure, panels = _grid(list(FAMILIES), 9.0)
    for name, axes in panels.items():
        axes.axvline(_edge(name), **TRUTH, label="enters the top 5")
        _variants(axes, name, lambda sorter, scores: _pull(sorter, scores).clamp(max=_LARGEST_PULL))
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.6)
        axes.set(ylim=(-0.015, _LARGEST_PULL), yticks=[0, 0.1, 1, 10, 100], yticklabels=["0", "0.1", "1", "10", "100"])
        axes.minorticks_off()
    figure.supylabel("pull on the label")
    figure.legend(*_key(panels["subset"]), loc="outside upper right", ncols=5)
    return figure


def laws() -> Figure:
    """Draw the six ways in which a comparator decides, and their slopes."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    d = torch.linspace(-6, 6, 601, dtype=torch.float64)
    dashes = ["-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (3, 1, 1, 1)), "-", (0, (5, 1.5))]
    colours = [BLACK, VERMILLION, GREEN, PURPLE, BLUE, ORANGE]
    for name, colour, dash in zip(Distribution, colours, dashes, strict=True):
        law = swap_law(name, 1.0, 0.5)
        look = {"color": colour, "linestyle": dash, "linewidth": 2.2 if name is Distribution.CAUCHY else 1.4}
        left.plot(d, law.swap_probability(-d), **look, label=name.value)
        slope = law.slope(d)
        right.plot(d[slope > _LEAST_SLOPE], slope[slope > _LEAST_SLOPE], **look)
    left.set(title="P(in order already)", xlabel="difference of the two scores", yticks=[0, 0.5, 1])
    right.set(title="its slope", xlabel="difference of the two scores", yscale="log", ylim=(_LEAST_SLOPE, 20))
    right.minorticks_off()
    left.legend(loc="lower right", fontsize=8)
    return figure


def reference() -> Figure:
    """Draw what the authors' package does and what the default does instead."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    (mass, pull), (slope, lane) = figure.subplots(2, 2)
    places = _places()[_places() > -1]
    scores = _label_moves(places)

    theirs = _reference(scores, sorter="neuralsort", inverse_temperature=1.0)
    ours = NeuralSort(temperature=1.0)
    mass.plot(*_truth("neural_sort", start=-1), **TRUTH, label="the hard top 5")
    mass.plot(places, _probability(ours, scores), **OURS, label="podium.topk")
    mass.plot(places, theirs.probability, **THEIRS, label="difftopk, as reference_loss repeats it")
    mass.set(title="neural_sort: P(label is among the top 5)", xlim=(-1, 6), ylim=(-0.03, 1.25))
    pull.axhline(0, color=LIGHT, linewidth=2.5)
    near = places > 0.8
    pull.plot(places[near], _pull(ours, scores)[near], **OURS)
    pull.plot(places[near], theirs.pull[near], **THEIRS)
    pull.set(title="neural_sort: pull on the label", xlim=(0.8, 6), ylim=(-1.2, 3.5))
    pull.text(5.9, -0.95, "below 0 the label is pushed down", ha="right", va="center")

    gaps = torch.logspace(-12, 1, 400, dtype=torch.float64)
    slope.plot(gaps, swap_law(Distribution.LOGISTIC_PHI, 1.0, 0.5).slope(gaps), **OURS)
    slope.plot(gaps, published_law(Distribution.LOGISTIC_PHI, 1.0, 0.5).slope(gaps), **THEIRS)
    slope.set(title="logistic_phi: slope near a tie", xscale="log", yscale="log")
    slope.set(xlabel="difference of the two scores", yticks=[0.01, 1, 100, 10000])
    slope.minorticks_off()

    places = _places()
    scores = _label_moves(places)
    network = OddEven(steepness=1.0, distribution="logistic_phi", art_lambda=0.5)
    theirs = _reference(scores, sorter="odd_even", inverse_temperature=1.0, distribution="logistic_phi", art_lambda=0.5)
    lane.plot(*_truth("odd_even"), **TRUTH)
    lane.plot(places, _probability(network, scores), **OURS)
    lane.plot(places, theirs.probability, **THEIRS)
    lane.set(title="odd_even, logistic_phi: P(label is among the top 5)", xlim=(-6, 6), ylim=(-0.03, 1.06))
    for axes in (mass, pull, lane):
        axes.set(xlabel="score of the label")
    for axes in (mass, lane):
        axes.set(yticks=[0, 0.5, 1])
    _rug(lane)
    figure.legend(*mass.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


_LEAST_SLOPE = 1e-4
_LARGEST_PULL = 200.0


def _grid(names: Sequence[str], height: float) -> tuple[Figure, Mapping[str, Axes]]:
    rows = math.ceil(len(names) / 4)
    figure = Figure(figsize=(9, height), layout="constrained")
    every = list(figure.subplots(rows, 4, sharey=True).flat)
    for spare in every[len(names) :]:
        spare.set_axis_off()
    panels = dict(zip(names, every, strict=False))
    for name, axes in panels.items():
        axes.set_title(f"{name}, top 1" if FAMILIES[name] is Softmax else name)
        axes.set(xlim=(-6, 6), xticks=[-6, -3, 0, 3, 6])
        _rug(axes)
    figure.supxlabel("score of the label")
    return figure, panels


def _rug(axes: Axes) -> None:
    """Mark the rivals at the bottom of a panel."""
    x = [part for rival in RIVALS.tolist() for part in (rival, rival, math.nan)]
    y = [0.0, 0.035, math.nan] * len(RIVALS)
    axes.plot(x, y, color=GREY, linewidth=0.7, transform=axes.get_xaxis_transform())
    axes.plot([], [], "|", color=GREY, label="the 15 rivals")


def _key(axes: Axes) -> tuple[list[Any], list[str]]:
    """Return the legend, first what everyone looks for."""
    handles, labels = axes.get_legend_handles_labels()
    order = [labels.index(label) for label in ("default", "4 times softer", "4 times sharper")]
    order += [place for place in range(len(labels)) if place not in order]
    return [handles[place] for place in order], [labels[place] for place in order]


def _variants(axes: Axes, name: str, answer: Callable[[Any, Tensor], Tensor]) -> None:
    places = _places()
    scores = _label_moves(places)
    for factor, look, label in _LOOKS:
        sorter = _softened(FAMILIES[name](), factor)
        if sorter is not None:
            axes.plot(places, answer(sorter, scores), **look, label=label)


_LOOKS: Sequence[tuple[float, dict[str, Any], str]] = (
    (4, SOFTER, "4 times softer"),
    (0.25, SHARPER, "4 times sharper"),
    (1, DEFAULT, "default"),
)


def _softened(sorter: Any, factor: float) -> Any | None:
    """Return the sorter with its softness multiplied; None if it has none. A hinge is shown by its expectation."""
    if hasattr(sorter, "draws"):
        sorter = replace(sorter, draws=1000)
    for name, power in (("steepness", -1), ("temperature", 1), ("regularization", 1), ("noise", 1)):
        if hasattr(sorter, name):
            return replace(sorter, **{name: getattr(sorter, name) * factor**power})
    return sorter if factor == 1 else None


def _edge(name: str) -> float:
    """Return where the label enters the top 5: where it beats the fifth of its rivals."""
    return float(RIVALS[0 if FAMILIES[name] is Softmax else K - 1])


def _truth(name: str, start: float = -6) -> tuple[list[float], list[float]]:
    edge = _edge(name)
    return [start, edge, edge, 6], [0, 0, 1, 1]


def _places() -> Tensor:
    """Return places for the label's score, (X,), close on both sides of every rival: there a network jumps."""
    even = torch.arange(-5.95, 6, 0.1, dtype=torch.float64)
    return torch.cat([even, RIVALS - 1e-6, RIVALS + 1e-6]).sort().values


def _label_moves(places: Tensor) -> Tensor:
    """Return rows of scores, (X, m): the label's, then its rivals'."""
    return torch.cat([places.unsqueeze(-1), RIVALS.expand(len(places), -1)], dim=-1)


def _labels(scores: Tensor) -> Tensor:
    return torch.zeros(len(scores), dtype=torch.int64)


def _probability(sorter: Any, scores: Tensor) -> Tensor:
    c: Tensor = sorter.label_topk_probability(scores, _labels(scores), (1 if isinstance(sorter, Softmax) else K,))
    return c.squeeze(-1)


def _pull(sorter: Any, scores: Tensor) -> Tensor:
    torch.manual_seed(0)
    leaf = scores.clone().requires_grad_()
    k = {1 if isinstance(sorter, Softmax) else K: 1.0}
    loss = topk_cross_entropy(leaf, _labels(scores), k=k, sorter=sorter, reduction="sum")
    return -torch.autograd.grad(loss, leaf)[0][:, 0]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the reference says: c_5 and the pull on the label, (X,) each."""

    probability: Tensor
    pull: Tensor


def _reference(scores: Tensor, **choices: Any) -> Answer:
    probability, pull = [], []
    for row in scores:
        leaf = row.unsqueeze(0).clone().requires_grad_()
        loss = reference_loss(
            leaf, torch.zeros(1, dtype=torch.int64), p_k=[0, 0, 0, 0, 1], m=None, top1_mode="sort", **choices
        )
        (gradient,) = torch.autograd.grad(loss, leaf)
        probability.append((math.exp(-loss.item()) - 1e-7) / (1 - 2e-7))
        pull.append(-gradient[0, 0].item())
    return Answer(probability=torch.tensor(probability), pull=torch.tensor(pull))


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "topk-probability": probabilities,
    "topk-pull": pulls,
    "topk-laws": laws,
    "topk-reference": reference,
}


def main() -> None:
    """Write one file per picture."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--folder", type=Path, default=HERE, help="where to (%(default)s)")
    arguments.add_argument("--format", default="svg", choices=["svg", "png"], help="png is for looking at")
    choices = arguments.parse_args()
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            target = choices.folder / f"{name}.{choices.format}"
            if choices.format == "png":
                draw().savefig(target, metadata={"Software": None}, dpi=110)
            else:
                target.write_text(_svg(draw()), encoding="utf-8")
            print(f"{target}: {target.stat().st_size // 1024} KiB")


def _svg(figure: Figure) -> str:
    """Return an SVG without a date or a version, with a hundredth of a point as its last digit."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    lines = stream.getvalue().splitlines()
    return "".join(_short(line) + "\n" for line in lines)


def _short(line: str) -> str:
    """Round the coordinates of paths and marks, which are most of the file."""
    if not re.match(r"[MLQC]|\s*<(path|use) ", line):
        return line.rstrip()
    line = line.replace('style="fill: #777777; stroke: #777777; stroke-width: 0.8"', 'fill="#777" stroke="#777"')
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), line).rstrip()


if __name__ == "__main__":
    main()
