"""The table of a size, for the terminal and as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.topk.contenders import CROSS_ENTROPY, TORCH_TOPK, Contender, Size
from benchmarks.topk.measure import PEAK_NOISE, Probe

HOW_TO_READ = """\
One call is forward plus the gradient of the logits. `ms` is the median over turns that interleave all rows, `middle
half` its quartiles: differences within them are noise. `/ cross_entropy` and `/ torch.topk` divide a row's time by that
of `torch.nn.functional.cross_entropy` and of `torch.topk` alone on the same logits, forward only: the floor of whatever
selects the m largest with it (without truncation it selects the largest k). A `difftopk` row stands below ours of the
same sorter, and its last two columns are its time and its peak memory divided by ours: above 1, ours is better. Its
smooth top-k SVMs know one k and all scores, so ours is asked for the same. `MB` is what a single call adds, at its
worst moment, to what was allocated before it: resident memory of a fresh process on a CPU, torch's own count on a GPU.
It includes the gradient of the logits. Compare ratios, not milliseconds, between machines."""

_TIME_IS_BYTES = """\
`/ bytes` is the time divided by that of reading the logits once and writing their gradient once at the bandwidth of a
plain copy on this card, {bandwidth:.0f} GB/s: at 1, a call is as fast as its memory traffic allows."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contender and what was measured of it."""

    contender: Contender
    probe: Probe
    seconds: Sequence[float]

    @property
    def median(self) -> float | None:
        """Seconds a call, None for one that cannot run."""
        return statistics.median(self.seconds) if self.seconds else None


def cells(size: Size, rows: Mapping[str, Row], bandwidth: float | None) -> list[list[str]]:
    """Return the table's lines, header first."""
    header = ["loss", "ms", "middle half", "/ cross_entropy", "/ torch.topk"]
    header += ["/ bytes"] if bandwidth else []
    header += ["MB", "time / ours", "MB / ours"]
    return [header, *(_line(size, row, rows, bandwidth) for row in rows.values())]


def _line(size: Size, row: Row, rows: Mapping[str, Row], bandwidth: float | None) -> list[str]:
    if row.median is None:
        return [row.contender.name, "", row.probe.why_not] + [""] * (5 + bool(bandwidth))
    ours = rows.get(row.contender.against or "")
    line = [row.contender.name, _ms(row.median), _middle_half(row.seconds)]
    line += [_ratio(row.median, rows[name].median if name in rows else None) for name in (CROSS_ENTROPY, TORCH_TOPK)]
    if bandwidth:
        line.append(_ratio(row.median, 2 * size.batch * size.n * 4 / bandwidth))
    line += [_megabytes(row.probe.peak), _ratio(row.median, ours.median if ours else None)]
    return [*line, _ratio(row.probe.peak, ours.probe.peak if ours else None, floor=PEAK_NOISE)]


def _middle_half(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return ""
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return f"{_ms(low)} to {_ms(high)}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def _megabytes(peak: int | None) -> str:
    if peak is None:
        return ""
    return f"{peak / 1e6:.1f}" if peak >= PEAK_NOISE else f"< {PEAK_NOISE / 1e6}"


def _ratio(value: float | None, unit: float | None, floor: float = 0) -> str:
    if value is None or unit is None or min(value, unit) <= floor:
        return ""
    ratio = value / unit
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def terminal(title: str, lines: Sequence[Sequence[str]]) -> Table:
    """Return the table for the terminal."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(lines[0]):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for line in lines[1:]:
        rival = line[0].startswith("difftopk")
        table.add_row(*line, style="dim" if rival else None)
    return table


def markdown(title: str, lines: Sequence[Sequence[str]]) -> str:
    """Return the table as Markdown under its title."""
    ruler = ["---", *["---:"] * (len(lines[0]) - 1)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ruler, *lines[1:]])
    return f"## {title}\n\n{body}\n"


def document(head: str, tables: Sequence[str], bandwidth: float | None) -> str:
    """Return the whole file."""
    bytes_too = " " + _TIME_IS_BYTES.format(bandwidth=bandwidth / 1e9) if bandwidth else ""
    return "\n".join([f"# Top-k losses: time and memory\n\n{head}\n\n{HOW_TO_READ}{bytes_too}\n", *tables])
