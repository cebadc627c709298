"""What a family says of itself: its card, and its hyper-parameters with ranges that are also checked.

The catalogue of the API, the documents and the checks of every constructor are all made from these.
"""

import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from typing import Any, get_type_hints

_KEY = "podium.topk"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A family in words.

    Attributes:
        summary: What it is, in one sentence.
        citation: Where it comes from.
        cost: What one sample costs, in m scores and the largest k.
        caveats: What a user should know before choosing it.
    """

    summary: str
    citation: str
    cost: str
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A hyper-parameter; a bound that is None does not bind.

    Attributes:
        name: Its field.
        default: Its default, a number, a member of a StrEnum or a tuple of numbers.
        summary: What it does.
        above: Exclusive lower bound.
        at_least: Inclusive lower bound.
        below: Exclusive upper bound.
        at_most: Inclusive upper bound.
    """

    name: str = ""
    default: Any = None
    summary: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def check(self, value: Any) -> None:
        """Raise ValueError unless `value` is a finite number in range, or a tuple of such."""
        for number in value if isinstance(value, tuple) else (value,):
            if not self._allows(number):
                raise ValueError(f"{self.name} is {value}; give {self.range}.")

    def _allows(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    @property
    def range(self) -> str:
        """The range in words, such as "a finite number above 0, at most 1000000"."""
        if isinstance(self.default, StrEnum):
            return f"one of {', '.join(type(self.default))}"
        kind = "a whole number" if isinstance(self.default, int) else "a finite number"
        bounds = [
            f"{word} {bound:g}" if bound < 1e6 else f"{word} {bound:.0f}"
            for word, bound in (
                ("above", self.above),
                ("of at least", self.at_least),
                ("below", self.below),
                ("at most", self.at_most),
            )
            if bound is not None
        ]
        return f"{kind} {', '.join(bounds)}".strip()


def parameter(
    default: Any,
    summary: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Declare a hyper-parameter as a dataclass field; the bounds are those of `Parameter`."""
    declared = Parameter(default=default, summary=summary, above=above, at_least=at_least, below=below, at_most=at_most)
    return field(default=default, metadata={_KEY: declared})


def parameters(family: type[Any]) -> tuple[Parameter, ...]:
    """Return the hyper-parameters of a family in the order of its constructor."""
    return tuple(_named(item) for item in fields(family) if _KEY in item.metadata)


def check_parameters(instance: Any) -> None:
    """Check every hyper-parameter, and turn names into members of their enums.

    Raises:
        ValueError: If a number is out of its range or a name is unknown.
    """
    kinds: dict[str, Any] = get_type_hints(type(instance))
    for item in parameters(type(instance)):
        value = getattr(instance, item.name)
        if isinstance(item.default, StrEnum):
            object.__setattr__(instance, item.name, _member(type(item.default), item.name, value))
        else:
            _check_kind(kinds[item.name], item, value)
            item.check(value)


def _named(item: Field[Any]) -> Parameter:
    declared: Parameter = item.metadata[_KEY]
    return Parameter(**{**{f.name: getattr(declared, f.name) for f in fields(declared)}, "name": item.name})


def _check_kind(kind: Any, item: Parameter, value: Any) -> None:
    allowed: Callable[[Any], bool] = {
        float: lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        int: lambda v: isinstance(v, int) and not isinstance(v, bool),
    }.get(kind, lambda v: isinstance(v, tuple))
    if not allowed(value):
        raise ValueError(f"{item.name} is {value!r}; give {item.range}.")


def _member(kind: type[StrEnum], name: str, value: Any) -> StrEnum:
    if value not in list(kind):
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(kind)}.")
    return kind(value)
