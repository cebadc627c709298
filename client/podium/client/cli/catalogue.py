"""podium sorters, backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podium.client.cli._options import connect, console, json_option, print_json, server_option

if TYPE_CHECKING:
    from rich.table import Table


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
