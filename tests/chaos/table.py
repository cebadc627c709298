"""What was found, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.checks import PROMISES
from tests.chaos.matrix import SENSELESS, Blow, Case, Phase, Target


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one case."""

    case: Case | str
    violations: Sequence[str]
    seconds: float

    @property
    def line(self) -> str:
        """In a line, with the violations below it."""
        words = [f"{self.case}: {self.seconds:.1f} s, {'VIOLATED' if self.violations else 'ok'}"]
        return "\n    ".join([*words, *self.violations])


def markdown(results: Sequence[Result], head: str) -> str:
    """The table of the matrix, the list of the others, and every violation."""
    violations = [(result, sentence) for result in results for sentence in result.violations]
    lines = ["# The kill matrix", "", head, ""]
    lines += [f"{len(results)} cases run, {len(PROMISES)} promises and the site at rest checked after each:"]
    lines += [f"**{len(violations)} violations**.", ""]
    lines += ["A cell says in how many of its cases, one for each signal, nothing was violated.", ""]
    lines += _matrix({str(result.case): result for result in results if isinstance(result.case, Case)})
    lines += ["", *(f"* {target.value}, {phase.value}: {why}." for (target, phase), why in SENSELESS.items()), ""]
    lines += [f"Signals: {', '.join(blow.value for blow in Blow)}.", ""]
    lines += ["| also | seconds | |", "|---|---|---|"]
    for result in results:
        if isinstance(result.case, str):
            lines.append(f"| {result.case} | {result.seconds:.0f} | {_verdict(result)} |")
    if violations:
        lines += ["", "## Violations", "", *(f"* {result.case}: {sentence}" for result, sentence in violations)]
    return "\n".join([*lines, ""])


def _matrix(results: dict[str, Result]) -> list[str]:
    lines = ["| hit | " + " | ".join(phase.value for phase in Phase) + " |", "|---" * (len(Phase) + 1) + "|"]
    for target in Target:
        cells = [_cell(target, phase, results) for phase in Phase]
        lines.append(f"| {target.value} | " + " | ".join(cells) + " |")
    return lines


def _cell(target: Target, phase: Phase, results: dict[str, Result]) -> str:
    if (target, phase) in SENSELESS:
        return "makes no sense"
    found = [result for blow in Blow if (result := results.get(str(Case(target, blow, phase))))]
    good = sum(not result.violations for result in found)
    return f"{good} of {len(found)}" if found else "not run"


def _verdict(result: Result) -> str:
    return f"{len(result.violations)} violations" if result.violations else "ok"
