"""Writes the generated parts of docs/topk.md from the registry of podium.topk: `python docs/sorter_table.py`."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from podium.topk import BASELINES, SORTERS, Parameter, SortingNetwork, Surrogate, parameters
from podium.topk._schedule import prune

GUIDE = Path(__file__).parent / "topk.md"
K = 5
SIZES = (16, 50, 100)
FAMILIES: Mapping[str, type[Surrogate]] = {**SORTERS, **BASELINES}


def document(text: str) -> str:
    """Return the guide with every generated part made anew."""
    return _renewed(_renewed(text, "sorters", families()), "networks", networks())


def _renewed(text: str, part: str, content: str) -> str:
    start, end = f"<!-- {part}: made by docs/sorter_table.py -->\n", f"<!-- end of {part} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{GUIDE.name} has no part between {start.strip()} and {end}.")
    return f"{before}{start}\n{content}\n{end}{after}"


def families() -> str:
    """Return the table of all sorters and baselines."""
    rows = ["| name | class | hyper-parameters | cost of a sample | what to know |", "|---|---|---|---|---|"]
    for name, family in FAMILIES.items():
        hyper = "<br>".join(map(_parameter, parameters(family))) or "none"
        about = " ".join([family.card.summary, *family.card.caveats])
        kind = f"`{family.__name__}`" + (", a baseline" if name in BASELINES else "")
        rows.append(f"| [`{name}`](#{name}) | {kind} | {hyper} | {family.card.cost} | {about} |")
    return "\n".join(rows) + "\n"


def networks() -> str:
    """Return the table of the sizes of the networks."""
    nets = {name: family for name, family in SORTERS.items() if issubclass(family, SortingNetwork)}
    rows = [f"| m | {' | '.join(f'`{name}`' for name in nets)} |", f"|---|{'---|' * len(nets)}"]
    rows += [f"| {m} | {' | '.join(_size(family, m) for family in nets.values())} |" for m in SIZES]
    return "\n".join(rows) + "\n"


def _size(family: type[SortingNetwork], m: int) -> str:
    layers = prune(family.layers(m, K), m, K)
    return f"{len(layers)} layers, {sum(map(len, layers))} comparators"


def _parameter(item: Parameter) -> str:
    if isinstance(item.default, Enum):
        return f"`{item.name}` = {item.default.value}; {', '.join(member.value for member in type(item.default))}"
    return f"`{item.name}` = {_number(item.default)}; {_interval(item)}"


def _interval(item: Parameter) -> str:
    low = f"[{_number(item.at_least)}" if item.at_least is not None else f"({_number(item.above)}"
    high = f"{_number(item.at_most)}]" if item.at_most is not None else f"{_number(item.below)})"
    return f"{low}, {high}"


def _number(value: float | None) -> str:
    if value is None:
        return "∞"
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


if __name__ == "__main__":
    GUIDE.write_text(document(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
