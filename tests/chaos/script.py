"""The language in which a chaos test tells the scripted trainer what to do; it stands in a job's display_name.

steps 40, pause 0.02, save 5, nan 12, slow-save 2; once

steps N           how many steps the job has; always there
pause S           seconds that a step takes
save N            a checkpoint every N steps, and one at the end
size N            bytes of ballast in every checkpoint
slow-save S       seconds that it takes to write a checkpoint
hold-step N       waits in step N until the file "go" is in the job's scratch folder; says by "at" that it is there
hold-save N       the same with half of the checkpoint of step N written
hold-end          the same with everything done, before it says so
hold-stop         the same with half of the checkpoint written with which it obeys a wish to stop
nan N, oom N      fails in step N
crash N, hang N   dies or never comes back in step N
crash-in-save N   dies with half of the checkpoint of step N written
once              what goes wrong does so in one attempt only
"""

import re
from dataclasses import dataclass, fields, replace

#: The faults of a step.
FAULTS = ("nan", "oom", "crash", "hang")
_WHOLE = re.compile(r"[0-9]{1,10}")
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4})?")


class ScriptError(ValueError):
    """The text is not of the language; the sentence says where."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """What to do. 0 and False: never."""

    steps: int
    pause: float = 0.0
    save: int = 0
    size: int = 0
    slow_save: float = 0.0
    hold_step: int = 0
    hold_save: int = 0
    hold_end: bool = False
    hold_stop: bool = False
    nan: int = 0
    oom: int = 0
    crash: int = 0
    hang: int = 0
    crash_in_save: int = 0
    once: bool = False

    def __str__(self) -> str:
        """The text: `parse` of it is the same script."""
        said = [_word(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "once"]
        return ", ".join(filter(None, said)) + ("; once" if self.once else "")

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after a step."""
        return step == self.steps or (self.save > 0 and step % self.save == 0)


_KINDS = {field.name: field.type for field in fields(Script)}


def parse(text: str) -> Script:
    """The script.

    Raises:
        ScriptError: a word is unknown, said twice or without its number, or there are no steps.
    """
    body, semicolon, tail = text.partition(";")
    if semicolon and tail.strip() != "once":
        raise ScriptError(f"after the semicolon stands {tail.strip()!r}; only 'once' may")
    said: dict[str, float | int | bool] = {}
    for phrase in body.split(","):
        name, value = _phrase(phrase)
        if name in said:
            raise ScriptError(f"{phrase.split()[0]} is said twice")
        said[name] = value
    if not said.get("steps"):
        raise ScriptError("a script says how many steps there are, at least 1: 'steps 10'")
    return replace(Script(steps=1), **said, once=bool(semicolon))  # type: ignore[arg-type]  # _phrase has looked


def _phrase(phrase: str) -> tuple[str, float | int | bool]:
    word, *values = phrase.split() or [""]
    name = word.replace("-", "_")
    kind = _KINDS.get(name)
    if kind is None or name == "once" or "_" in word:
        raise ScriptError(f"{word!r} is no word of the language")
    if kind is bool:
        if values:
            raise ScriptError(f"{word} takes no number")
        return name, True
    pattern, example = (_WHOLE, "3") if kind is int else (_SECONDS, "0.5")
    if len(values) != 1 or not pattern.fullmatch(values[0]):
        raise ScriptError(f"{word} takes one number, such as '{word} {example}'")
    return name, kind(values[0])  # type: ignore[operator]  # int or float


def _word(name: str, value: float | int | bool) -> str:
    word = name.replace("_", "-")
    if value is True:
        return word
    return (
        f"{word} {value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) and value else _counted(word, value)
    )


def _counted(word: str, value: float | int) -> str:
    return f"{word} {value}" if value else ""
