"""A peer by the name of a node in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.cli.configured import Source
from tomowire.errors import UsageError
from tomowire.server.config.mapping import nodes_of, settings_of
from tomowire.server.config.problems import nearest
from tomowire.server.nodes import find_node as called

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.aio.tls import TlsClient
    from tomowire.server.nodes import Node


def find_node(name: str, file: Path | None) -> tuple[Node, TlsClient | None]:
    """The node of that name or AE title, and how it is called if that is with TLS.

    Raises `UsageError` if there is none, `ConfigurationInvalid` for mistakes in the configuration.
    """
    configuration = Source(file, {}).load().configuration
    nodes = nodes_of(configuration)
    node = called(nodes.values(), name)
    if node is None:
        meant = nearest(name, {*nodes, *(each.ae_title for each in nodes.values())})
        hint = f"did you mean {meant!r}?" if meant is not None else f"there are {', '.join(nodes) or 'none'}"
        raise UsageError(f"no node is named {name!r} in {file or 'the environment'}: {hint}")
    tls = settings_of(configuration).node_tls
    return node, node.way(tls) if tls is not None else None
