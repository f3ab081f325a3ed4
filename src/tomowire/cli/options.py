"""Options that several commands share, each defined once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import DEFAULT_AE_TITLE, DEFAULT_ASSOCIATION_TIMEOUT, DEFAULT_CONNECT_TIMEOUT
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


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
        try:
            return PeerAddress.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


peer_argument = click.argument("peer", type=Peer())

verbose_option = click.option("-v", "--verbose", count=True, help="Log what happens to stderr; -vv logs every detail.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one machine-readable summary on stdout.")


def requestor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command that opens associations takes."""
    options = (
        click.option("--aet", type=AeTitle(), default=DEFAULT_AE_TITLE, show_default=True, help="One's own AE title."),
        click.option(
            "--called-aet", type=AeTitle(), help="The peer's AE title, if it is not in PEER (default: ANY-SCP)."
        ),
        click.option(
            "--connect-timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=DEFAULT_CONNECT_TIMEOUT,
            show_default=True,
            help="Seconds for the TCP connection.",
        ),
        click.option(
            "--association-timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=DEFAULT_ASSOCIATION_TIMEOUT,
            show_default=True,
            help="Seconds for the peer's answer to the association request.",
        ),
    )
    for option in reversed(options):  # decorators work from the bottom up
        command = option(command)
    return command


def peer_address(peer: PeerAddress, called_aet: str | None) -> PeerAddress:
    """The address that a person has typed, with the AE title from `--called-aet` if that is given."""
    return peer if called_aet is None else PeerAddress(called_aet, peer.host, peer.port)
