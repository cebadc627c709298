"""podium pool, sorters, backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podium.client.cli._options import connect, console, json_option, print_json, server_option

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@json_option
@server_option
def pool(as_json: bool, server: str | None) -> None:
    """Show the machines, their slots and what they run."""
    from podium.client._wire import to_json
    from podium.client.cli._text import ago, count

    with connect(server) as client:
        nodes = client.nodes()
    if as_json:
        print_json([to_json(node) for node in nodes])
        return
    if not nodes:
        click.echo("No machines. Start one with: python -m podium.worker   (or everything with: podium up)", err=True)
    table = _table("NODE", "POOL", "STATE", "SLOT", "DEVICE", "MEMORY", "JOB", "HEARD FROM")
    for node in nodes:
        for slot in node.slots:
            memory = f"{count(slot.memory_bytes)}B" if slot.memory_bytes else ""
            heard = f"{ago(node.heartbeat_time)} ago" if node.heartbeat_time else ""
            table.add_row(
                node.id, node.pool, node.state.name, str(slot.index), slot.model, memory, slot.job_id or "free", heard
            )
    if nodes:
        console().print(table)


@click.command()
@click.argument("name", default="", metavar="[NAME]")
@json_option
@server_option
def sorters(name: str, as_json: bool, server: str | None) -> None:
    """List the sorters and baselines that a spec may choose, with their parameters.

    With NAME: everything of that one, what it costs, where it comes from and what to beware of.
    """
    from podium.client._wire import to_json
    from podium.client.cli._sorters import choose, full_view, list_view

    with connect(server) as client:
        found = client.sorters()
    try:
        one = choose(found, name) if name else None
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from None
    if as_json:
        print_json([to_json(sorter) for sorter in found] if one is None else to_json(one))
        return
    console().print(list_view(found) if one is None else full_view(one))


@click.command()
@click.argument("contains", default="", metavar="[PART]")
@json_option
@server_option
def backbones(contains: str, as_json: bool, server: str | None) -> None:
    """List the backbones whose names contain PART."""
    from podium.client._wire import to_json
    from podium.client.cli._text import count

    with connect(server) as client:
        found = client.backbones(contains)
    if as_json:
        print_json([to_json(backbone) for backbone in found])
        return
    table = _table("BACKBONE", "LIBRARY", "PARAMETERS", "IMAGE")
    for backbone in found:
        size = f"{backbone.image_size} px" if backbone.image_size else ""
        table.add_row(backbone.name, backbone.library, count(backbone.parameters) if backbone.parameters else "", size)
    console().print(table)


def _table(*columns: Any) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column)
    return table
