"""The option `--node`: the peers that the archive knows by name; and how those are called that speak TLS."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.cli.tls import PEM
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.tls import TlsClient, TlsServer
    from tomowire.cli.receiving import Acceptor
    from tomowire.server.nodes import Node

T = TypeVar("T")


class NodeType(click.ParamType["Node"]):
    """Where a node is, as a person types it."""

    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Node:
        from tomowire.server.nodes import Node

        try:
            return Node.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


_OPTIONS: Final = (
    click.option(
        "--node",
        "nodes",
        type=NodeType(),
        multiple=True,
        metavar="AET@HOST:PORT",
        help="A peer that C-MOVE may send to, and that may call; may be repeated. With ',associations=N' behind it N are opened at "
        "once, with ',tls' it is called with TLS, and ',may=echo+store' is all that it may do (query, retrieve, move-destination).",
    ),
    click.option("--node-tls-ca", type=PEM, help="Authorities to trust of nodes with ',tls', PEM. Default: --tls-ca."),
    click.option("--node-tls-cert", type=PEM, help="Certificate to show to them, PEM. Default: --tls-cert."),
    click.option("--node-tls-key", type=PEM, help="Its private key, if it is in another file."),
)


def node_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options of the archive for its nodes, below `acceptor_options`; it gets `nodes` and `node_tls`."""

    @functools.wraps(command)
    def gathered(
        *,
        nodes: tuple[Node, ...],
        node_tls_ca: Path | None,
        node_tls_cert: Path | None,
        node_tls_key: Path | None,
        acceptor: Acceptor,
        **others: Any,
    ) -> T:
        is_given = any(each is not None for each in (node_tls_ca, node_tls_cert, node_tls_key))
        is_wanted = any(node.tls for node in nodes)
        if is_given and not is_wanted:
            raise click.UsageError("--node-tls-ca, --node-tls-cert and --node-tls-key are for a --node with ',tls'")
        if node_tls_key is not None and node_tls_cert is None:
            raise click.UsageError("--node-tls-key needs --node-tls-cert")
        tls = _way_to_nodes(acceptor.tls, node_tls_ca, node_tls_cert, node_tls_key) if is_wanted else None
        return command(nodes=nodes, node_tls=tls, acceptor=acceptor, **others)

    decorated: Callable[..., T] = gathered
    for option in reversed(_OPTIONS):  # decorators work from the bottom up
        decorated = option(decorated)
    return decorated


def _way_to_nodes(own: TlsServer | None, ca: Path | None, cert: Path | None, key: Path | None) -> TlsClient:
    """What is not said is as for those who call here."""
    from tomowire.aio.tls import TlsClient

    if own is None:
        return TlsClient(ca, cert, key)
    mine = (cert, key) if cert is not None else (own.certificate, own.key)
    return TlsClient(ca or own.authorities, *mine, profile=own.profile)
