"""podium sorters, backbones, datasets, info, schema."""

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
    if not found:
        click.echo(f"No backbone has {contains!r} in its name; `podium backbones` lists all.", err=True)
        return
    table = _table("BACKBONE", "LIBRARY", "PARAMETERS", "IMAGE")
    for backbone in found:
        size = f"{backbone.image_size} px" if backbone.image_size else ""
        table.add_row(backbone.name, backbone.library, count(backbone.parameters) if backbone.parameters else "", size)
    console().print(table)


@click.command()
@click.argument("contains", default="", metavar="[TEXT]")
@json_option
@server_option
def datasets(contains: str, as_json: bool, server: str | None) -> None:
    """List what lies on the server's storage and can be trained on, where TEXT is in the path.

    Each line can stand in a job.yaml as it is.
    """
    import yaml

    from podium.client._wire import to_json
    from podium.client.cli._text import printable

    with connect(server) as client:
        found = client.datasets(contains)
    if as_json:
        print_json(to_json(found))
        return
    for one in found.datasets:
        fields = yaml.safe_dump(one.fields, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 20)
        told = f"{one.classes} classes" if one.classes else ""
        note = "needs `classes:` beside it" if one.kind == "web_dataset" else told
        click.echo(printable(f"{one.kind}: {fields.strip()}{f'  # {note}' if note else ''}"))
    if found.truncated:
        click.echo("There are more than the server was ready to look for; narrow it down with TEXT.", err=True)
    elif not found.datasets:
        click.echo("None found. `podium info` names the folders that the server looks in.", err=True)


@click.command()
@json_option
@server_option
def info(as_json: bool, server: str | None) -> None:
    """Show the server's version, its limits, and where images may lie."""
    from podium.client._wire import to_json

    with connect(server) as client:
        found = client.server_info()
    if as_json:
        print_json(to_json(found))
        return
    table = _table("", "")
    table.show_header = False
    for name, value in to_json(found).items():
        table.add_row(name.replace("_", " "), _limit(value))
    console().print(table)


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False, writable=True), help="Write it there.")
@server_option
def schema(output: str | None, server: str | None) -> None:
    """Print the JSON Schema of a job.yaml, with which an editor completes and checks one.

    Written with --output job.schema.json, it is used by editors that have the YAML language server where a job.yaml
    begins with the line "# yaml-language-server: $schema=job.schema.json".
    """
    import json
    from pathlib import Path

    with connect(server) as client:
        text = json.dumps(client.spec_schema(), ensure_ascii=False, indent=1)
    if output is None:
        click.echo(text)
        return
    Path(output).write_text(f"{text}\n", encoding="utf-8")
    click.echo(f"Wrote {output}. Begin a job.yaml beside it with: # yaml-language-server: $schema={Path(output).name}")


def _limit(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(value) or "none"
    return "no limit" if value == 0 else str(value)


def _table(*columns: Any) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column)
    return table
