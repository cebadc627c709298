"""`podium nodes`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podium.client.cli._text import ago, printable
from podium.jobs.job import Node, NodeState, Slot

_STYLES = {"READY": "green", "DRAINING": "yellow", "LOST": "bold red", "EXCLUDED": "bold magenta"}


def nodes_view(nodes: Sequence[Node]) -> RenderableType:
    """Each machine with its slots below it."""
    parts: list[RenderableType] = []
    for node in nodes:
        parts.append(_headline(node))
        if node.reason:
            parts.append(Text(f"  takes no jobs: {printable(node.reason)}", style="yellow"))
        parts.append(_slots(node))
    return Group(*parts)


def _headline(node: Node) -> Text:
    versions = {"podium": node.version, **dict(sorted(node.versions.items()))}
    told = [f"pool {node.pool}", ", ".join(f"{name} {version}" for name, version in versions.items() if version)]
    if node.heartbeat_time:
        told.append(f"heard from {ago(node.heartbeat_time)} ago")
    state = node.state.name
    text = Text.assemble((printable(node.id), "bold"), "  ", (state, _STYLES.get(state, "")))
    return text.append("  " + printable("  ".join(part for part in told if part)), style="dim")


def _slots(node: Node) -> Table:
    table = Table.grid(padding=(0, 2))
    for slot in node.slots:
        memory = f"{slot.memory_bytes / 2**30:.1f} GiB" if slot.memory_bytes else ""
        table.add_row(f"  {slot.index}", printable(slot.model), Text(memory, justify="right"), _use(node, slot))
    return table


def _use(node: Node, slot: Slot) -> Text:
    if not slot.trouble:
        return Text(slot.job_id or ("free" if node.state is NodeState.READY else "idle"))
    held = f"{slot.job_id}  " if slot.job_id else ""
    return Text.assemble(held, (f"takes no jobs: {printable(slot.trouble)}", "yellow"))
