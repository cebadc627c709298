"""podium nodes, drain, undrain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podium.client.cli._options import connect, console, json_option, print_json, server_option

if TYPE_CHECKING:
    from podium.jobs.job import Node

node_argument = click.argument("node", metavar="NODE")


@click.command()
@click.option("--pool", default="", help="Only the machines of this pool.")
@json_option
@server_option
def nodes(pool: str, as_json: bool, server: str | None) -> None:
    """Show the machines, why one takes no jobs, their versions, and what runs in each slot."""
    from podium.client._wire import to_json
    from podium.client.cli._nodes import nodes_view

    with connect(server) as client:
        found = client.nodes(pool)
    if as_json:
        print_json([to_json(node) for node in found])
    elif found:
        console().print(nodes_view(found))
    else:
        where = f" in pool {pool}" if pool else ""
        click.echo(
            f"No machines{where}. Start one with: python -m podium.worker   (or everything with: podium up)", err=True
        )


@click.command()
@node_argument
@click.option("--finish", is_flag=True, help="Let its jobs end, however long they take.")
@json_option
@server_option
def drain(node: str, finish: bool, as_json: bool, server: str | None) -> None:
    """Have NODE take no new jobs and give up those it has.

    They save their work and go back to the queue; with --finish they end there. `podium undrain NODE` takes it back.
    """
    with connect(server) as client:
        _tell(client.drain(node, finish=finish), as_json)


@click.command()
@node_argument
@json_option
@server_option
def undrain(node: str, as_json: bool, server: str | None) -> None:
    """Let NODE, which was drained or excluded, take jobs again."""
    with connect(server) as client:
        _tell(client.undrain(node), as_json)


def _tell(node: Node, as_json: bool) -> None:
    from podium.client._wire import to_json
    from podium.client.cli._text import printable

    if as_json:
        print_json(to_json(node))
        return
    held = sorted({slot.job_id for slot in node.slots if slot.job_id})
    runs = f"; it runs {', '.join(held)}" if held else ""
    click.echo(printable(f"{node.id} {node.state.name}{f': {node.reason}' if node.reason else ''}{runs}"))
