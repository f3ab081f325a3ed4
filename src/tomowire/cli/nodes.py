"""The option `--node`: the peers that the archive knows by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tomowire.errors import UsageError

if TYPE_CHECKING:
    from tomowire.server.nodes import Node


class NodeType(click.ParamType["Node"]):
    """Where a node is, as a person types it."""

    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Node:
        from tomowire.server.nodes import Node

        try:
            return Node.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


node_option = click.option(
    "--node",
    "nodes",
    type=NodeType(),
    multiple=True,
    metavar="AET@HOST:PORT",
    help="A peer that C-MOVE may send to, and that may call; may be repeated. With ',associations=N' behind it N are opened at "
    "once.",
)
