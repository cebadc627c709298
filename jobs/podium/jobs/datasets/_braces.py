"""Braces in the names of shards: `train-{000..146}.tar`, `{a,b}/0.tar`."""

import re
from collections.abc import Sequence
from itertools import product
from math import prod

MOST = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_HOW = "write {000..146} for a range, or {a,b} for a choice"


def expand(pattern: str) -> tuple[str, ...]:
    """The names that a pattern stands for, in its order; the last braces turn fastest. Without braces: itself.

    Both ends of a range are in it. Where one of them begins with 0, all its numbers are as long as the longer end.

    >>> expand("{a,b}-{08..10}.tar")
    ('a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar')

    Raises:
        ValueError: braces do not close, or nest, hold neither range nor choice, or stand for more than 100,000 names.
    """
    # Text and inside of braces by turns.
    pieces = _BRACES.split(pattern)
    if any("{" in text or "}" in text for text in pieces[::2]):
        raise ValueError(f"{pattern!a} has braces that nest or do not close; {_HOW}")
    choices = [_choices(pattern, inside) for inside in pieces[1::2]]
    if prod(len(choice) for choice in choices) > MOST:
        raise ValueError(f"{pattern!a} stands for more than {MOST:,} shards; make larger shards")
    return tuple(_woven(pieces[::2], chosen) for chosen in product(*choices))


def _choices(pattern: str, inside: str) -> Sequence[str]:
    if "," in inside:
        return inside.split(",")
    if (ends := _RANGE.fullmatch(inside)) is None:
        raise ValueError(f"{pattern!a} has {{{inside}}}, which is neither a range nor a choice; {_HOW}")
    first, last = int(ends[1]), int(ends[2])
    if first > last:
        raise ValueError(f"{pattern!a} counts down from {first} to {last}; write the smaller number first")
    if last - first >= MOST:
        raise ValueError(f"{pattern!a} stands for more than {MOST:,} shards; make larger shards")
    padded = any(len(end) > 1 and end.startswith("0") for end in ends.groups())
    width = max(map(len, ends.groups())) if padded else 0
    return [f"{number:0{width}}" for number in range(first, last + 1)]


def _woven(texts: Sequence[str], chosen: Sequence[str]) -> str:
    return texts[0] + "".join(part for pair in zip(chosen, texts[1:], strict=True) for part in pair)
