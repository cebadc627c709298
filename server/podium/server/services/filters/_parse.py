"""From the text of a filter to its tree. Hostile until it is read: bounded in length, in depth and in comparisons."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from podium.jobs.errors import FieldViolation, InvalidSpecError

MOST_CHARACTERS = 2000
MOST_COMPARISONS = 100
MOST_PARENTHESES = 30
EXAMPLE = 'state = RUNNING AND labels.team = "vision"'

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
#: What the grammar's terminals are called to a reader; those of a term begin with a field, which is enough said.
_TERMINALS: Mapping[str, str] = {
    "FIELD": "a field",
    "OPERATOR": "one of = != < <= > >= :",
    "VALUE": "a value",
    "_AND": "AND",
    "_OR": "OR",
    "RPAR": ")",
}
_KEYWORDS = ("and", "or", "not")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A field held against a value."""

    field: str
    """As written."""
    operator: str
    value: str
    """Without its quotes."""
    position: int
    """Of the field, from 1."""


@dataclass(frozen=True, kw_only=True)
class Negation:
    """True where its operand is not."""

    operand: "Tree"


@dataclass(frozen=True, kw_only=True)
class Conjunction:
    """True where all of its operands are."""

    operands: "tuple[Tree, ...]"


@dataclass(frozen=True, kw_only=True)
class Disjunction:
    """True where one of its operands is."""

    operands: "tuple[Tree, ...]"


Tree = Comparison | Negation | Conjunction | Disjunction


def parse(text: str) -> Tree:
    """The tree of a filter.

    Raises:
        InvalidSpecError: it cannot be read, or is too long; says where, and what was expected there.
    """
    if len(text) > MOST_CHARACTERS:
        raise wrong(f"has {len(text)} characters, and {MOST_CHARACTERS} are the most; ask for less at a time")
    if text.count("(") > MOST_PARENTHESES:
        raise wrong(f"has more than {MOST_PARENTHESES} opening parentheses; OR binds tighter than AND without them")
    try:
        # The builder makes a Tree of every rule.
        tree = cast(Tree, _grammar().parse(text))
    except UnexpectedInput as error:
        raise _misread(text, error) from None
    if (count := sum(1 for _ in comparisons(tree))) > MOST_COMPARISONS:
        raise wrong(f"has {count} comparisons, and {MOST_COMPARISONS} are the most; ask for less at a time")
    return tree


def comparisons(tree: Tree) -> Iterator[Comparison]:
    """Every comparison of a tree, in the order of the text."""
    match tree:
        case Comparison():
            yield tree
        case Negation():
            yield from comparisons(tree.operand)
        case _:
            for operand in tree.operands:
                yield from comparisons(operand)


def wrong(description: str, position: int | None = None) -> InvalidSpecError:
    """The error about a filter; `position` counts its characters from 1."""
    where = "" if position is None else f"at character {position}: "
    return InvalidSpecError([FieldViolation(field="filter", description=f"{where}{description}")])


def unquoted(text: str) -> str:
    """What stands between quotes, where there are any; a backslash there means the character after it."""
    return _ESCAPED.sub(r"\1", text[1:-1]) if text[:1] in ('"', "'") else text


@cache
def _grammar() -> Lark:
    text = files("podium.server.services.filters").joinpath("grammar.lark").read_text(encoding="utf-8")
    # The builder runs along with the parser, which is a loop, and not over its tree afterwards, which would recurse.
    return Lark(text, parser="lalr", start="conjunction", transformer=_Builder())


@v_args(inline=True)
class _Builder(Transformer[Token, Tree]):
    """What each rule of the grammar stands for."""

    def conjunction(self, *operands: Tree) -> Tree:
        return operands[0] if len(operands) == 1 else Conjunction(operands=operands)

    sequence = conjunction

    def disjunction(self, *operands: Tree) -> Tree:
        return operands[0] if len(operands) == 1 else Disjunction(operands=operands)

    def negation(self, operand: Tree) -> Tree:
        return Negation(operand=operand)

    def group(self, operand: Tree) -> Tree:
        return operand

    def comparison(self, field: Token, operator: Token, value: Token) -> Tree:
        return Comparison(
            field=str(field), operator=str(operator), value=unquoted(value), position=(field.start_pos or 0) + 1
        )


def _misread(text: str, error: UnexpectedInput) -> InvalidSpecError:
    if isinstance(error, UnexpectedToken):
        ended, found = error.token.type == "$END", str(error.token)
        place, expected = error.token.start_pos or 0, set(error.accepts or ())
    else:
        ended, place = False, error.pos_in_stream or 0
        found = text[place : place + 1]
        expected = set(error.allowed or ()) if isinstance(error, UnexpectedCharacters) else set()
    position = len(text) + 1 if ended else place + 1
    if found in ('"', "'"):
        return wrong(f"the text that begins with {found} does not end; close it with {found}", position)
    if found.lower() in _KEYWORDS and "FIELD" in expected:
        return wrong(f"write {found.upper()} for {found}, such as {EXAMPLE}", position)
    named = [word for terminal, word in _TERMINALS.items() if terminal in expected] or ["the end"]
    choices = f"{', '.join(named[:-1])} or {named[-1]}" if len(named) > 1 else named[0]
    there = "it ends" if ended else f"there is {found[:40]!a}"
    return wrong(f"{there} where {choices} should follow, such as {EXAMPLE}", position)
