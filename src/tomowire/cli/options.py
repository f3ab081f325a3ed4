"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
import logging
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import DEFAULT_AE_TITLE, DEFAULT_ASSOCIATION_TIMEOUT, DEFAULT_CONNECT_TIMEOUT
from tomowire.cli.configured import CONFIG, is_configured, nodes_option
from tomowire.cli.identity import identity_options, warn_of_secrets
from tomowire.cli.running import set_up_logging
from tomowire.cli.tls import tls_client_options
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.tls import TlsClient

T = TypeVar("T")

_NODE_TLS: Final = "tomowire.node_tls"


class AeTitle(click.ParamType[str]):
    """An AE title, checked."""

    name = "AE title"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_ae_title(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Peer(click.ParamType[PeerAddress]):
    """Where a peer is, as a person types it."""

    name = "peer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PeerAddress:
        scheme, separator, location = value.partition("://")
        if separator and scheme != "pacs":
            self.fail(f"{value!r}: a peer is written AET@host:port or pacs://host:port", param, ctx)
        if separator and "@" in location:
            self.fail(f"{value!r} mixes two forms: write {location}, without pacs://", param, ctx)
        if not separator and "@" not in value:
            return self._node(value, param, ctx)
        try:
            return PeerAddress.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def _node(self, name: str, param: click.Parameter | None, ctx: click.Context | None) -> PeerAddress:
        """Where the node of that name is. How it is called, with TLS or not, is left for `requestor_options`."""
        config = ctx.params.get("config") if ctx is not None else None
        file = config if isinstance(config, Path) else None  # or click's mark for what is not there
        if not is_configured(file):
            self.fail(
                f"{name!r} has no AE title: a peer is written AET@host:port or pacs://host:port, or is the name of a node in a "
                f"configuration (--config, ${CONFIG})",
                param,
                ctx,
            )
        from tomowire.cli.named_peer import find_node  # reads the configuration

        try:
            node, tls = find_node(name, file)
            address = PeerAddress(check_ae_title(node.ae_title), node.host, node.port)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        assert ctx is not None
        ctx.meta[_NODE_TLS] = tls
        return address


class OutputFolder(click.Path):
    """A folder that need not be there yet; then it can be made, as far as can be seen."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Any = super().convert(value, param, ctx)
        for above in path.parents:
            super().convert(above, param, ctx)  # a file has nothing below it
        return path


peer_argument = click.argument("peer", type=Peer())

verbose_option = click.option("-v", "--verbose", count=True, help="Log what happens to stderr; -vv logs every detail.")
output_option = click.option(
    "-o", "--output", type=OutputFolder(), required=True, help="Folder for the files; made if it does not exist."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one machine-readable summary on stdout.")


def requestor_options(*, timeout: float, timeout_help: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """What every command that opens associations takes. It gets `peer` with the AE title from `--called-aet` if that is given,
    `timeout`, `verbose`, and as `options` what goes to `associate`; it logs from then on."""

    def with_options(command: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(command)
        def gathered(
            *,
            peer: PeerAddress,
            called_aet: str | None,
            aet: str,
            connect_timeout: float,
            association_timeout: float,
            verbose: int,
            tls: TlsClient | None,
            identity: dict[str, Any],
            config: Path | None,
            **others: Any,
        ) -> T:
            set_up_logging(verbose, least=logging.ERROR)  # what goes wrong is said anyway
            tls = tls or click.get_current_context().meta.get(_NODE_TLS)
            options: dict[str, Any] = {
                "aet": aet,
                "connect_timeout": connect_timeout,
                "association_timeout": association_timeout,
                **identity,
            }
            if tls is not None:
                options["ssl"] = tls
            warn_of_secrets(identity.get("identity"), tls)
            address = peer if called_aet is None else PeerAddress(called_aet, peer.host, peer.port)
            return command(peer=address, verbose=verbose, options=options, **others)

        decorated: Callable[..., T] = tls_client_options(identity_options(gathered))
        for option in (
            nodes_option,
            verbose_option,
            _seconds("--timeout", timeout, timeout_help),
            *reversed(_REQUESTOR),
        ):
            decorated = option(decorated)  # decorators work from the bottom up
        return decorated

    return with_options


class _Seconds(click.FloatRange):
    """More than none. No comparison holds for NaN: no limit keeps it out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


def _seconds(name: str, default: float, text: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    kind = _Seconds(min=0, min_open=True)
    return click.option(name, type=kind, default=default, show_default=True, help=text)


_REQUESTOR: Final = (
    click.option("--aet", type=AeTitle(), default=DEFAULT_AE_TITLE, show_default=True, help="One's own AE title."),
    click.option("--called-aet", type=AeTitle(), help="The peer's AE title, if it is not in PEER (default: ANY-SCP)."),
    _seconds("--connect-timeout", DEFAULT_CONNECT_TIMEOUT, "Seconds for the TCP connection."),
    _seconds(
        "--association-timeout",
        DEFAULT_ASSOCIATION_TIMEOUT,
        "Seconds for the peer's answer to the association request.",
    ),
)
