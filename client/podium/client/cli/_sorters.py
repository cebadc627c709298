"""`podium sorters`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podium.client._catalogue import ParameterInfo, SorterInfo
from podium.client.cli._text import printable


def list_view(found: Sequence[SorterInfo]) -> RenderableType:
    """Sorters and baselines, each with its parameters, their defaults and ranges."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("SORTER", no_wrap=True)
    table.add_column("WHAT IT IS, ITS PARAMETERS")
    for info in found:
        kind = "A baseline. " if info.baseline else ""
        lines = [
            Text(f"{parameter.name} = {_default(parameter)}{_in_brackets(parameter)}", style="dim")
            for parameter in info.parameters
        ]
        table.add_row(printable(info.name), Group(printable(kind + info.summary), *lines))
    return table


def full_view(info: SorterInfo) -> RenderableType:
    """Everything of one."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    rows = [
        ("name", f"{info.name}, a {'baseline' if info.baseline else 'sorter'}"),
        ("what it is", info.summary),
        ("from", info.citation),
        ("cost", info.cost and f"{info.cost} For one sample: n classes, m scores, k the largest k."),
        *(("beware", caveat) for caveat in info.caveats),
        *((parameter.name, _told(parameter)) for parameter in info.parameters),
        (
            "in a job.yaml",
            f"{info.name}: {{{', '.join(f'{each.name}: {_default(each)}' for each in info.parameters)}}}",
        ),
    ]
    for label, text in rows:
        if text:
            table.add_row(printable(label), printable(text))
    return table


def choose(found: Sequence[SorterInfo], name: str) -> SorterInfo:
    """The one of that name.

    Raises:
        LookupError: there is none; the message says which there are.
    """
    names = [info.name for info in found]
    if name in names:
        return found[names.index(name)]
    near = get_close_matches(name, names, n=1)
    told = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise LookupError(f"{name!r} is no sorter; {told}")


def _told(parameter: ParameterInfo) -> str:
    kind = "a whole number " if isinstance(parameter.default, int) else "a number "
    choices = (
        "one of " + ", ".join(_short(parameter, each) for each in parameter.choices)
        if parameter.choices
        else kind + ", ".join(_bounds(parameter))
    )
    return f"{parameter.summary} Default {_default(parameter)}; {choices.strip()}."


def _in_brackets(parameter: ParameterInfo) -> str:
    bounds = ", ".join(_bounds(parameter))
    return f" ({bounds})" if bounds else ""


def _bounds(parameter: ParameterInfo) -> Iterable[str]:
    for words, bound in (
        ("above", parameter.above),
        ("at least", parameter.at_least),
        ("below", parameter.below),
        ("at most", parameter.at_most),
    ):
        if bound is not None:
            yield f"{words} {_number(bound)}"


def _default(parameter: ParameterInfo) -> str:
    default = parameter.default
    return _number(default) if isinstance(default, int | float) else _short(parameter, str(default))


def _short(parameter: ParameterInfo, choice: str) -> str:
    """As one writes it in a job.yaml: the contract's names begin with that of their enum."""
    return choice.removeprefix(f"{parameter.name.upper()}_").lower()


def _number(value: float) -> str:
    # Neither 1e+06 nor 1.3333333333333333.
    return f"{value:.0f}" if value == int(value) else f"{value:.6g}"
